"""Energy of the machine's accelerators, from NVIDIA's own counter; nothing where there is none."""

from __future__ import annotations

import ctypes

_LIBRARY = "libnvidia-ml.so.1"


class EnergyMeter:
    """Reads NVML's total energy counters (Volta and later), summed over the visible devices.

    The counter is the device's, not the process's: it is fair to one trial only where nothing else runs there.
    """

    def __init__(self) -> None:
        self._library: ctypes.CDLL | None = None
        self._devices: list[ctypes.c_void_p] = []
        try:
            library = ctypes.CDLL(_LIBRARY)
        except OSError:
            return
        if library.nvmlInit_v2() != 0:
            return
        count = ctypes.c_uint()
        if library.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
            return
        for index in range(count.value):
            device = ctypes.c_void_p()
            if library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)) == 0:
                self._devices.append(device)
        self._library = library

    def read(self) -> float | None:
        """Joules since the driver was loaded, or None where no device tells."""
        if self._library is None or not self._devices:
            return None
        total = 0
        for device in self._devices:
            value = ctypes.c_ulonglong()
            if self._library.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(value)) != 0:
                return None
            total += value.value
        return total / 1000
