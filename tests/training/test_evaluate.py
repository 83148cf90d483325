"""Cells and on-policy labels, with an untrained model on real tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from leyline.rendering.render import Renderer
from leyline.suites import micro
from leyline.suites.micro.corpus import render
from leyline.suites.micro.rollout import attempt
from training import checkpoint, evaluate, onpolicy
from training.data import TOKENIZER, Encoder
from training.episodes import Episode
from training.labels import MOST, Labels
from training.packing import ANSWER


@pytest.fixture(autouse=True)
def _short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "MAX_TOKENS", 5)


def run(folder: Path, out: Path, *more: str) -> list[dict[str, Any]]:
    arguments = ["tiny-mla", "--model", str(folder), "--cells", "short/seen/amortize,short/seen/cut_all"]
    arguments += ["--tasks", "2", "--out", str(out), "--device", "cpu", *more]
    args = evaluate.parse(arguments)
    evaluate.evaluate(args)
    return [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]


def test_cells_count_every_task_and_are_not_run_twice(small_model: Path, tmp_path: Path) -> None:
    cells = run(small_model, tmp_path, "--workers", "2")
    assert [cell["cell"] for cell in cells] == ["short/seen/amortize", "short/seen/cut_all"]
    for cell in cells:
        assert [row["task"] for row in cell["rows"]] == ["micro-short-seen-000000", "micro-short-seen-000001"]
        assert [run["rows"] for run in cell["runs"]] == [2]
        for row in cell["rows"]:
            assert row["outcome"] == "limit"
            assert row["cached_tokens"] + row["spliced_tokens"] + row["prefilled_tokens"] == row["prompt_tokens"]
    assert run(small_model, tmp_path) == cells
    del cells[0]["rows"][0]
    (tmp_path / "tiny-mla--short--seen--amortize.json").write_text(json.dumps(cells[0]))
    again = run(small_model, tmp_path, "--workers", "1")
    assert [row["seed"] for row in again[0]["rows"]] == [0, 1]
    assert [run["rows"] for run in again[0]["runs"]] == [2, 1]
    evaluate.merge(tmp_path)
    assert json.loads((tmp_path / "tiny-mla.json").read_text()) == again


def test_out_of_time_keeps_what_ended(small_model: Path, tmp_path: Path) -> None:
    assert run(small_model, tmp_path, "--seconds", "0") == []


def test_labels_are_what_the_oracle_would_do(small_model: Path) -> None:
    model = checkpoint.load_model(small_model)
    episodes = [
        Episode(row, "on-policy", seed, "short", "train", policy, labelled=True)
        for row, (seed, policy) in enumerate([(1, "keep_all"), (2, evaluate.TRUNCATE)])
    ]
    documents, counts = onpolicy.wave(model, episodes, 2, float("inf"))
    assert counts["episodes"] == 2
    assert counts["solved"] == 0
    assert counts["turns"] == counts["differing"] + counts["unlabelled"]  # an untrained model never agrees
    assert 0 < len(documents) <= counts["differing"]
    tokenizer = Renderer.from_dir(small_model).tokenizer
    for ids, codes in documents:
        learned = tokenizer.decode(
            [i for i, c in zip(ids, codes, strict=True) if c == ANSWER], skip_special_tokens=False
        )
        assert learned.endswith("</tool_call><|im_end|>")
        assert codes[-1] == 0


def test_an_episode_off_the_way_ends_early() -> None:
    """A turn of the oracle's own is no document but for a share of them, one that differs is; enough is enough."""
    task = micro.make_task(3, "short", "train")
    labels, run = Labels(task, Encoder()), attempt(task)
    for turn in run.turns:
        labels.add(run.messages[: turn.index], run.messages[turn.index], task.files)
        break
    assert (labels.turns, labels.differing) == (1, 0)
    for _ in range(MOST):
        assert not labels.enough
        labels.add(list(run.messages[:2]), {"role": "assistant", "content": "No idea."}, task.files)
    assert labels.enough
    assert len(labels.documents) - MOST in (0, 1)
    first = labels.documents[-1]
    text = Renderer.from_dir(TOKENIZER.parent).tokenizer.decode(first[0], skip_special_tokens=False)
    assert text == render(run.messages[:3])


def test_drawn_rollouts_are_training_tasks() -> None:
    drawn = [onpolicy.draw(seed) for seed in range(300)]
    assert {episode.split for episode in drawn} == {"train"}
    assert {episode.level for episode in drawn} == {"short", "long", "xlong"}
    assert len({episode.policy for episode in drawn}) > 2
