"""docs/performance.md shows the numbers of results/speed/, and no others."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
tables = SimpleNamespace(**runpy.run_path(str(ROOT / "benchmarks" / "tables.py")))


@pytest.mark.parametrize("make", tables.TABLES, ids=lambda make: make.__name__)
def test_each_table_is_the_one_that_the_files_give(make: object) -> None:
    assert callable(make)
    assert make() in PAGE


def test_the_sentences_hold_for_the_files() -> None:
    entries = tables.read("edits")["edits"]
    worst = {kind: max(e["ms"][kind] / e["ms"]["full_hit"] for e in entries) for kind in ("del1", "rep1", "rep5")}
    said = re.search(r"within (\S+)x of a full hit, one replacement within (\S+)x, five within (\S+)x", PAGE)
    assert said is not None
    assert list(said.groups()) == [f"{worst[kind]:.2f}" for kind in worst]
    arms = {(e["model"], e["arm"]): e for e in tables.read("traffic")["traffic"]}
    mean = {arm: arms["dsv2-lite", arm]["ttft_mean"] for arm in ("truncate/amortize", "keep_all/radix")}
    assert f"{mean['truncate/amortize']:.0f} against {mean['keep_all/radix']:.0f} ms" in PAGE
    assert mean["truncate/amortize"] <= mean["keep_all/radix"]
    for found in (tables.read("traffic")["traffic"], tables.read("traffic")["again"]):
        mean = {e["arm"]: e["ttft_mean"] for e in found if e["model"] == "llama31-8b"}
        assert f"{mean['truncate/amortize']:.0f} against {mean['keep_all/radix']:.0f} ms" in PAGE
    for (_, arm), entry in arms.items():
        if arm.endswith("/auto"):
            assert entry["ttft_mean"] <= 1.02 * entry["radix_ttft_mean"]
            assert entry["ttft_p95"] <= 1.02 * entry["radix_ttft_p95"]
    idle = tables.read("idle")["idle"][0]
    assert f"{idle['ratio']:.3f}" in PAGE
    assert f"from {idle['interval'][0]:.3f} to {idle['interval'][1]:.3f}" in PAGE
    assert f"{tables.read('kernel')['copy_gb_per_s']:,} GB/s" in PAGE


def test_every_file_names_its_machine_date_and_command() -> None:
    files = sorted((ROOT / "results" / "speed").glob("*.json"))
    assert len(files) >= 6
    for file in files:
        found = json.loads(file.read_text(encoding="utf-8"))
        assert {"machine", "date", "command"} <= set(found), file.name
