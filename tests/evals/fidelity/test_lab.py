"""What the lab measures, against plain forward passes of the same model and against the definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from leyline.evals.fidelity.lab import STOP, Answer, compare, kl, margin, measure, walk  # noqa: E402
from leyline.evals.fidelity.probe import FidelityError  # noqa: E402
from leyline.evals.replay.traces import Recording  # noqa: E402
from leyline.evals.trials.turns import answer_places  # noqa: E402
from leyline.policies import load_policy  # noqa: E402

POLICY = "truncate_older_than(n=1, max_chars=8)"


def cold(backend: Any, messages: Any) -> Any:
    """Logits behind the prompt from one plain forward pass, without any cache."""
    ids = backend.renderer.render(messages).ids
    with torch.inference_mode():
        return backend._model(torch.tensor([ids])).logits[0, -1].float()


def test_the_references_are_what_a_plain_forward_pass_gives(backend: Any, trajectory: Recording) -> None:
    places = answer_places(trajectory.messages)
    probes = range(len(places))
    full = walk(backend, trajectory, "keep_all", honest=True, probes=probes, tokens=2)
    honest = walk(backend, trajectory, POLICY, honest=True, probes=probes, tokens=2)
    policy = load_policy(POLICY)
    for turn, place in enumerate(places):
        history = trajectory.messages[:place]
        for seen, messages in ((full, history), (honest, policy.transform(history, turn))):
            torch.testing.assert_close(seen.answers[turn].logits, cold(backend, messages), atol=2e-3, rtol=1e-3)
    assert honest.edits[-1] == 3
    assert full.edits == [0] * 5


def test_a_seam_longer_than_every_run_is_the_honest_prefill(backend: Any, trajectory: Recording) -> None:
    records = list(measure(backend, trajectory, POLICY, seams=(0, 1000), tokens=4))
    assert {r.turn for r in records} == {2, 3, 4}
    for record in records:
        assert record.policy == POLICY
        assert record.edits == record.turn - 1
        if record.seam == 1000:
            assert record.approximate == record.spliced == 0
            assert record.agree_honest
            assert record.kl_honest < 1e-6
            assert record.common_honest == record.tokens_honest
            assert record.kl_full == pytest.approx(record.kl_references, abs=1e-4)
        else:
            assert record.approximate > 0
            assert record.kl_honest > 1e-5  # really the approximate KV, on a model that reads its context
        assert record.full != record.prompt
    first = [r for r in records if r.seam == 0]
    assert first[0].splices == 1
    assert first[0].spliced > 0


def test_the_same_measurement_again_gives_the_same_records(backend: Any, trajectory: Recording) -> None:
    once = list(measure(backend, trajectory, POLICY, seams=(0, 8), tokens=3))
    again = list(measure(backend, trajectory, POLICY, seams=(0, 8), tokens=3))
    assert once == again
    assert [r.turn for r in measure(backend, trajectory, POLICY, seams=(0,), tokens=1, every=2)] == [2, 4]


def test_a_policy_that_edits_nothing_has_no_probe(backend: Any, trajectory: Recording) -> None:
    assert list(measure(backend, trajectory, "keep_all", seams=(0,), tokens=1)) == []
    with pytest.raises(FidelityError, match="at least one seam"):
        list(measure(backend, trajectory, POLICY, seams=()))


def test_a_history_past_the_context_ends_the_walk(backend: Any, trajectory: Recording) -> None:
    long = Recording("long", [*trajectory.messages[:8], {"role": "user", "content": "x" * 3000}, *TAIL])
    assert len(walk(backend, long, "keep_all", honest=True, probes=range(9)).receipts) == 3
    records = list(measure(backend, long, POLICY, seams=(0,), tokens=1))
    assert {r.turn for r in records} == {2}


@pytest.mark.parametrize("step", ["listen", "keep"])
def test_an_answer_that_outgrows_the_context_ends_the_walk_too(
    backend: Any, trajectory: Recording, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = 2 if step == "listen" else 1
    settings = {"tokens": tokens, "honest": True, "probes": range(5)}
    full = walk(backend, trajectory, "keep_all", **settings).receipts[3].prompt_tokens
    whole = {r.turn for r in measure(backend, trajectory, POLICY, seams=(0,), tokens=tokens)}
    # The prompt of turn 3 fits, and one token behind it: not two of the model's, nor the recorded answer.
    monkeypatch.setattr(type(backend), "max_context", property(lambda self: full + 1))
    found = walk(backend, trajectory, "keep_all", **settings)
    assert len(found.receipts) == 4
    assert (3 in found.answers) == (step == "keep")
    assert "context" in (found.ended or "")
    records = {r.turn for r in measure(backend, trajectory, POLICY, seams=(0,), tokens=tokens)}
    assert {2} <= records <= whole & set(found.answers)


def test_records_come_as_soon_as_they_are_known(backend: Any, trajectory: Recording) -> None:
    found = measure(backend, trajectory, POLICY, seams=(0, 8), tokens=1)
    turns: list[int] = []
    first = next(measure(backend, trajectory, POLICY, seams=(0, 8), tokens=1, on_turn=lambda: turns.append(1)))
    assert (first.turn, first.seam) == (2, 0)
    assert len(turns) < 4 * 5  # not after all walks
    assert [(r.turn, r.seam) for r in found] == [(t, s) for s in (0, 8) for t in (2, 3, 4)]


TAIL = [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}]


def test_divergence_and_margin_are_their_definitions() -> None:
    generator = np.random.default_rng(0)
    p, q = generator.normal(0, 3, 50), generator.normal(0, 3, 50)
    share_p, share_q = (np.exp(x) / np.exp(x).sum() for x in (p, q))
    expected = float((share_p * np.log(share_p / share_q)).sum())
    assert kl(torch.tensor(p), torch.tensor(q)) == pytest.approx(expected, rel=1e-9)
    assert kl(torch.tensor(p), torch.tensor(p)) == 0.0
    top = np.sort(np.log(share_p))[-2:]
    assert margin(torch.tensor(p)) == pytest.approx(float(top[1] - top[0]), rel=1e-9)


def test_agreement_counts_first_tokens_and_common_prefixes() -> None:
    def answer(first: int, *ids: int) -> Answer:
        logits = torch.zeros(8)
        logits[first] = 5.0
        return Answer(logits, (first, *ids))

    found = compare(answer(1, 2, 3, 4), answer(1, 2, 6, STOP), answer(1, 2, 6, 7))
    assert (found["agree_full"], found["agree_honest"], found["references_agree"]) == (True, True, True)
    assert (found["common_full"], found["common_honest"], found["common_references"]) == (2, 3, 2)
    assert (found["tokens_full"], found["tokens_honest"]) == (4, 4)
    other = compare(answer(1), answer(2), answer(2))
    assert (other["agree_full"], other["agree_honest"], other["references_agree"]) == (False, True, False)
    assert other["kl_honest"] == 0.0
    assert other["kl_full"] == pytest.approx(other["kl_references"])
    assert math.isfinite(other["margin_full"])
