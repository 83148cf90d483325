"""docs/evidence.md shows the numbers of results/fidelity/, and no others."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8")
WORDS = " ".join(PAGE.split())
evidence = SimpleNamespace(**runpy.run_path(str(ROOT / "benchmarks" / "evidence.py")))


@pytest.mark.parametrize("make", evidence.TABLES, ids=lambda make: make.__name__)
def test_each_table_is_the_one_that_the_records_give(make: object) -> None:
    assert callable(make)
    assert make() in PAGE


def test_no_table_of_the_page_has_another_source() -> None:
    made = "\n".join(make() for make in evidence.TABLES)
    rows = [line for line in PAGE.splitlines() if line.startswith("|")]
    assert rows
    assert not [line for line in rows if line not in made]


def test_forget_never_said_what_was_removed_and_is_the_honest_answer() -> None:
    for model in evidence.MODELS:
        for kind in ("corrected", "cut"):
            found = evidence.asked(model, kind)
            assert found["forget"]
            for record, honest in found["forget"]:
                assert not record.says_removed
                assert record.answer == honest.answer


def test_the_sentences_hold_for_the_records() -> None:
    for model in evidence.MODELS:
        probes, said, high = evidence.leaks(model)
        assert f"{model}: {said} of {probes}, at most {high:.1%}" in WORDS
        own = [r for r in evidence.records(model) if r.seam == 0]
        wrong = sum(not r.agree_honest for r in own)
        found = f"{model}: {len(own)} probes of {len({r.trajectory for r in own})} trajectories, up to"
        assert f"{found} {max(r.edits for r in own)} edits deep and {max(r.full for r in own):,} tokens long" in WORDS
        assert wrong == 0
    share = {}
    for model in evidence.MODELS:
        own = [r for r in evidence.records(model) if r.seam == 0]
        share[model] = sum(r.kl_honest for r in own) / sum(r.kl_references for r in own)
    assert 0.9 < share["tiny-mla"] < 1.1  # "as far as the edit itself does"
    assert all(1 / 10.5 < share[model] < 1 / 5.5 for model in ("smollm2", "tiny-gqa"))  # "a sixth to a tenth"
    cut = evidence.asked("smollm2", "cut")
    for way, words in (("seam 0", "at seam 0: {} of {}"), ("seam 32", "at seam 32: {} of {}")):
        other = sum(record.answer != honest.answer for record, honest in cut[way])
        assert words.format(other, len(cut[way])) in WORDS
    assert "No first token of any probe differed from the honest prefill's, at any seam" in WORDS
    assert all(r.agree_honest for model in evidence.MODELS for r in evidence.records(model))


def test_every_run_names_its_machine_date_and_command() -> None:
    assert evidence.runs()
    for run in evidence.runs():
        assert {"machine", "date", "command", "versions"} <= set(run)
        assert run["machine"] in PAGE
        assert run["date"] in PAGE
        assert run["command"] in PAGE
        assert re.fullmatch(r"python benchmarks/fidelity\.py [^/]*(results/fidelity)?[^/]*", run["command"])
