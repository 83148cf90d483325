"""The tables and model cards that the repository keeps are what the per-task results give."""

from __future__ import annotations

import pytest

from training import tables

RESULTS = tables.CARDS.parents[1] / "results" / "tiny-agent"


def cell(arm: str, solved: list[bool], tasks: int | None = None) -> dict[str, object]:
    counts = {"turns": 4, "prompt_tokens": 100, "prefilled_tokens": 25, "spliced_tokens": 50}
    rows = [{"task": f"micro-short-seen-{i:06d}", "solved": s, **counts} for i, s in enumerate(solved)]
    run = {"machine": "m", "dtype": "d", "date": "2026-01-01"}
    size = {"first_seed": 0, "tasks": tasks or len(rows)}
    return {"cell": f"short/seen/{arm}", "runs": [run], "rows": rows, **size}


def test_rates_and_pairs_add_up() -> None:
    cells = {
        "short/seen/keep_all": cell("keep_all", [True] * 6 + [False] * 4),
        "short/seen/truncate": cell("truncate", [False] * 5 + [True] * 5),
    }
    rates = tables.rates(cells)
    assert "| short/seen | keep_all | 6/10 | 60.0 % [31.3, 83.2] | - | 4 | 25 | 50 | 75.0 % |" in rates
    assert "| short/seen | keep_all / truncate | all | 6 / 5 | 5 | 4 | 1 |" in tables.pairs(cells)


def test_episodes_that_were_cut_off_count_as_not_solved() -> None:
    whole, cut = cell("amortize", [True] * 10), cell("unrotated", [True] * 2, tasks=10)
    rows = whole["rows"]
    assert isinstance(rows, list)
    rows[9]["turns"] = 9
    cells = {"short/seen/amortize": whole, "short/seen/unrotated": cut}
    assert "| short/seen | unrotated | 2/10 | 20.0 % [5.7, 51.0] | 8 at turn 4 | 4 | 25 | 50 | 75.0 % |" in (
        tables.rates(cells)
    )
    assert "| short/seen | amortize / unrotated | 4 | 9 / 2 | 7 | 0 | 0.016 |" in tables.pairs(cells)


def test_a_card_keeps_its_text() -> None:
    text = f"before\n{tables.START}\nold\n{tables.END}\nafter\n"
    made = tables.card(text, {"short/seen/keep_all": cell("keep_all", [True])})
    assert made.startswith(f"before\n{tables.START}\n\nMeasured on: m, d, 2026-01-01")
    assert made.endswith(f"{tables.END}\nafter\n")
    assert "old" not in made
    assert tables.card(made, {"short/seen/keep_all": cell("keep_all", [True])}) == made


def test_the_page_is_what_the_results_give() -> None:
    assert (RESULTS / "tables.md").read_text(encoding="utf-8") == tables.render(RESULTS)


@pytest.mark.parametrize("name", tables.MODELS)
def test_each_card_is_what_the_results_give(name: str) -> None:
    text = (tables.CARDS / name / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "specialist on generated debugging tasks" in "\n".join(text.splitlines()[:4])
    assert text == tables.card(text, tables.read(RESULTS / f"{name}.json"))


@pytest.mark.parametrize("name", tables.MODELS)
def test_results_are_whole(name: str) -> None:
    for cell_name, kept in tables.read(RESULTS / f"{name}.json").items():
        assert len({row["task"] for row in kept["rows"]}) == len(kept["rows"]) <= kept["tasks"], cell_name
        assert kept["tasks"] >= 200
        assert sum(run["rows"] for run in kept["runs"]) == len(kept["rows"])
        for row in kept["rows"]:
            assert row["cached_tokens"] + row["spliced_tokens"] + row["prefilled_tokens"] == row["prompt_tokens"]
            assert row["solved"] == (row["outcome"] == "solved")
