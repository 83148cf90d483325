"""Spliced caches against surgery by hand in float64, over families, tables and kinds of edit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the local backend needs torch")

from leyline.backends.base import TurnInput  # noqa: E402
from leyline.directives import Directive, EditScript, Rendered  # noqa: E402

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


def turn_input(prompt: tuple[int, ...], **settings: Any) -> TurnInput:
    return TurnInput("s", prompt=Rendered(prompt), **settings)


def splice(backend: Any, source: tuple[int, ...], script: EditScript, seam: int = 0, **settings: Any) -> tuple:
    """Prefill the source, then the edited prompt. Returns (prompt, cached sequence, logits, receipt)."""
    backend.first_logits(turn_input(source))
    prompt = (*script.apply(source), *TAIL)
    logits, receipt = backend.first_logits(turn_input(prompt, source=source, script=script, seam=seam, **settings))
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
