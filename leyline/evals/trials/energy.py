"""Energy of the accelerators that this process may use, from NVIDIA's own counter; nothing where there is none."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any


class EnergyMeter:
    """Reads NVML's total energy counters (Volta and later), summed over the devices of CUDA_VISIBLE_DEVICES.

    The counter is the device's, not the process's: it is fair to one trial only where nothing else runs there. So a
    device that is cut into MIG instances has none, and a setting that cannot be followed with certainty gives none:
    a neighbour's energy is worse than no number. Needs nvidia-ml-py, which comes with the `local` extra.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._nvml: Any = None
        self._devices: list[Any] = []
        try:
            import pynvml
        except ImportError:
            return
        try:
            pynvml.nvmlInit()
            self._devices = visible_devices(pynvml, os.environ if environment is None else environment)
        except pynvml.NVMLError:  # no driver, or one that does not tell
            return
        self._nvml = pynvml

    def read(self) -> float | None:
        """Joules since the driver was loaded, or None where no device tells."""
        if self._nvml is None or not self._devices:
            return None
        try:
            millijoules = [self._nvml.nvmlDeviceGetTotalEnergyConsumption(device) for device in self._devices]
        except self._nvml.NVMLError:
            return None
        return float(sum(millijoules)) / 1000


def visible_devices(nvml: Any, environment: Mapping[str, str]) -> list[Any]:
    """The handles of the whole devices that CUDA shows to a process with this environment; empty where one is unsure.

    CUDA_VISIBLE_DEVICES lists indices, UUIDs or unique beginnings of them; of a list with an entry that names nothing
    CUDA takes what stands before it, so that "" and "-1" name none (CUDA C Programming Guide, environment variables).
    Raises NVMLError.
    """
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    setting = environment.get("CUDA_VISIBLE_DEVICES")
    if setting is None:
        chosen = handles
    else:
        entries = [entry.strip() for entry in setting.split(",")]
        if any(entry.startswith("MIG-") for entry in entries):
            return []
        if any(entry.isdigit() for entry in entries) and not _in_bus_order(nvml, handles, environment):
            return []
        chosen = _named(entries, handles, lambda handle: _text(nvml.nvmlDeviceGetUUID(handle)))
    return [] if any(_is_cut(nvml, handle) for handle in chosen) else chosen


def _named(entries: list[str], handles: list[Any], uuid_of: Callable[[Any], str]) -> list[Any]:
    chosen: list[Any] = []
    for entry in entries:
        if entry.isdigit():
            found = handles[int(entry) : int(entry) + 1]
        elif entry.startswith("GPU-"):
            found = [handle for handle in handles if uuid_of(handle).lower().startswith(entry.lower())]
        else:
            found = []
        if len(found) != 1:
            break
        if found[0] in chosen:  # CUDA refuses a list that names one device twice
            return []
        chosen += found
    return chosen


def _in_bus_order(nvml: Any, handles: list[Any], environment: Mapping[str, str]) -> bool:
    """Whether CUDA's indices are NVML's: by default CUDA puts the fastest device first, NVML goes by the bus."""
    if environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID":
        return True
    return len({_text(nvml.nvmlDeviceGetName(handle)) for handle in handles}) <= 1


def _is_cut(nvml: Any, handle: Any) -> bool:
    try:
        return bool(nvml.nvmlDeviceGetMigMode(handle)[0])
    except nvml.NVMLError:  # a device that knows no MIG
        return False


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
