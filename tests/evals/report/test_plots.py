"""Plots: what is drawn, in which order, and that every axis says what it shows."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from leyline.evals.fidelity.probe import FidelityRecord
from leyline.evals.report import build
from leyline.evals.report import plots as module
from leyline.evals.report.figures import Plot, elide, save
from leyline.evals.trials.record import TrialRecord, TurnRecord

Make = Callable[..., TrialRecord]
Write = Callable[..., Path]
ARMS = ("keep_all", "truncate", "amortize", "unrotated")
COUNTED = (
    "turn seam edits splices full prompt spliced approximate common_full common_honest common_references "
    "tokens_full tokens_honest kl_full kl_honest kl_references margin_full margin_honest"
)
AGREES = {"agree_full": True, "agree_honest": True, "references_agree": False}
PROBE = {"model": "tiny-mla", "trajectory": "t", "policy": "keep_all", **dict.fromkeys(COUNTED.split(), 8), **AGREES}
TURNS = (TurnRecord(prompt=10, prefix=4, spliced=0, prefilled=6, edits=1, ttft=0.1),) * 5


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """The figures that were saved, by name."""
    figures: dict[str, Figure] = {}

    def keep(figure: Figure, folder: Path, name: str, title: str, caption: str) -> Plot:
        figures[name] = figure
        return save(figure, folder, name, title, caption)

    monkeypatch.setattr(module, "save", keep)
    return figures


def draw(tmp_path: Path, run: Path) -> None:
    module.draw(build([run]), tmp_path / "plots")


def at(trial: Make, arm: str, task: int, started: float) -> TrialRecord:
    return trial(arm, task, 0, random.Random(task), turns=TURNS, started=started, wall_s=1.0)


def test_one_load_is_not_plotted(tmp_path: Path, trial: Make, write_run: Write, drawn: dict[str, Figure]) -> None:
    """Each arm ran under one load; that the loads of two arms differ is no curve."""
    alone = [at(trial, "keep_all", k, 1e9 + 10 * k) for k in range(8)]
    paired = [at(trial, "truncate", k, 2e9 + 10 * (k // 2)) for k in range(8)]
    draw(tmp_path, write_run(tmp_path / "run", alone + paired))
    assert "ttft_by_load" not in drawn
    assert "uncached" in drawn


def test_a_load_of_few_turns_is_not_plotted(
    tmp_path: Path, trial: Make, write_run: Write, drawn: dict[str, Figure]
) -> None:
    """The last trial of a run is often alone."""
    records = [at(trial, "keep_all", k, 1e9 + 10 * (k // 2)) for k in range(9)]
    draw(tmp_path, write_run(tmp_path / "run", records))
    assert "ttft_by_load" not in drawn


def test_two_loads_are_plotted(tmp_path: Path, trial: Make, write_run: Write, drawn: dict[str, Figure]) -> None:
    records = [at(trial, "keep_all", k, 1e9 + 10 * (k // 2 if k < 8 else k)) for k in range(16)]
    draw(tmp_path, write_run(tmp_path / "run", records))
    [axes] = drawn["ttft_by_load"].axes
    assert [float(x) for x in axes.lines[0].get_path().vertices[:, 0]] == [1, 2]


@pytest.mark.parametrize("models", [("one",), ("one", "two"), ("a", "b", "c", "d", "e")])
def test_every_legend_has_the_order_of_the_arms(
    tmp_path: Path, trial: Make, write_run: Write, drawn: dict[str, Figure], models: tuple[str, ...]
) -> None:
    """Read line by line, whatever panel an arm is in."""
    rng = random.Random(4)
    names = [f"{arm} ({model})" for arm in ARMS for model in models] if len(models) > 1 else list(ARMS)
    records = []
    for task in range(3):
        for name in names:
            model = name.partition("(")[2].rstrip(")") or "one"
            records.append(trial(name.partition(" ")[0], task, 0, rng, arm=name, model=model))
    draw(tmp_path, write_run(tmp_path / "run", records))
    for name in ("hit_rate_by_turn", "prompt_by_turn", "uncached", "trade_off"):
        [legend] = drawn[name].legends
        told = [text.get_text() for text in legend.get_texts()]
        half = (len(told) + 1) // 2
        if vars(legend)["_ncols"] == 2:
            told = [told[k // 2 + half * (k % 2)] for k in range(len(told))]
        short = len(drawn[name].axes) > 1
        wanted = list(dict.fromkeys(elide(label.partition(" (")[0] if short else label) for label in names))
        assert told == wanted, name


def test_every_axis_has_a_title(tmp_path: Path, trial: Make, write_run: Write, drawn: dict[str, Figure]) -> None:
    records = [at(trial, arm, k, 1e9 + 10 * (k // 2 if k < 8 else k)) for k in range(16) for arm in ARMS[:1]]
    records += [trial(arm, k, 0, random.Random(k), model="other", arm=f"{arm}-2") for k in range(4) for arm in ARMS]
    run = write_run(tmp_path / "run", records)
    probe = FidelityRecord.model_validate(PROBE)
    (run / "fidelity.jsonl").write_text(probe.model_dump_json() + "\n")
    draw(tmp_path, run)
    assert len(drawn) == 8
    for name, figure in drawn.items():
        for axes in figure.axes:
            under = axes.get_subplotspec()
            assert under is not None
            first, last = under.is_first_col(), under.is_last_row()
            assert axes.get_xlabel() or not last, name
            assert axes.get_ylabel() or not first, name
