"""Cells and on-policy labels, with an untrained model on real tasks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from leyline.backends.render import Renderer
from training import checkpoint, evaluate, onpolicy
from training.batch import BatchBackend
from training.environments import Environments, WorkerError
from training.packing import ANSWER


@pytest.fixture(scope="module")
def environments() -> Iterator[Environments]:
    pool = Environments(1)
    yield pool
    pool.close()


@pytest.fixture(autouse=True)
def _short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "MAX_TOKENS", 5)


def test_an_attempt_is_a_real_task(environments: Environments) -> None:
    attempt = environments.open(3, "short", "seen")
    assert not attempt.solved()
    assert "failed" in attempt.call("eval", {}).text
    label = attempt.relabel(list(attempt.messages))
    assert label is not None
    assert "<tool_call>" in label
    assert attempt.call("submit", {}).done
    attempt.close()
    with pytest.raises(WorkerError):
        attempt.solved()


def test_a_cell_counts_every_task(small_model: Path, environments: Environments, tmp_path: Path) -> None:
    model, renderer = evaluate.load(str(small_model), "cpu", torch.float32)
    cell = evaluate.run_cell(model, renderer, environments, "short/seen/amortize", 2, 0, float("inf"))
    assert cell is not None
    assert [row["task"] for row in cell["rows"]] == ["micro-short-seen-000000", "micro-short-seen-000001"]
    for row in cell["rows"]:
        assert row["outcome"] == "limit"
        assert row["cached_tokens"] + row["spliced_tokens"] + row["prefilled_tokens"] == row["prompt_tokens"]
    evaluate.write_cells(tmp_path / "x.json", [cell])
    assert json.loads((tmp_path / "x.json").read_text()) == [cell]


def test_time_out_gives_no_cell(small_model: Path, environments: Environments) -> None:
    model, renderer = evaluate.load(str(small_model), "cpu", torch.float32)
    assert evaluate.run_cell(model, renderer, environments, "short/seen/keep_all", 1, 0, 0.0) is None


def test_labels_are_what_the_oracle_would_do(small_model: Path, environments: Environments) -> None:
    backend = BatchBackend(checkpoint.load_model(small_model), Renderer.from_dir(small_model), 2)
    collector = onpolicy.Collector(0)
    specs = [evaluate.Spec(seed, "short", "train") for seed in (1, 2)]
    evaluate.run_episodes(backend, environments, specs, ["keep_all", evaluate.TRUNCATE], watch=collector.watch)
    assert collector.turns == collector.differing + collector.unknown  # an untrained model never agrees
    assert 0 < len(collector.documents) <= 2 * onpolicy.MOST
    tokenizer = Renderer.from_dir(small_model).tokenizer
    for ids, codes in collector.documents:
        learned = tokenizer.decode(
            [i for i, c in zip(ids, codes, strict=True) if c == ANSWER], skip_special_tokens=False
        )
        assert learned.endswith("</tool_call><|im_end|>")
        assert codes[-1] == 0


def test_drawn_rollouts_are_training_tasks() -> None:
    drawn = [onpolicy.draw(seed) for seed in range(300)]
    assert {spec.split for spec, _ in drawn} == {"train"}
    assert {spec.level for spec, _ in drawn} == {"short", "long", "xlong"}
    assert len({policy for _, policy in drawn}) > 2
