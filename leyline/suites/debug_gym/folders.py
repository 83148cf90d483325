"""Debug-gym folders as suites by name."""

from __future__ import annotations

from pathlib import Path

from leyline.suites.debug_gym.gym_suite import DebugGymSuite
from leyline.suites.suite import SuiteError

HOW_TO_GET = (
    "get the ten tasks with `git clone --depth 1 https://github.com/microsoft/debug-gym`, "
    "then add --option folder=debug-gym/data/mini_nightmare"
)


def mini_nightmare(folder: str | Path | None = None, *, network: bool = False) -> DebugGymSuite:
    """The ten tasks, from a folder that holds them. Raises SuiteError that says how to get them."""
    if folder is None:
        raise SuiteError(f"mini_nightmare needs its folder: {HOW_TO_GET}")
    if not Path(folder).is_dir():
        raise SuiteError(f"no folder {folder}; {HOW_TO_GET}")
    return DebugGymSuite(folder, network=network)
