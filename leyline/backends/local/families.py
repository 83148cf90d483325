"""Which models can be spliced, and how their KV is laid out.

A model is supported when its cached key of a token is a fixed vector turned by an angle that depends on the position
alone, one table for all layers. The rest is refused with a reason and served by honest prefill.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from leyline.directives import Fallback

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


Pairing = Literal["interleaved", "half"]

GQA_CLASSES = frozenset({"LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "MistralForCausalLM"})
MLA_CLASSES = frozenset({"DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM"})
STATIC_ROPES = frozenset({"default", "linear", "yarn", "llama3"})


@dataclass(frozen=True, slots=True)
class KvLayout:
    """How one token's KV is cached.

    attention: `mla` caches the latent `c_KV` as the key tensor and the shared RoPE band as the value tensor, one head
        each; `gqa` caches whole keys and values of every KV head.
    pairing: which dimensions turn together: `(0, 1), (2, 3), ...` or `(i, i + d / 2)`. DeepSeek-V3 stores its band
        half-split whatever `rope_interleave` says, because the de-interleaving happens before the cache.
    rotated: which of the two tensors turns with the position.
    rope_dim: size of the rotary band; the whole last dimension of the rotated tensor.
    """

    attention: Literal["mla", "gqa"]
    pairing: Pairing
    rotated: Literal["keys", "values"]
    rope_dim: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a model is not spliced. `reason` is what receipts say."""

    reason: Fallback
    detail: str


def inspect_model(model: PreTrainedModel) -> KvLayout | Refusal:
    """The KV layout of a transformers causal LM, or why it is refused."""
    name = type(model).__name__
    config = model.config
    if name not in GQA_CLASSES | MLA_CLASSES:
        known = ", ".join(sorted(GQA_CLASSES | MLA_CLASSES))
        return Refusal(Fallback.UNSUPPORTED_MODEL, f"{name} is not spliced; supported classes: {known}")
    if getattr(config, "quantization_config", None) is not None:
        return Refusal(Fallback.UNSUPPORTED_MODEL, f"{name} is quantised; load unquantised weights to splice")
    window = _active_window(config)
    if window is not None:
        return Refusal(
            Fallback.UNSUPPORTED_FEATURE, f"{name} has an active sliding window of {window} tokens; it is not spliced"
        )
    refusal = _rope_refusal(config)
    if refusal is not None:
        return refusal
    rotary = getattr(getattr(model, "model", None), "rotary_emb", None)
    frequencies = getattr(rotary, "inv_freq", None)
    if frequencies is None:
        return Refusal(Fallback.UNSUPPORTED_ROPE, f"{name} has no single rotary table; it is not spliced")
    table_dim = 2 * int(frequencies.shape[-1])
    attention = model.model.layers[0].self_attn
    if name in MLA_CLASSES:
        if not hasattr(attention, "expand_kv"):
            return Refusal(
                Fallback.UNSUPPORTED_MODEL,
                "this version of transformers caches expanded MLA keys; install transformers 5.19 or newer to splice",
            )
        rope_dim, expected = table_dim, int(config.qk_rope_head_dim)
        layout = KvLayout("mla", "interleaved" if name == "DeepseekV2ForCausalLM" else "half", "values", rope_dim)
    else:
        rope_dim, expected = table_dim, int(attention.head_dim)
        layout = KvLayout("gqa", "half", "keys", rope_dim)
    if rope_dim != expected:
        return Refusal(
            Fallback.UNSUPPORTED_ROPE,
            f"{name} rotates {rope_dim} of {expected} dimensions; partial rotary embeddings are not spliced",
        )
    return layout


def _active_window(config: PretrainedConfig) -> int | None:
    """The sliding window if some layer really slides within the model's context, else None."""
    window = getattr(config, "sliding_window", None)
    if not window or window >= config.max_position_embeddings:
        return None
    layers = getattr(config, "layer_types", None)
    if layers is not None:
        return window if "sliding_attention" in layers else None
    return window if getattr(config, "use_sliding_window", True) else None


def _rope_refusal(config: object) -> Refusal | None:
    parameters = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if any(isinstance(value, Mapping) for value in parameters.values()):
        return Refusal(
            Fallback.UNSUPPORTED_ROPE, "the layers have different rotary tables; such models are not spliced"
        )
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if kind not in STATIC_ROPES:
        return Refusal(
            Fallback.UNSUPPORTED_ROPE,
            f"rope type {kind!r} has no single static table; supported: {', '.join(sorted(STATIC_ROPES))}",
        )
    share = parameters.get("partial_rotary_factor", getattr(config, "partial_rotary_factor", 1.0))
    if share is not None and share != 1.0:
        return Refusal(Fallback.UNSUPPORTED_ROPE, f"partial_rotary_factor {share} is not spliced; it must be 1")
    return None
