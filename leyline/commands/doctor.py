"""`leyline doctor`: what works on this machine, and what to install for the rest."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata, util

import typer

from leyline.backends.sglang.versions import SUPPORTED, UnsupportedVersionError, adapter_name
from leyline.commands.terminal import say
from leyline.directives.counts import count


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report. `fix` says what to do where `ok` is false; optional parts do not fail the command."""

    name: str
    ok: bool
    found: str
    fix: str = ""
    required: bool = False


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _python() -> Check:
    ok = sys.version_info >= (3, 11)
    return Check(
        "python", ok, f"{platform.python_version()} on {platform.platform()}", "use Python 3.11 or newer", True
    )


def _core() -> Check:
    names = ("pydantic", "httpx", "openai", "typer", "rich", "jinja2", "tokenizers")
    missing = [n for n in names if _version(n) is None]
    return Check(
        "core",
        not missing,
        ", ".join(f"{n} {_version(n)}" for n in names if n not in missing),
        f"pip install {' '.join(missing)}",
        True,
    )


def _local() -> Check:
    torch, transformers = _version("torch"), _version("transformers")
    if torch is None or transformers is None or util.find_spec("safetensors") is None:
        return Check("local backend", False, "not installed", "pip install 'leyline-kv[local]'")
    import torch as t

    device = (
        f"CUDA ({t.cuda.get_device_name(0)})"
        if t.cuda.is_available()
        else f"CPU, {count(t.get_num_threads(), 'thread')}"
    )
    return Check("local backend", True, f"torch {torch}, transformers {transformers}, {device}")


def _models() -> Check:
    from leyline import models

    found = models.names()
    return Check(
        "bundled models", bool(found), ", ".join(found) or "none", "reinstall leyline-kv: its model files are missing"
    )


def _fetchable() -> Check:
    from leyline.models import fetchable
    from leyline.models.fetched import here, source_of

    sources = [source_of(name) for name in fetchable()]
    found = [f"{source.name} ({here(source)})" for source in sources if here(source)]
    missing = [source.install for source in sources if not here(source)]
    return Check("pretrained models", not missing, ", ".join(found) or "none", "; ".join(missing))


def _sglang() -> Check:
    version = _version("sglang")
    if version is None:
        return Check(
            "sglang", False, "not installed", "pip install 'leyline-kv[sglang]' (GPU) or `make sglang-cpu` (CPU)"
        )
    plugins = {e.name for e in metadata.entry_points(group="sglang.srt.plugins")}
    if "leyline" not in plugins:
        return Check(
            "sglang",
            False,
            f"{version}, plugin not registered",
            "reinstall leyline-kv so that its entry points are written",
        )
    try:
        adapter_name(version)
    except UnsupportedVersionError:
        return Check("sglang", False, version, f"install one of: {SUPPORTED}")
    return Check("sglang", True, f"{version}, plugin registered")


def _sandbox() -> Check:
    from leyline.harness.sandbox.isolation import capabilities

    found = capabilities()
    off = [name for name, works in found.items() if not works]
    return Check(
        "sandbox",
        not off,
        ", ".join(n for n, works in found.items() if works) or "none",
        f"tools run without: {', '.join(off)} (Linux with user namespaces has them all)",
    )


def _test_runner() -> Check:
    from leyline.directives import LeylineError
    from leyline.suites.micro.micro_suite import try_runner

    try:
        try_runner()
    except LeylineError as error:
        fix = "no trial would count: look at where the interpreter and leyline lie, and who may read them"
        return Check("test runner", False, str(error), fix, True)
    return Check("test runner", True, "a repaired task passes its tests in the sandbox", required=True)


def _docker() -> Check:
    if shutil.which("docker") is None:
        return Check("docker", False, "not installed", "only needed to score SWE-bench predictions: install Docker")
    try:
        done = subprocess.run(
            ["docker", "info", "--format", "{{.ServerVersion}}"], capture_output=True, text=True, timeout=5
        )
        ok, found = done.returncode == 0, done.stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        ok, found = False, ""
    return Check(
        "docker",
        ok,
        f"engine {found}" if ok else "client only",
        "start the Docker engine to score SWE-bench predictions",
    )


def _package(name: str, distribution: str, extra: str) -> Check:
    version = _version(distribution)
    return Check(
        name,
        version is not None,
        f"{distribution} {version}" if version else "not installed",
        f"pip install 'leyline-kv[{extra}]'",
    )


def checks() -> list[Check]:
    """Run every check; one that breaks is reported as such and does not hide the others."""
    tests: list[tuple[str, Callable[[], Check]]] = [
        ("python", _python),
        ("core", _core),
        ("local backend", _local),
        ("bundled models", _models),
        ("pretrained models", _fetchable),
        ("sandbox", _sandbox),
        ("test runner", _test_runner),
        ("sglang", _sglang),
        ("swebench", lambda: _package("swebench", "swebench", "swebench")),
        ("docker", _docker),
        ("report plots", lambda: _package("report plots", "matplotlib", "report")),
    ]
    found: list[Check] = []
    for name, test in tests:
        try:
            found.append(test())
        except Exception as error:  # a broken optional package must not hide the rest of the report
            found.append(Check(name, False, f"{type(error).__name__}: {error}".splitlines()[0], "reinstall this part"))
    return found


def doctor(as_json: bool = typer.Option(False, "--json", help="Print one JSON object.")) -> None:
    """Say what works here, and what to install for the rest.

    Example: leyline doctor
    """
    found = checks()
    if as_json:
        say(json.dumps({"checks": [asdict(c) for c in found]}))
    else:
        width = max(len(c.name) for c in found)
        for c in found:
            say(f"{'ok  ' if c.ok else '--  '} {c.name:<{width}}  {c.found}")
            if not c.ok:
                say(f"     {'':<{width}}  -> {c.fix}")
    if any(c.required and not c.ok for c in found):
        raise typer.Exit(2)
