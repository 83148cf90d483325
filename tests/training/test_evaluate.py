"""Cells and on-policy labels, with an untrained model on real tasks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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
