"""From a model and SGLang's own options to the command that starts a splicing server. Imports neither sglang nor torch.

SGLang stays in charge: what is added here is the plugin's radix cache, the cache report, and, without a CUDA device,
the plain-torch CPU platform with the settings it needs. Whatever the caller gives wins over those settings; what would
keep the server from splicing is refused before ten seconds are spent on starting it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata, util
from typing import NoReturn

from leyline.backends.sglang.features import FEATURES
from leyline.backends.sglang.settings import MOVERS, move_limit, mover_name
from leyline.backends.sglang.versions import adapter_name
from leyline.directives import LeylineError

PLUGIN = "leyline"
PLATFORM = "torch_cpu"
CPU_VERSION = "0.5.23"
"""The release that the CPU platform was written for."""

CPU_SETTINGS = {
    "--device": "cpu",
    "--attention-backend": "torch_native",
    "--dtype": "float32",
    "--mem-fraction-static": "0.5",
    "--max-total-tokens": "65536",
}
_SINGLE = {  # further options under which nothing is spliced: the values that are harmless, and what others turn on
    "--radix-cache-backend": ((PLUGIN,), "another cache"),
    "--kv-cache-dtype": (("auto", "bf16", "bfloat16", "fp16", "float16", "float32"), "a quantised KV cache"),
    "--disaggregation-mode": (("null",), "prefill and decode disaggregation"),
    "--pp-size": (("1",), "pipeline parallelism"),
    "--pipeline-parallel-size": (("1",), "pipeline parallelism"),
    "--dcp-size": (("1",), "context parallelism"),
    "--attn-cp-size": (("1",), "context parallelism"),
}
_EXCLUDED = {f"--{name.replace('_', '-')}": text for name, text in FEATURES.items()}
_MODEL_FLAGS = ("--model-path", "--model")
_LOOKED_AT = (
    "--served-model-name",
    "--enable-cache-report",
    "--disable-overlap-schedule",
    "--sleep-on-idle",
    "--chunked-prefill-size",
)


class LaunchError(LeylineError):
    """The server cannot be started like this. The message says what to change."""


@dataclass(frozen=True, slots=True)
class Launch:
    """A server's command line, what its environment has beside the caller's, and notes for people."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    notes: tuple[str, ...]


def plan_launch(
    model: str,
    args: Sequence[str],
    *,
    environ: Mapping[str, str],
    has_cuda: Callable[[], bool],
    served_name: str | None = None,
) -> Launch:
    """The launch for `model` with SGLang's own options `args`. Raises `LaunchError`, `UnsupportedVersionError`.

    has_cuda is asked only where the options do not tell. served_name: the name to serve the model under by default.
    """
    version = installed_version()
    given = options(args)
    _check_options(given)
    try:
        move_limit(environ)
        mover_name(environ, MOVERS[0])
    except LeylineError as error:
        raise LaunchError(str(error)) from None
    command = [sys.executable, "-m", "sglang.launch_server", "--model-path", model]
    settings = {"--radix-cache-backend": PLUGIN}
    if served_name is not None:
        settings["--served-model-name"] = served_name
    environment: dict[str, str] = {}
    notes = [f"SGLang {version}, spliced by the plugin of leyline-kv {metadata.version('leyline-kv')}"]
    if _wants_cpu(given, environ, has_cuda):
        settings.update(CPU_SETTINGS)
        environment.update(_cpu_environment(version, environ))
        notes.append("no GPU: serving on the CPU with plain PyTorch (slow; for tests and small models)")
    for name, value in settings.items():
        if name not in given:
            command += [name, value]
    flags = ["--enable-cache-report"]
    if environment:
        flags += ["--disable-overlap-schedule", "--sleep-on-idle"]  # an idle scheduler would keep a core busy
    command += [flag for flag in flags if flag not in given]
    plugins = environ.get("SGLANG_PLUGINS", "")
    if plugins and PLUGIN not in [name.strip() for name in plugins.split(",")]:
        environment["SGLANG_PLUGINS"] = f"{plugins},{PLUGIN}"
    return Launch((*command, *args), environment, tuple(notes))


def start(launch: Launch) -> None:
    """Become the server: it takes this process over, so that signals and the exit code are its own. Does not return."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(launch.command[0], list(launch.command), {**os.environ, **launch.environment})


def installed_version() -> str:
    """SGLang's version. Raises `LaunchError` where it or the plugin is missing, `UnsupportedVersionError`."""
    try:
        version = metadata.version("sglang")
    except metadata.PackageNotFoundError:
        raise LaunchError(
            "SGLang is not installed; with a GPU run: pip install 'leyline-kv[sglang]'; "
            "without one, in a checkout of leyline: make sglang-cpu"
        ) from None
    adapter_name(version)
    if all(entry.name != PLUGIN for entry in metadata.entry_points(group="sglang.srt.plugins")):
        raise LaunchError(
            "the plugin is not registered with SGLang; reinstall: pip install --force-reinstall leyline-kv"
        )
    return version


def cuda_available() -> bool:
    """Whether PyTorch sees a CUDA (or ROCm) device. Imports torch."""
    if util.find_spec("torch") is None:
        raise LaunchError("PyTorch is not installed; install SGLang with its requirements")
    import torch

    return torch.cuda.is_available()


def options(args: Sequence[str]) -> dict[str, str | None]:
    """The options in `args` that matter here, by whole name, with the word behind them (None for a flag).

    Read as SGLang reads them, by argparse: a name may be shortened, and the last one counts.
    """
    parser = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    parser.error = _as_launch_error  # type: ignore[method-assign]
    for name in dict.fromkeys([*_MODEL_FLAGS, *_EXCLUDED, *_SINGLE, *CPU_SETTINGS, *_LOOKED_AT]):
        parser.add_argument(name, dest=name, nargs="?")
    words = [_dashed(word) if word.startswith("--") else word for word in args]
    return vars(parser.parse_known_args(words)[0])


def _dashed(word: str) -> str:
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


def _as_launch_error(message: str) -> NoReturn:
    raise LaunchError(f"{message}; write the option's whole name")


def _check_options(given: Mapping[str, str | None]) -> None:
    for flag in _MODEL_FLAGS:
        if flag in given:
            raise LaunchError(f"{flag} is given beside the model; name the model once: leyline serve MODEL [options]")
    for name, value in given.items():
        if name in _EXCLUDED:
            text = _EXCLUDED[name]
        elif name in _SINGLE and value not in _SINGLE[name][0]:
            text, name = _SINGLE[name][1], f"{name} {value or ''}".strip()
        else:
            continue
        raise LaunchError(
            f"{name} excludes splicing ({text}); leave it out, or start SGLang itself: python -m sglang.launch_server"
        )


def _wants_cpu(given: Mapping[str, str | None], environ: Mapping[str, str], has_cuda: Callable[[], bool]) -> bool:
    """Whether the plain-torch platform is to be used: not when the caller chose another device or platform."""
    chosen = environ.get("SGLANG_PLATFORM")
    if chosen:
        return chosen == PLATFORM
    device = given.get("--device")
    return device == "cpu" if device is not None else not has_cuda()


def _cpu_environment(version: str, environ: Mapping[str, str]) -> dict[str, str]:
    platforms = {entry.name for entry in metadata.entry_points(group="sglang.srt.platforms")}
    if PLATFORM not in platforms or util.find_spec("leyline_torch_cpu") is None:
        raise LaunchError(
            "no CUDA device was found, and the CPU platform is not installed; in a checkout of leyline run: "
            "make sglang-cpu"
        )
    if version != CPU_VERSION:
        raise LaunchError(f"no CUDA device was found, and the CPU platform needs SGLang {CPU_VERSION}, not {version}")
    from leyline_torch_cpu import standin_path

    paths = [path for path in (standin_path(), environ.get("PYTHONPATH")) if path]
    return {"SGLANG_PLATFORM": PLATFORM, **({"PYTHONPATH": os.pathsep.join(paths)} if paths else {})}
