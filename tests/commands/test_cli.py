"""The command as a whole: help, version, doctor, and a reader that goes away."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def test_no_arguments_show_the_commands(leyline: Any) -> None:
    done = leyline()
    for name in ("run", "policy", "doctor"):
        assert f"  {name} " in done.out + done.err


@pytest.mark.parametrize("command", [["run"], ["policy", "list"], ["policy", "show"], ["policy", "test"], ["doctor"]])
def test_every_help_has_an_example(leyline: Any, command: list[str]) -> None:
    done = leyline(*command, "--help")
    assert done.code == 0
    assert f"Example: leyline {' '.join(command)}" in " ".join(done.out.split())


def test_version(leyline: Any) -> None:
    done = leyline("--version")
    assert (done.code, done.out.split()[0]) == (0, "leyline")


def test_importing_the_command_makes_no_tasks() -> None:
    """The templates of the generated tasks are read when a task is drawn, not for `leyline --version`."""
    code = (
        "import sys, leyline.cli; assert not [m for m in sys.modules if m.startswith('leyline.suites.micro.')];"
        "from leyline.suites.micro import catalogue; assert not catalogue.written.cache_info().currsize"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_an_unknown_command_is_a_usage_error(leyline: Any) -> None:
    done = leyline("fly")
    assert done.code == 2
    assert "fly" in done.err


def test_doctor_says_what_works_and_what_to_do(leyline: Any) -> None:
    done = leyline("doctor")
    assert done.code == 0, done.out
    told = leyline("doctor", "--json").json["checks"]
    assert {"python", "core", "local backend", "bundled models", "sandbox", "sglang"} <= {c["name"] for c in told}
    for check in told:
        assert check["ok"] or check["fix"], f"{check['name']} does not work, and nothing is said about it"
        assert check["name"] in done.out


@pytest.mark.parametrize(
    ("closed", "command"),
    [
        ("stdout", ["policy", "list"]),
        ("stdout", ["policy", "test", "keep_all", "--trace", "T"]),
        ("stdout", ["micro", "show"]),
        ("stdout", ["doctor"]),
        ("stderr", ["fly"]),
        ("stderr", ["policy", "show", "none"]),
    ],
)
def test_a_reader_that_goes_away_is_no_failure(command: list[str], closed: str, tmp_path: Path) -> None:
    trace = tmp_path / "t.json"
    trace.write_text(json.dumps([{"role": "user", "content": "Go."}, {"role": "assistant", "content": "Gone."}]))
    words = [str(trace) if word == "T" else word for word in command]
    code = "from leyline.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        gone, other = (process.stdout, process.stderr) if closed == "stdout" else (process.stderr, process.stdout)
        assert gone is not None
        assert other is not None
        gone.close()
        told = other.read()
    assert (process.returncode, told) == (141, "")


CORE_ONLY = """
import sys
from importlib.abc import MetaPathFinder

EXTRAS = {"torch", "transformers", "safetensors", "numpy", "scipy", "matplotlib", "sglang", "swebench", "fastapi"}
EXTRAS |= {"ray", "yaml", "pyarrow", "datasets", "docker", "pytest", "hypothesis"}


class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Missing())
from leyline.cli import main

sys.argv = ["leyline", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize(
    "command", [["--help"], ["run", "--help"], ["policy", "list"], ["policy", "test", "keep_last(n=1)", "--trace", "T"]]
)
def test_a_core_install_is_enough(command: list[str], tmp_path: Path) -> None:
    """What needs no extra must not import one."""
    trace = tmp_path / "t.json"
    call = [{"role": "user", "content": "Go."}, {"role": "assistant", "content": "Gone."}]
    trace.write_text(json.dumps([*call, *call]))
    words = [str(trace) if word == "T" else word for word in command]
    done = subprocess.run(
        [sys.executable, "-c", CORE_ONLY, *words], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
