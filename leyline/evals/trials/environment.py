"""Where a number comes from: the machine and the releases that a figure has to name."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

from leyline.evals.trials.config import cores


def machine() -> dict[str, object]:
    """Processor, cores, memory in GiB, system."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": _processor(),
        "cores": cores(),
        "memory_gib": round(memory, 1),
        "system": platform.platform(terse=True),
    }


def machine_name(device: str | None = None) -> str:
    """`16 cores of Intel Xeon`, and what else computes: `..., NVIDIA H100`.

    device: the accelerator of a model in this process (`Capabilities.device`), None for the CPU.
    """
    name = described(machine())
    return f"{name}, {device}" if device else name


def described(machine: Mapping[str, object]) -> str:
    """The name of a machine from its `machine()`, such as a run's configuration holds it."""
    return f"{machine.get('cores', '?')} cores of {machine['cpu']}"


def versions() -> dict[str, str]:
    """Releases of what decides a trial's numbers, as far as they are installed here."""
    found = {"python": platform.python_version()}
    for name in ("leyline-kv", "torch", "transformers", "tokenizers", "swebench"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


@cache
def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
