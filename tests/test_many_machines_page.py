"""docs/many-machines.md shows the numbers of results/fleet/, and no others."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "many-machines.md").read_text(encoding="utf-8")
tables = SimpleNamespace(**runpy.run_path(str(ROOT / "benchmarks" / "fleet_table.py")))


def test_the_tables_are_those_that_the_file_gives() -> None:
    found = tables.read()
    assert tables.fleets(found) in PAGE
    assert tables.capacities(found) in PAGE


def test_the_file_names_its_machine_date_and_command_and_the_page_repeats_them() -> None:
    found = tables.read()
    assert {"machine", "date", "command", "seconds"} <= set(found)
    assert "fleet.py" in found["command"]
    assert found["date"] in PAGE
    assert f"{float(found['settings']['rate']):g} sessions" in PAGE
