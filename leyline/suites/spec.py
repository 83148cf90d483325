"""Which tasks an eval runs on, as its configuration says it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from leyline.directives import JsonMapping

FIRST_SEED = 1_000_000
"""Of the generated tasks that are worked on: far from the seeds of the bundled models' training data."""


class SuiteSpec(BaseModel):
    """Which tasks. `options` go to the suite: levels and split for micro, rows for swebench, a folder for debug-gym."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="micro, mini_nightmare, debug_gym, swebench, or a registered suite.")
    options: JsonMapping = Field(default_factory=dict)
