"""Debug-gym folders as suites by name."""

from __future__ import annotations

from pathlib import Path

from leyline.evals.suites.base import SuiteError
from leyline.evals.suites.debug_gym import DebugGymSuite

HOW_TO_GET = (
    "mini_nightmare is ten folders of debug-gym (MIT). Get them with\n"
    "  git clone --depth 1 https://github.com/microsoft/debug-gym\n"
    "and run\n"
    "  leyline eval mini_nightmare --option folder=debug-gym/data/mini_nightmare"
)


def mini_nightmare(folder: str | Path | None = None, *, network: bool = False) -> DebugGymSuite:
    """The ten tasks, from a folder that holds them. Raises SuiteError that says how to get them."""
    if folder is None:
        raise SuiteError(HOW_TO_GET)
    if not Path(folder).is_dir():
        raise SuiteError(f"no folder {folder}; {HOW_TO_GET}")
    return DebugGymSuite(folder, network=network)
