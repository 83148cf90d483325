"""The batched evaluator against the local backend: the same conversations, token for token, with the same receipts."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

import pytest

from leyline.backends.contract import Sampling
from leyline.backends.local.backend import LocalBackend
from leyline.directives import Message
from leyline.harness.session.session import Session, SessionTurn
from leyline.rendering.render import Renderer
from training import checkpoint
from training.batch import BatchBackend
from training.engine import Fault

POLICY = "truncate_older_than(n=1, max_chars=60)"
WORDS = ("def", "return", "value", "list", "index", "total", "count", "line", "test", "assert", "error", "file", "None")
TURNS = 5
SAMPLING = Sampling(max_tokens=10)


def observations(seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(30, 90))) for _ in range(TURNS)]


def converse(session: Session, seed: int) -> list[SessionTurn]:
    """A conversation whose answers are the model's and whose observations are given."""
    messages: list[Message] = [{"role": "system", "content": "Fix it."}, {"role": "user", "content": f"Task {seed}."}]
    turns = []
    for text in observations(seed):
        turns.append(session.turn(messages))
        messages += [turns[-1].message, {"role": "tool", "tool_call_id": "c", "content": text}]
    return turns


def batched(
    folder: Path, seeds: list[int], mode: str, policy: str = POLICY, splice: bool = True, fault: Fault = "none"
) -> list[list[SessionTurn]]:
    backend = BatchBackend(
        checkpoint.load_model(folder), Renderer.from_dir(folder), len(seeds), splice=splice, fault=fault
    )
    out: dict[int, Any] = {}

    def run(seed: int) -> None:
        try:
            out[seed] = converse(session_of(backend, policy, mode, str(seed)), seed)
        except BaseException as error:
            out[seed] = error
        finally:
            backend.leave(str(seed))

    threads = [threading.Thread(target=run, args=(seed,), daemon=True) for seed in seeds]
    for _ in seeds:
        backend.join()
    for thread in threads:
        thread.start()
    assert backend.serve(float("inf"))
    for thread in threads:
        thread.join()
    for value in out.values():
        if isinstance(value, BaseException):
            raise value
    return [out[seed] for seed in seeds]


def session_of(backend: Any, policy: str, mode: str, name: str) -> Session:
    return Session(backend, policy, mode=mode, sampling=SAMPLING, session_id=name)


@pytest.mark.parametrize("mode", ["amortize", "forget"])
def test_same_tokens_and_receipts_as_the_local_backend(small_model: Path, mode: str) -> None:
    seeds = [1, 2, 3]
    for seed, mine in zip(seeds, batched(small_model, seeds, mode), strict=True):
        theirs = converse(session_of(LocalBackend(small_model, dtype="float32"), POLICY, mode, str(seed)), seed)
        for got, expected in zip(mine, theirs, strict=True):
            assert got.input_ids == expected.input_ids
            assert got.message == expected.message
            a, b = got.receipt, expected.receipt
            assert (a.prefix_tokens, a.spliced_tokens, a.prefilled_tokens) == (
                b.prefix_tokens,
                b.spliced_tokens,
                b.prefilled_tokens,
            )
            assert (a.approximate_from, a.lineage, a.fallback) == (b.approximate_from, b.lineage, b.fallback)
        assert any(turn.edits for turn in mine)
    if mode == "amortize":
        assert any(turn.receipt.spliced_tokens for turn in mine)


def test_a_server_without_splices_answers_as_forget_does(small_model: Path) -> None:
    plain, forget = batched(small_model, [4, 5], "amortize", splice=False), batched(small_model, [4, 5], "forget")
    for one, other in zip(plain, forget, strict=True):
        assert [t.message for t in one] == [t.message for t in other]
        assert all(t.receipt.spliced_tokens == 0 and t.receipt.directives == 0 for t in one)


@pytest.mark.parametrize("fault", ["unrotated", "shifted"])
def test_faults_change_what_the_model_sees(small_model: Path, fault: Fault) -> None:
    right, wrong = batched(small_model, [6, 7], "amortize"), batched(small_model, [6, 7], "amortize", fault=fault)
    assert [t.message for turns in right for t in turns] != [t.message for turns in wrong for t in turns]


def test_a_prompt_past_the_context_ends_the_session_alone(small_model: Path) -> None:
    from leyline.backends.contract import ContextOverflowError

    backend = BatchBackend(checkpoint.load_model(small_model), Renderer.from_dir(small_model), 1)
    session = session_of(backend, "keep_all", "amortize", "0")
    with pytest.raises(ContextOverflowError, match="context is 2048"):
        session.turn([{"role": "user", "content": "word " * 4000}])
