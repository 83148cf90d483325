"""Spliced caches against surgery by hand in float64, over families, tables and kinds of edit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the local backend needs torch")

from leyline.backends.contract import Sampling, TurnInput  # noqa: E402
from leyline.directives import Directive, EditScript, Mode, Rendered  # noqa: E402

TOLERANCE = 1e-5
SOURCE_LENGTH = 150
SCRIPTS: dict[str, tuple[tuple[Directive, ...], int]] = {
    "delete": ((Directive(40, 71),), 0),
    "replace": ((Directive(40, 71, (7, 8, 9, 10, 11)),), 0),
    "longer": ((Directive(40, 43, tuple(range(100, 130))),), 0),
    "insert": ((Directive(64, 64, (201, 202, 203)),), 0),
    "several": (
        (Directive(20, 33), Directive(50, 60, (5, 6)), Directive(90, 90, (1, 2, 3, 4)), Directive(110, 111)),
        0,
    ),
    "position 0": ((Directive(0, 17, (31,)),), 0),
    "delete at 0": ((Directive(0, 5),), 0),
    "seam": ((Directive(40, 71, (7,)), Directive(100, 110)), 6),
}
TAIL = (11, 12, 13, 14, 15, 16, 17)


def tokens(count: int, seed: int = 1) -> tuple[int, ...]:
    return tuple(int(t) for t in np.random.default_rng(seed).integers(0, 256, count))


def turn_input(prompt: tuple[int, ...], **fields: Any) -> TurnInput:
    return TurnInput("s", prompt=Rendered(prompt), **fields)


def splice(backend: Any, source: tuple[int, ...], script: EditScript, seam: int = 0) -> tuple:
    """Prefill the source, then the edited prompt. Returns (prompt, cached sequence, logits, receipt)."""
    backend.first_logits(turn_input(source))
    prompt = (*script.apply(source), *TAIL)
    logits, receipt = backend.first_logits(turn_input(prompt, source=source, script=script, seam=seam))
    return prompt, next(s for s in backend.cache if tuple(s.ids) == prompt), logits, receipt


def distance(surgery: Any, cache: Any, sequence: Any) -> float:
    """Largest difference of any cached number, relative to the largest number of its layer."""
    worst = 0.0
    for index, (keys, values) in enumerate(surgery.tensors(cache)):
        n = keys.shape[1]
        assert n == len(sequence.ids)
        for ours, theirs in ((sequence.kv.keys, keys), (sequence.kv.values, values)):
            error = np.abs(ours[index, :, :n].double().numpy() - theirs).max()
            worst = max(worst, float(error / np.abs(theirs).max()))
    return worst


FAMILY_ROPES = [
    *[(f, r) for f in ("llama", "deepseek_v2", "deepseek_v3") for r in ("plain", "linear", "yarn")],
    *[(f, r) for f in ("mha", "qwen2", "qwen3", "mistral", "deepseek_v3_half") for r in ("plain", "yarn")],
    ("llama", "llama3"),
    ("deepseek_v2_q_lora", "yarn"),
]


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize(("family", "rope"), FAMILY_ROPES)
def test_spliced_cache_equals_surgery_by_hand(
    make_model: Callable[..., Any], make_backend: Callable[..., Any], reference: Any, family: str, rope: str, name: str
) -> None:
    directives, seam = SCRIPTS[name]
    script, source = EditScript(directives), tokens(SOURCE_LENGTH)
    prompt, sequence, logits, receipt = splice(make_backend(family, rope), source, script, seam)
    assert receipt.fallback is None
    assert receipt.spliced_tokens == sum(s.length for s in script.segments(len(source), seam=seam) if s.kind == "reuse")
    surgery = reference.Surgery(make_model(family, rope))
    cache, expected = surgery.splice(source, script, prompt, seam)
    assert distance(surgery, cache, sequence) < TOLERANCE
    assert (logits - expected).abs().max() < TOLERANCE * expected.abs().max()
    _, clean = surgery.prefill(prompt)
    assert (logits - clean).abs().max() > 1000 * TOLERANCE * clean.abs().max(), (
        "the splice must differ from a clean prefill"
    )


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize(("family", "rope"), [("llama", "yarn"), ("deepseek_v2", "plain"), ("deepseek_v3", "yarn")])
def test_without_rotation_the_surgery_is_missed_by_a_wide_margin(
    make_model: Callable[..., Any],
    make_backend: Callable[..., Any],
    reference: Any,
    family: str,
    rope: str,
    name: str,
) -> None:
    backend = make_backend(family, rope, rotate=False)
    directives, seam = SCRIPTS[name]
    script, source = EditScript(directives), tokens(SOURCE_LENGTH)
    prompt, sequence, logits, _ = splice(backend, source, script, seam)
    surgery = reference.Surgery(make_model(family, rope))
    cache, expected = surgery.splice(source, script, prompt, seam)
    assert distance(surgery, cache, sequence) > 1000 * TOLERANCE
    assert (logits - expected).abs().max() > 100 * TOLERANCE * expected.abs().max()


def test_what_does_not_move_is_kept_bit_for_bit(make_backend: Callable[..., Any]) -> None:
    backend = make_backend("deepseek_v2", "yarn")
    source, script = tokens(SOURCE_LENGTH), EditScript((Directive(40, 45, (1, 2, 3, 4, 5)),))
    backend.first_logits(turn_input(source))
    donor = next(iter(backend.cache))
    band = donor.kv.values[:, :, 45:150].clone()
    prompt = (*script.apply(source), *TAIL)
    backend.first_logits(turn_input(prompt, source=source, script=script))
    ours = next(s for s in backend.cache if tuple(s.ids) == prompt)
    assert torch.equal(ours.kv.values[:, :, 45:150], band), "a run that moves by nothing keeps its bits"


BITS = [("llama", "plain"), ("qwen3", "yarn"), ("deepseek_v2", "yarn"), ("deepseek_v3", "plain")]


@pytest.mark.parametrize(("family", "rope"), BITS)
@pytest.mark.parametrize("name", [n for n in SCRIPTS if n != "seam"])
def test_forget_is_a_clean_prefill_bit_for_bit(
    make_backend: Callable[..., Any], family: str, rope: str, name: str
) -> None:
    source = tokens(SOURCE_LENGTH)
    script = EditScript(tuple(replace(d, mode=Mode.FORGET) for d in SCRIPTS[name][0]))
    prompt, _, logits, receipt = splice(make_backend(family, rope), source, script)
    assert (receipt.spliced_tokens, receipt.approximate_from, receipt.fallback) == (0, None, None)
    cold, _ = make_backend(family, rope).first_logits(turn_input(prompt))
    assert torch.equal(logits, cold)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_session_of_forgets_answers_as_clean_prefills_bit_for_bit(
    make_backend: Callable[..., Any], data: Any
) -> None:
    """Decoded answers before the span included: several turns, each with a FORGET somewhere."""
    family, rope = data.draw(st.sampled_from(BITS))
    backend = make_backend(family, rope)
    held: tuple[int, ...] = ()
    prompt, script = tokens(data.draw(st.integers(20, 90)), seed=3), EditScript(())
    for number in range(4):
        cold, _ = make_backend(family, rope).first_logits(turn_input(prompt))
        ours, receipt = backend.first_logits(turn_input(prompt, source=held or None, script=script))
        assert receipt.approximate_from is None
        if script:
            assert torch.equal(ours, cold)
        turn = backend.chat([], None, turn_input(prompt, sampling=Sampling(max_tokens=data.draw(st.integers(1, 20)))))
        held = (*prompt, *turn.output_ids)
        start = data.draw(st.integers(0, len(held) - 1))
        end = data.draw(st.integers(start, len(held)))
        new = tokens(data.draw(st.integers(0, 30)), seed=number)
        script = EditScript((Directive(start, end, new, Mode.FORGET),))
        prompt = (*script.apply(held), *tokens(data.draw(st.integers(1, 40)), seed=10 + number))


TOLD = st.sampled_from([Mode.AMORTIZE, Mode.FORGET])  # AUTO is the backend's own choice


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_scripts_equal_surgery_by_hand(
    make_model: Callable[..., Any], make_backend: Callable[..., Any], reference: Any, data: Any
) -> None:
    family, rope = data.draw(st.sampled_from([("llama", "yarn"), ("deepseek_v2", "yarn"), ("deepseek_v3", "linear")]))
    source = tokens(data.draw(st.integers(5, 120)), seed=data.draw(st.integers(0, 9)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(source)), max_size=8, unique=True)))
    directives = [
        Directive(a, b, tokens(data.draw(st.integers(0, 6)), seed=b), data.draw(TOLD))
        for a, b in zip(cuts[::2], cuts[1::2], strict=False)
    ]
    script, seam = EditScript(tuple(directives)), data.draw(st.integers(0, 9))
    prompt, sequence, logits, receipt = splice(make_backend(family, rope), source, script, seam)
    surgery = reference.Surgery(make_model(family, rope))
    cache, expected = surgery.splice(source, script, prompt, seam)
    assert receipt.prefix_tokens + receipt.spliced_tokens + receipt.prefilled_tokens == len(prompt)
    assert distance(surgery, cache, sequence) < TOLERANCE
    assert (logits - expected).abs().max() < TOLERANCE * expected.abs().max()


def test_undirected_requests_are_untouched_by_splices(make_backend: Callable[..., Any]) -> None:
    for family, rope in BITS:
        backend = make_backend(family, rope)
        source, script = tokens(SOURCE_LENGTH), EditScript(SCRIPTS["several"][0])
        prompt, *_ = splice(backend, source, script)
        for asked in (prompt, (*prompt, 5, 6, 7), (*source, 9)):
            cold, _ = make_backend(family, rope).first_logits(turn_input(asked))
            ours, receipt = backend.first_logits(turn_input(asked))
            assert receipt.lineage is None
            assert torch.equal(ours, cold)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_session_of_edits_equals_surgery_on_surgery(
    make_model: Callable[..., Any], make_backend: Callable[..., Any], reference: Any, data: Any
) -> None:
    """Turn after turn, each on the spliced cache of the one before, under the lineage of its receipt."""
    family, rope = data.draw(st.sampled_from([("qwen3", "yarn"), ("deepseek_v2", "yarn"), ("deepseek_v3", "plain")]))
    backend, surgery = make_backend(family, rope), reference.Surgery(make_model(family, rope))
    prompt = tokens(data.draw(st.integers(60, 120)), seed=5)
    backend.first_logits(turn_input(prompt))
    cache, _ = surgery.prefill(prompt)
    lineage: dict[str, Any] = {}
    for number in range(4):
        source = prompt
        start = data.draw(st.integers(0, len(source) - 2))
        end = data.draw(st.integers(start + 1, min(len(source), start + 30)))
        mode = data.draw(st.sampled_from([Mode.AMORTIZE, Mode.AMORTIZE, Mode.FORGET]))
        new = tokens(data.draw(st.integers(0, 5)), seed=20 + number)
        script = EditScript((Directive(start, end, new, mode),))
        prompt = (*script.apply(source), *tokens(data.draw(st.integers(1, 20)), seed=30 + number))
        # An edit that puts back the token it takes away lengthens the cached prefix; the surgery computes that token.
        assume(prompt[start] != source[start])
        logits, receipt = backend.first_logits(turn_input(prompt, source=source, script=script, **lineage))
        assert receipt.fallback is None
        cache, expected = surgery.splice(source, script, prompt, donor=cache)
        assert (logits - expected).abs().max() < 3 * TOLERANCE * expected.abs().max()  # of four rotations, not one
        held = next(s for s in backend.cache if tuple(s.ids) == prompt)
        assert distance(surgery, cache, held) < 3 * TOLERANCE
        lineage = {"lineage": receipt.lineage, "lineage_start": receipt.approximate_from}
