"""docs/proxy.md shows the numbers of results/proxy/, and no others."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "proxy.md").read_text(encoding="utf-8")
made = SimpleNamespace(**runpy.run_path(str(ROOT / "benchmarks" / "proxy_table.py")))


def test_the_table_is_the_one_that_the_files_give() -> None:
    assert made.figures() in PAGE


def test_the_sentences_hold_for_the_files() -> None:
    late, rate, room = (made.read(name)[name] for name in ("latency", "throughput", "memory"))
    assert f"{rate['ratio']:.1f} times as many" in PAGE
    assert rate["ratio"] >= 3
    assert f"load {late['load_before']:.0f}" in PAGE
    assert f"{late['waited']:.0%} of the time" in PAGE
    assert late["added_ms"]["p50"] <= 3
    assert late["added_ms"]["p99"] <= 15
    again = made.read("latency-again")["latency"]["added_ms"]
    assert f"p50 was {again['p50']:.1f} ms and p99 {again['p99']:.1f} ms" in PAGE
    assert abs(room["growth_second_half_mib"]) < 4
    assert room["requests"] >= 20_000


def test_every_file_names_its_machine_date_and_command() -> None:
    for file in (ROOT / "results" / "proxy").glob("*.json"):
        assert {"machine", "date", "command"} <= set(json.loads(file.read_text(encoding="utf-8"))), file.name
