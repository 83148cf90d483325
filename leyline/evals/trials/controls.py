"""Negative controls: arms that break one thing on purpose, to show that the number notices."""

from __future__ import annotations

from typing import Any

from leyline.evals.trials.arms import ArmError


class _Still:
    """A rotary table between whose positions there is no angle: moved keys keep their old phase."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def __getattr__(self, name: str) -> Any:
        return getattr(self._table, name)

    def between(self, old: Any, new: Any) -> tuple[Any, Any]:
        cos, sin = self._table.between(old, old)
        return cos, sin


def without_rotation(backend: Any) -> None:
    """Make a local backend move keys without turning them. Raises ArmError where it does not splice at all."""
    runner = backend._runner
    if not hasattr(runner, "table"):
        raise ArmError(f"the unrotated control needs a model that can be spliced: {backend.capabilities().reason}")
    runner.table = _Still(runner.table)
