"""Whose energy is counted: that of the devices that CUDA shows to this process, and nobody else's."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from leyline.evals.trials.energy import EnergyMeter

UUIDS = ["GPU-aaaa1111-0", "GPU-aaab2222-1", "GPU-bbbb3333-2"]


class NVMLError(Exception):
    pass


def fake(names: tuple[str, ...] = ("H200",) * 3, cut: tuple[int, ...] = (), **changes: Any) -> SimpleNamespace:
    """NVML with three devices that have used 1, 10 and 100 joules."""

    def mig(device: int) -> tuple[int, int]:
        if names[device] == "V100":
            raise NVMLError
        return (int(device in cut), 0)

    nvml = {
        "NVMLError": NVMLError,
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 3,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetUUID": lambda device: UUIDS[device],
        "nvmlDeviceGetName": lambda device: names[device].encode(),
        "nvmlDeviceGetMigMode": mig,
        "nvmlDeviceGetTotalEnergyConsumption": lambda device: 1000 * 10**device,
    }
    return SimpleNamespace(**{**nvml, **changes})


def joules(monkeypatch: pytest.MonkeyPatch, nvml: Any, visible: str | None, **environment: str) -> float | None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    named = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    return EnergyMeter({**named, **environment}).read()


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, 111),
        ("0", 1),
        ("2", 100),
        ("2,0", 101),
        (" 1 , 2 ", 110),
        ("", None),
        ("-1", None),
        ("NoDevFiles", None),
        ("0,-1,2", 1),
        ("1,7,0", 10),
        ("0,0", None),
        ("GPU-bbbb3333-2", 100),
        ("GPU-bbbb", 100),
        ("gpu-bbbb", None),
        ("GPU-aaaa,GPU-bbbb", 101),
        ("GPU-aaa", None),
        ("GPU-cccc,0", None),
        ("0,GPU-aaaa", None),
        ("MIG-GPU-aaaa1111-0/1/0", None),
        ("MIG-5a5a", None),
        ("0,MIG-5a5a", None),
    ],
)
def test_devices_by_setting(monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: float | None) -> None:
    assert joules(monkeypatch, fake(), visible) == expected


def test_a_device_that_is_cut_has_no_energy_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert joules(monkeypatch, fake(cut=(1,)), None) is None
    assert joules(monkeypatch, fake(cut=(1,)), "1") is None
    assert joules(monkeypatch, fake(cut=(1,)), "0") == 1


def test_an_index_counts_only_where_cuda_and_nvml_agree_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = fake(names=("V100", "H200", "H200"))
    assert joules(monkeypatch, mixed, "0") is None
    assert joules(monkeypatch, mixed, "0", CUDA_DEVICE_ORDER="PCI_BUS_ID") == 1
    assert joules(monkeypatch, mixed, "GPU-bbbb") == 100
    assert joules(monkeypatch, mixed, None) == 111


def test_where_nothing_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise NVMLError

    for name in ("nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetTotalEnergyConsumption"):
        assert joules(monkeypatch, fake(**{name: fail}), None) is None
    assert joules(monkeypatch, None, None) is None  # not installed


def test_the_setting_is_that_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert EnergyMeter().read() == 10
