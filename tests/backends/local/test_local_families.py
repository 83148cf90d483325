"""Which models are spliced, and that the others are served honestly with a reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the local backend needs torch")

from leyline.backends.contract import BackendError, Sampling, TurnInput  # noqa: E402
from leyline.backends.local.families import KvLayout, Refusal, inspect_model  # noqa: E402
from leyline.directives import Directive, EditScript, Fallback, Outcome, Rendered  # noqa: E402

YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 512}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "factor": 4.0,
    "short_factor": [1.0] * 8,
    "long_factor": [2.0] * 8,
    "original_max_position_embeddings": 512,
}


@pytest.mark.parametrize(
    ("family", "layout"),
    [
        ("llama", KvLayout("gqa", "half", "keys", 16)),
        ("qwen2", KvLayout("gqa", "half", "keys", 16)),
        ("qwen3", KvLayout("gqa", "half", "keys", 16)),
        ("mistral", KvLayout("gqa", "half", "keys", 16)),
        ("deepseek_v2", KvLayout("mla", "interleaved", "values", 16)),
        ("deepseek_v3", KvLayout("mla", "half", "values", 16)),
    ],
)
def test_layouts(make_model: Callable[..., Any], family: str, layout: KvLayout) -> None:
    assert inspect_model(make_model(family)) == layout


REFUSED: dict[str, tuple[str, dict[str, Any], Fallback, str]] = {
    "sliding window": ("mistral", {"sliding_window": 128}, Fallback.UNSUPPORTED_FEATURE, "128 tokens"),
    "dynamic rope": ("llama", {"rope_parameters": DYNAMIC}, Fallback.UNSUPPORTED_ROPE, "dynamic"),
    "longrope": ("llama", {"rope_parameters": LONG}, Fallback.UNSUPPORTED_ROPE, "longrope"),
    "partial rope": (
        "llama",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
        Fallback.UNSUPPORTED_ROPE,
        "partial_rotary_factor 0.5",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_spliced_says_why_and_is_served(
    make_model: Callable[..., Any], make_backend: Callable[..., Any], what: str
) -> None:
    family, config, reason, says = REFUSED[what]
    backend = make_backend(model=make_model(family, **config))
    capabilities = backend.capabilities()
    assert not capabilities.splice
    assert says in str(capabilities.reason)
    held, script = tuple(range(1, 60)), EditScript((Directive(5, 9),))
    prompt = (*script.apply(held), 7, 8)
    request = TurnInput("s", prompt=Rendered(prompt), source=held, script=script, sampling=Sampling(max_tokens=4))
    turn = backend.chat([], None, request)
    assert turn.receipt.fallback is reason
    assert turn.receipt.acknowledged == (Outcome.PREFILLED,)
    assert turn.receipt.prefilled_tokens == len(prompt)
    plain = backend.chat([], None, TurnInput("s", prompt=Rendered(prompt), sampling=Sampling(max_tokens=4)))
    assert (plain.receipt.fallback, plain.output_ids) == (None, turn.output_ids)
    logits, _ = backend.first_logits(request)
    assert logits.shape == (320,)
    backend.prewarm(request)


def test_another_class_is_refused_by_name() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    found = inspect_model(GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=16)))
    assert isinstance(found, Refusal)
    assert found.reason is Fallback.UNSUPPORTED_MODEL
    assert "GPT2LMHeadModel is not spliced; supported classes: DeepseekV2ForCausalLM" in found.detail


def test_a_model_that_turns_its_keys_otherwise_is_refused(
    make_model: Callable[..., Any], make_backend: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check on the model itself: a table that is not what the model uses must not be trusted."""
    from leyline.backends.local.rotary import RotaryTable

    right = RotaryTable.rows

    def twice(self: Any, positions: Any) -> Any:
        return right(self, positions * 2)

    monkeypatch.setattr(RotaryTable, "rows", twice)
    capabilities = make_backend("llama").capabilities()
    assert not capabilities.splice
    assert "off by" in str(capabilities.reason)
    with pytest.raises(BackendError, match="rotate=False needs a model that can be spliced"):
        make_backend("llama", rotate=False)
