"""From a command line to SGLang's: what is added, what is refused, and what is left alone."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from leyline.backends.sglang import launch
from leyline.backends.sglang.features import FEATURES
from leyline.backends.sglang.launch import Launch, LaunchError, options, plan_launch
from leyline.backends.sglang.versions import UnsupportedVersionError, adapter_name

Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """`install(sglang=VERSION or None, plugin=True, platform=True)`: what is installed, as far as metadata tell."""

    def be(sglang: str | None = "0.5.23", *, plugin: bool = True, platform: bool = True) -> None:
        def version(name: str) -> str:
            if name == "sglang" and sglang is None:
                raise metadata.PackageNotFoundError(name)
            return {"sglang": sglang or "", "leyline-kv": "0.1.0"}[name]

        def entry_points(group: str) -> list[Any]:
            names = {"sglang.srt.plugins": ["leyline"] * plugin, "sglang.srt.platforms": ["torch_cpu"] * platform}
            return [SimpleNamespace(name=name) for name in names[group]]

        monkeypatch.setattr(launch.metadata, "version", version)
        monkeypatch.setattr(launch.metadata, "entry_points", entry_points)

    be()
    return be


def plan(*args: str, cuda: bool = True, environ: Mapping[str, str] | None = None) -> Launch:
    return plan_launch("model", args, environ=environ or {}, has_cuda=lambda: cuda)


def value(command: Sequence[str], name: str) -> str:
    assert command.count(name) == 1, f"{name} stands {command.count(name)} times in {command}"
    return command[command.index(name) + 1]


def test_a_gpu_server_gets_the_plugin_and_nothing_of_the_cpu(install: Install) -> None:
    planned = plan("--tp", "2", "--port", "8000")
    assert planned.command[:3] == (sys.executable, "-m", "sglang.launch_server")
    assert value(planned.command, "--model-path") == "model"
    assert value(planned.command, "--radix-cache-backend") == "leyline"
    assert "--enable-cache-report" in planned.command
    assert planned.command[-4:] == ("--tp", "2", "--port", "8000")
    assert "--device" not in planned.command
    assert "--disable-overlap-schedule" not in planned.command
    assert planned.environment == {}


@pytest.mark.skipif(find_spec("leyline_torch_cpu") is None, reason="the CPU platform is not installed")
def test_a_machine_without_a_gpu_gets_the_platform(install: Install) -> None:
    from leyline_torch_cpu import standin_path

    planned = plan(cuda=False, environ={"PYTHONPATH": "/mine"})
    assert planned.environment["SGLANG_PLATFORM"] == "torch_cpu"
    assert planned.environment["PYTHONPATH"].split(":") == [p for p in (standin_path(), "/mine") if p]
    assert value(planned.command, "--device") == "cpu"
    assert value(planned.command, "--attention-backend") == "torch_native"
    assert "--disable-overlap-schedule" in planned.command
    assert any("CPU" in note for note in planned.notes)


@pytest.mark.skipif(find_spec("leyline_torch_cpu") is None, reason="the CPU platform is not installed")
def test_what_the_user_gives_wins(install: Install) -> None:
    given = ("--dtype=bfloat16", "--max-total-tokens", "1000", "--disable-overlap-schedule")
    planned = plan(*given, cuda=False)
    assert "--dtype" not in planned.command
    assert value(planned.command, "--max-total-tokens") == "1000"
    assert planned.command.count("--disable-overlap-schedule") == 1


def test_the_device_is_not_looked_for_where_the_user_names_it(install: Install) -> None:
    def has_cuda() -> bool:
        raise AssertionError("the device was given")

    planned = plan_launch("model", ["--device", "xpu"], environ={}, has_cuda=has_cuda)
    assert planned.environment == {}
    planned = plan_launch("model", [], environ={"SGLANG_PLATFORM": "theirs"}, has_cuda=has_cuda)
    assert planned.environment == {}


def test_a_list_of_plugins_that_leaves_this_one_out_is_completed(install: Install) -> None:
    assert plan(environ={"SGLANG_PLUGINS": "other"}).environment["SGLANG_PLUGINS"] == "other,leyline"
    assert plan(environ={"SGLANG_PLUGINS": "other, leyline"}).environment == {}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("LEYLINE_MAX_GENERATIONS", "many", "from 0 to 255"), ("LEYLINE_MOVER", "cuda", "triton or torch")],
)
def test_a_setting_of_the_plugin_that_cannot_be_used_is_told_before_the_start(
    install: Install, name: str, value: str, said: str
) -> None:
    with pytest.raises(LaunchError, match=said):
        plan(environ={name: value})


def test_prefill_without_chunks_is_allowed(install: Install) -> None:
    assert plan("--chunked-prefill-size", "-1").command[-2:] == ("--chunked-prefill-size", "-1")


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--disable-radix-cache"], "--disable-radix-cache"),
        (["--speculative-algorithm", "EAGLE"], "speculative decoding"),
        (["--kv-cache-dtype", "fp8_e5m2"], "--kv-cache-dtype fp8_e5m2"),
        (["--kv_cache_dtype=fp8_e4m3"], "quantised"),
        (["--radix-cache-backend", "flexkv"], "another cache"),
        (["--disaggregation-mode", "prefill"], "disaggregation"),
        (["--pp-size", "2"], "pipeline"),
        (["--enable-hierarchical-cache", "--port", "1"], "hierarchical"),
        (["--model-path", "x"], "name the model once"),
    ],
)
def test_what_excludes_splicing_is_refused_at_once(install: Install, args: list[str], named: str) -> None:
    with pytest.raises(LaunchError, match=r"^[^\n]*$") as caught:
        plan(*args)
    assert named in str(caught.value)


@pytest.mark.parametrize("args", [["--kv-cache-dtype", "auto"], ["--pp-size", "1"], ["--radix-cache-backend=leyline"]])
def test_harmless_values_of_those_options_pass(install: Install, args: list[str]) -> None:
    assert plan(*args).command[-len(args) :] == tuple(args)


def test_missing_pieces_are_named_with_what_to_do(install: Install) -> None:
    install(None)
    with pytest.raises(LaunchError, match=r"pip install 'leyline-kv\[sglang\]'.*make sglang-cpu"):
        plan()
    install(plugin=False)
    with pytest.raises(LaunchError, match="reinstall"):
        plan()
    install(platform=False)
    with pytest.raises(LaunchError, match="make sglang-cpu"):
        plan(cuda=False)
    install("0.5.16")
    assert plan().notes[0].startswith("SGLang 0.5.16")
    with pytest.raises(LaunchError, match=r"needs SGLang 0\.5\.23, not 0\.5\.16"):
        plan(cuda=False)


@pytest.mark.parametrize("version", ["0.5.15", "0.5.17", "0.5.21", "0.5.230", "0.5.16rc0", "0.6.0", "1.0", "nightly"])
def test_another_release_is_refused_with_the_range(install: Install, version: str) -> None:
    install(version)
    with pytest.raises(UnsupportedVersionError, match=r"0\.5\.16 or 0\.5\.23"):
        plan()


def test_builds_of_a_supported_release_are_taken() -> None:
    assert adapter_name("0.5.23.post1") == adapter_name("0.5.23+cu130") == adapter_name("0.5.23")


@pytest.mark.skipif(find_spec("sglang") is None, reason="SGLang is not installed")
def test_every_refused_setting_exists_in_sglang() -> None:
    spec = find_spec("sglang")
    assert spec is not None
    assert spec.origin is not None
    srt = Path(spec.origin).parent / "srt"
    files = [srt / "server_args.py", *(srt / "arg_groups").rglob("*.py")]
    source = "\n".join(file.read_text(encoding="utf-8") for file in files)
    assert [name for name in FEATURES if f"\n    {name}: " not in source] == []


def test_options_are_read_as_sglang_reads_them() -> None:
    words = ["--dtype", "half", "--no-such", "5", "--enable_lmcache", "--pp-size=2", "word", "--dtype", "bfloat16"]
    words += ["--chunked-prefill-size", "-1", "--no-such-either=--device"]
    assert options(words) == {
        "--dtype": "bfloat16",
        "--enable-lmcache": None,
        "--pp-size": "2",
        "--chunked-prefill-size": "-1",
    }
    assert options(["--speculative-alg", "EAGLE"]) == {"--speculative-algorithm": "EAGLE"}, "SGLang takes short names"
    with pytest.raises(LaunchError, match=r"ambiguous option: --enable could match .*; write the option's whole name"):
        options(["--enable"])


@pytest.mark.skipif(find_spec("sglang") is None, reason="SGLang is not installed")
def test_no_option_of_sglang_is_taken_for_a_short_name_of_another() -> None:
    spec = find_spec("sglang")
    assert spec is not None
    assert spec.origin is not None
    srt = Path(spec.origin).parent / "srt"
    names: set[str] = set()
    for file in [srt / "server_args.py", *(srt / "arg_groups").rglob("*.py")]:
        text = file.read_text(encoding="utf-8")
        names |= set(re.findall(r"\"(--[a-z0-9][a-z0-9-]+)\"", text))
        names |= {f"--{name.replace('_', '-')}" for name in re.findall(r"\n    ([a-z0-9_]+): ", text)}
    taken = {name: found for name in names if (found := list(options([name]))) and found != [name]}
    assert {name: found for name, found in taken.items() if name != "--speculative-algo"} == {}


def leyline(*args: str) -> subprocess.CompletedProcess[str]:
    code = "from leyline.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, "serve", *args], capture_output=True, text=True, timeout=120)


def test_the_command_says_in_one_line_what_is_wrong(tmp_path: Path) -> None:
    done = leyline("no-such-model")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "tiny-mla" in done.stderr
    (tmp_path / "empty").mkdir()
    done = leyline(str(tmp_path / "empty"))
    assert done.returncode == 2
    assert "config.json" in done.stderr
    assert leyline().returncode == 2


@pytest.mark.skipif(
    find_spec("sglang") is None or find_spec("leyline_torch_cpu") is None, reason="SGLang for the CPU is not installed"
)
def test_a_dry_run_prints_the_command_and_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    done = leyline("--dry-run", str(tmp_path), "--device", "cpu", "--tool-call-parser", "qwen", "--help")
    assert done.returncode == 0, done.stderr
    words = shlex.split(done.stdout)
    assert "SGLANG_PLATFORM=torch_cpu" in words
    assert value(words, "--model-path") == str(tmp_path)
    assert words[-3:] == ["--tool-call-parser", "qwen", "--help"]
