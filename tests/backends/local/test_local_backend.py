"""The local backend around its splices: decoding, limits, errors, and a cache that survives whatever happens."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the local backend needs torch")

from leyline.backends.contract import BackendError, ContextOverflowError, Sampling, TurnInput  # noqa: E402
from leyline.backends.local import LocalBackend  # noqa: E402
from leyline.directives import Directive, EditScript, Fallback, Outcome, Rendered  # noqa: E402

HISTORY = [{"role": "system", "content": "You fix code."}, {"role": "user", "content": "Fix a.py, please."}]


def tokens(count: int, seed: int = 1) -> tuple[int, ...]:
    return tuple(int(t) for t in np.random.default_rng(seed).integers(0, 256, count))


def ask(backend: Any, prompt: tuple[int, ...] | None = None, **fields: Any) -> Any:
    sampling = fields.pop("sampling", Sampling(max_tokens=8))
    rendered = None if prompt is None else Rendered(prompt)
    return backend.chat(HISTORY, None, TurnInput("s", prompt=rendered, sampling=sampling, **fields))


def test_messages_are_rendered_and_answered(make_backend: Callable[..., Any]) -> None:
    backend = make_backend()
    turn = ask(backend, sampling=Sampling(max_tokens=12))
    assert turn.message["role"] == "assistant"
    assert turn.usage.prompt_tokens == len(backend.renderer.render(HISTORY).ids) == turn.receipt.prompt_tokens
    assert 0 < turn.usage.completion_tokens == len(turn.output_ids) <= 12
    assert set(turn.timings) >= {"prefill", "decode", "splice", "ttft"}
    again = ask(backend, sampling=Sampling(max_tokens=12))
    assert again.output_ids == turn.output_ids
    assert again.usage.cached_tokens > 0


def test_the_pieces_of_text_are_the_text(make_backend: Callable[..., Any]) -> None:
    pieces: list[str] = []
    backend = make_backend()
    turn = ask(backend, sampling=Sampling(max_tokens=40), on_text=pieces.append)
    assert len(pieces) > 1
    assert "".join(pieces) == backend.renderer.decode(turn.output_ids)


def test_a_stop_string_ends_the_answer_before_itself(make_backend: Callable[..., Any]) -> None:
    backend = make_backend()
    whole = backend.renderer.decode(ask(backend, sampling=Sampling(max_tokens=40)).output_ids)
    stop = next(whole[k : k + 2] for k in range(8, len(whole) - 2) if "\ufffd" not in whole[k : k + 2])
    pieces: list[str] = []
    turn = ask(backend, sampling=Sampling(max_tokens=40, stop=(stop,)), on_text=pieces.append)
    assert turn.finish_reason == "stop"
    assert "".join(pieces) == whole[: whole.index(stop)]
    assert len(turn.output_ids) < 40


def test_length_and_context_end_an_answer(make_backend: Callable[..., Any], make_model: Callable[..., Any]) -> None:
    backend = make_backend()
    assert ask(backend, tokens(20), sampling=Sampling(max_tokens=3)).finish_reason == "length"
    small = make_backend(model=make_model("llama", max_position_embeddings=64))
    turn = ask(small, tokens(60), sampling=Sampling(max_tokens=100))
    assert len(turn.output_ids) <= 4
    with pytest.raises(ContextOverflowError, match="64 tokens and the model's context is 64"):
        ask(small, tokens(64))


def test_sampling_is_seeded_and_narrow_nuclei_are_greedy(make_backend: Callable[..., Any]) -> None:
    backend = make_backend()

    def drawn(**fields: Any) -> tuple[int, ...]:
        return ask(backend, tokens(30), sampling=Sampling(max_tokens=15, **fields)).output_ids

    greedy = drawn()
    assert drawn(temperature=1.5, seed=7) == drawn(temperature=1.5, seed=7)
    assert len({drawn(temperature=1.5, seed=seed) for seed in range(4)}) > 1
    assert drawn(temperature=1.5, top_p=1e-6, seed=7) == greedy
    assert drawn(temperature=1e-4, seed=7) == greedy


@pytest.mark.parametrize(
    ("prompt", "says"),
    [((), "the prompt is empty"), ((3, 999), "outside the vocabulary of 320"), ((-1,), "outside the vocabulary")],
)
def test_a_prompt_that_cannot_be_served_is_refused(
    make_backend: Callable[..., Any], prompt: tuple[int, ...], says: str
) -> None:
    with pytest.raises(BackendError, match=says):
        ask(make_backend(), prompt)


def test_settings_out_of_range_are_refused(make_backend: Callable[..., Any]) -> None:
    for settings, says in (
        ({"page_size": 0}, "page_size 0"),
        ({"generation_limit": 255}, "generation_limit 255"),
        ({"threads": 0}, "threads 0"),
    ):
        with pytest.raises(BackendError, match=says):
            make_backend(**settings)


def test_a_model_object_without_renderer_says_what_it_needs(make_model: Callable[..., Any]) -> None:
    backend = LocalBackend(make_model("llama"))
    with pytest.raises(BackendError, match="give LocalBackend a renderer"):
        ask(backend)
    logits, _ = backend.first_logits(TurnInput("s", prompt=Rendered((1, 2, 3))))
    assert logits.shape == (320,)


def test_a_folder_is_loaded_with_its_template(model_dir: Callable[..., Path], make_backend: Callable[..., Any]) -> None:
    path = model_dir("deepseek_v3", "yarn")
    backend = LocalBackend(path, page_size=16)
    assert backend.capabilities().model == path.name
    assert ask(backend).output_ids == ask(make_backend("deepseek_v3", "yarn")).output_ids
    half = LocalBackend(path, dtype="bfloat16")
    assert half.capabilities().splice, half.capabilities().reason
    with pytest.raises(BackendError, match="dtype 'int7' is not known"):
        LocalBackend(path, dtype="int7")


@pytest.mark.parametrize("damage", ["no config", "bad config", "no weights", "no template", "no tokenizer"])
def test_a_broken_folder_is_one_line(model_dir: Callable[..., Path], damage: str) -> None:
    path = model_dir("llama")
    if damage == "no config":
        (path / "config.json").unlink()
    elif damage == "bad config":
        (path / "config.json").write_text("{")
    elif damage == "no weights":
        (path / "model.safetensors").unlink()
    elif damage == "no template":
        (path / "tokenizer_config.json").write_text("{}")
    else:
        (path / "tokenizer.json").unlink()
    with pytest.raises(BackendError) as failure:
        LocalBackend(path)
    assert "\n" not in str(failure.value)
    assert str(path) in str(failure.value)


def moved(backend: Any, held: tuple[int, ...], start: int, **fields: Any) -> tuple[tuple[int, ...], Any]:
    script = EditScript((Directive(start, start + 4),))
    prompt = (*script.apply(held), *tokens(5, seed=start))
    turn = ask(backend, prompt, source=held, script=script, sampling=Sampling(max_tokens=1), **fields)
    return (*prompt, *turn.output_ids), turn.receipt


def test_a_token_is_moved_so_often_and_no_more(make_backend: Callable[..., Any]) -> None:
    for limit in (0, 1, 3):
        backend = make_backend(generation_limit=limit)
        held: tuple[int, ...] = tokens(120)
        ask(backend, held, sampling=Sampling(max_tokens=0))
        receipt = None
        for number in range(limit):
            carried = {"lineage": receipt.lineage, "lineage_start": receipt.approximate_from} if receipt else {}
            held, receipt = moved(backend, held, 10 + number, **carried)
            assert receipt.fallback is None
            assert receipt.spliced_tokens > 90
        carried = {"lineage": receipt.lineage, "lineage_start": receipt.approximate_from} if receipt else {}
        held, receipt = moved(backend, held, 30, **carried)
        assert receipt.fallback is Fallback.GENERATION_LIMIT
        assert receipt.spliced_tokens < 30, "what was moved too often must be prefilled"
        assert "prefilled" in receipt.detail


def test_a_splice_that_fails_is_served_honestly(
    make_backend: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("no memory")

    backend, held = make_backend(), tokens(120)
    backend.first_logits(TurnInput("s", prompt=Rendered(held)))
    script = EditScript((Directive(10, 20),))
    prompt = (*script.apply(held), 1, 2)
    request = TurnInput("s", prompt=Rendered(prompt), source=held, script=script)
    monkeypatch.setattr("leyline.backends.local.kv.SequenceKV.splice", broken)
    logits, receipt = backend.first_logits(request)
    assert (receipt.fallback, receipt.acknowledged) == (Fallback.INTERNAL_ERROR, (Outcome.PREFILLED,))
    assert "no memory" in receipt.detail
    cold, _ = make_backend().first_logits(TurnInput("s", prompt=Rendered(prompt)))
    assert torch.equal(logits, cold)


@pytest.mark.parametrize("at", [1, 2, 4, 7, 9])
def test_an_interrupt_leaves_a_cache_that_can_be_used(
    make_backend: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    from leyline.backends.local.runner import Splicer

    backend, held = make_backend(), tokens(60)
    ask(backend, held)
    script = EditScript((Directive(10, 20),))
    prompt = (*script.apply(held), *tokens(40, seed=9))
    forward, calls = Splicer.forward, 0

    def interrupted(self: Any, kv: Any, ids: Any) -> Any:
        nonlocal calls
        calls += 1
        out = forward(self, kv, ids)
        if calls == at:
            raise KeyboardInterrupt
        return out

    with monkeypatch.context() as patch:
        patch.setattr(Splicer, "forward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ask(backend, prompt, source=held, script=script, sampling=Sampling(max_tokens=20))
    for sequence in backend.cache:
        assert len(sequence.ids) == sequence.kv.length == len(sequence.move_counts)
    fresh = make_backend()
    ask(fresh, held)
    expected = ask(fresh, prompt, source=held, script=script)
    again = ask(backend, prompt, source=held, script=script)
    assert again.output_ids == expected.output_ids
    cold = make_backend().first_logits(TurnInput("s", prompt=Rendered(prompt)))[0]
    assert torch.equal(backend.first_logits(TurnInput("s", prompt=Rendered(prompt)))[0], cold)


def test_a_small_cache_forgets_the_oldest_and_answers_the_same(make_backend: Callable[..., Any]) -> None:
    small, wide = make_backend(max_cached_tokens=150), make_backend()
    prompts = [tokens(70, seed=seed) for seed in (1, 2, 3, 1, 2)]
    for prompt in prompts:
        assert ask(small, prompt).output_ids == ask(wide, prompt).output_ids
        assert small.cache.tokens <= 150
    assert ask(small, tokens(70, seed=3)).usage.cached_tokens == 0
    huge = tokens(200)
    assert ask(small, huge).output_ids == ask(wide, huge).output_ids
    small.close()
    assert small.cache.tokens == 0


def test_what_was_prewarmed_is_hit_and_answers_the_same(make_backend: Callable[..., Any]) -> None:
    held = tokens(100)
    script = EditScript((Directive(10, 30, (5,)),))
    known, prompt = tuple(script.apply(held)), (*script.apply(held), *tokens(9, seed=4))
    plain, warmed = make_backend(), make_backend()
    for backend in (plain, warmed):
        ask(backend, held, sampling=Sampling(max_tokens=0))
    request = TurnInput("s", prompt=Rendered(known), source=held, script=script)
    warmed.prewarm(request)
    expected = ask(plain, prompt, source=held, script=script)
    turn = ask(warmed, prompt, source=held, script=script)
    assert turn.output_ids == expected.output_ids
    assert turn.receipt.prefilled_tokens < expected.receipt.prefilled_tokens
    assert turn.receipt.approximate_from == expected.receipt.approximate_from
    assert turn.receipt.fallback is None
    warmed.prewarm(replace(request, prompt=None))
    warmed.prewarm(TurnInput("s", prompt=Rendered((7,))))


@pytest.mark.parametrize(("start", "end"), [(90, 99), (10, 30)])
def test_an_edit_that_leaves_nothing_to_move_is_cached(make_backend: Callable[..., Any], start: int, end: int) -> None:
    """The prompt's last token is always computed: alone behind the edit, or left of a prompt that is all cached."""
    held = tokens(100)
    script = EditScript((Directive(start, end, (5,)),))
    prompt = tuple(script.apply(held))
    backend = make_backend()
    ask(backend, held, sampling=Sampling(max_tokens=0))
    for _ in range(2):
        receipt = ask(backend, prompt, source=held, script=script).receipt
    assert receipt.prefix_tokens + receipt.prefilled_tokens == len(prompt)
    assert receipt.fallback is None
    assert receipt.acknowledged == (Outcome.CACHED,)


def test_without_generated_tokens_every_answer_is_the_cold_one(make_backend: Callable[..., Any]) -> None:
    backend = make_backend(reuse_generated=False)
    prompt = tokens(40)
    for number in range(4):
        request = TurnInput("s", prompt=Rendered(prompt))
        ours, _ = backend.first_logits(request)
        assert torch.equal(ours, make_backend().first_logits(request)[0])
        prompt = (*prompt, *ask(backend, prompt, sampling=Sampling(max_tokens=13)).output_ids, *tokens(11, seed=number))


def test_a_tool_call_is_read_from_the_text(make_backend: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    backend = make_backend()
    said = 'I look.\n<tool_call>\n{"name": "view", "arguments": {"path": "a.py"}}\n</tool_call>'
    ids = [*backend.renderer.encode(said), 259]

    class Scripted:
        def __init__(self, settings: Any) -> None:
            self._left = list(ids)

        def pick(self, logits: Any) -> int:
            return self._left.pop(0)

    monkeypatch.setattr("leyline.backends.local.backend.Sampler", Scripted)
    turn = ask(backend, sampling=Sampling(max_tokens=200))
    assert turn.finish_reason == "tool_calls"
    call = turn.message["tool_calls"][0]
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("view", {"path": "a.py"})
    assert turn.message["content"] == "I look."
    assert list(turn.output_ids) == ids[:-1]
