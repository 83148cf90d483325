"""What this plugin does not splice, and why. Everything refused here is served by honest prefill, with the reason."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from leyline.backends.sglang.features import FEATURES, HOLE_FEATURES
from leyline.backends.sglang.plugin.rope import Rope
from leyline.backends.sglang.plugin.runs import Refusal
from leyline.directives import Fallback

if TYPE_CHECKING:
    from sglang.srt.model_executor.model_runner import ModelRunner


MODELS = frozenset(
    {
        "DeepseekV2ForCausalLM",
        "DeepseekV3ForCausalLM",
        "Glm4ForCausalLM",
        "Glm4MoeForCausalLM",
        "Glm4MoeLiteForCausalLM",
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "MixtralForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen2MoeForCausalLM",
        "Qwen3ForCausalLM",
        "Qwen3MoeForCausalLM",
    }
)
"""Architectures whose cached key is `RoPE(key)`, with one table for all layers and nothing applied after the rotation.

Others differ in ways that a table cannot show: a norm behind the rotation (Hunyuan), layers without a position
encoding (Llama 4, SmolLM3), a window (Gemma). LEYLINE_ALLOW_MODEL names further ones, at the user's own risk.
"""
ALLOW_VARIABLE = "LEYLINE_ALLOW_MODEL"

ROPES = frozenset(
    {
        "DeepseekScalingRotaryEmbedding",
        "LinearScalingRotaryEmbedding",
        "Llama3RotaryEmbedding",
        "RotaryEmbedding",
        "YaRNScalingRotaryEmbedding",
    }
)
BACKENDS = frozenset({"fa3", "torch_native"})
"""Attention backends whose prefill writes the K and V of a whole batch before it reads; each was held to the oracle.

flashinfer's ragged path reads the prefix first; others, triton among them, were not run on holes.
"""
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_POOLS = frozenset({"MHATokenToKVPool", "MLATokenToKVPool"})


def server_refusal(args: object, context: object, pool: object, model: object) -> Refusal | None:
    """Why this server cannot splice, or None. args: ServerArgs; context: the cache's build context."""
    checks = (_features(args, context), _kv_pool(pool), _model(context, model), _ropes(model))
    return next((refusal for refusal in checks if refusal is not None), None)


def _features(args: object, context: object) -> Refusal | None:
    used = [text for name, text in FEATURES.items() if getattr(args, name, None)]
    if getattr(args, "disaggregation_mode", "null") not in (None, "null"):
        used.append("prefill and decode disaggregation")
    if (getattr(args, "pp_size", 1) or 1) > 1:
        used.append("pipeline parallelism")
    if (getattr(args, "dcp_size", 1) or 1) > 1 or (getattr(args, "attn_cp_size", 1) or 1) > 1:
        used.append("context parallelism")
    if getattr(context, "is_hybrid_swa", False):
        used.append("sliding-window attention")
    if getattr(context, "is_hybrid_ssm", False):
        used.append("a state-space model")
    if getattr(context, "is_dsa", False):
        used.append("DeepSeek sparse attention")
    return Refusal(Fallback.UNSUPPORTED_FEATURE, f"the server runs with {used[0]}") if used else None


def hole_refusal(args: Any, runner: ModelRunner) -> Refusal | None:
    """Why this server cannot compute holes as further sequences of a forward, or None. Deletions need none."""
    used = [text for name, text in HOLE_FEATURES.items() if getattr(args, name, None)]
    if (getattr(args, "attn_dp_size", 1) or 1) > 1:
        used.append("data-parallel attention")
    if getattr(args, "moe_a2a_backend", "none") not in (None, "none"):
        used.append(f"the expert-parallel backend {args.moe_a2a_backend}")
    if used:
        detail = f"a replacement or a seam cannot be computed beside the tail with {used[0]}"
        return Refusal(Fallback.UNSUPPORTED_FEATURE, detail)
    backend = str(runner.prefill_attention_backend_str)
    if backend in BACKENDS:
        return None
    detail = f"a replacement or a seam needs the attention backend {', '.join(sorted(BACKENDS))}, not {backend}"
    return Refusal(Fallback.UNSUPPORTED_FEATURE, detail)


def _kv_pool(pool: Any) -> Refusal | None:
    name = type(pool).__name__
    if name not in _POOLS:
        return Refusal(Fallback.UNSUPPORTED_MODEL, f"the KV pool is a {name}")
    if pool.store_dtype != pool.dtype or pool.dtype not in _DTYPES:
        return Refusal(Fallback.UNSUPPORTED_KV_DTYPE, f"the KV cache is in {pool.dtype}")
    buffer = pool.kv_buffer[0] if hasattr(pool, "kv_lora_rank") else pool.k_buffer[0]
    if buffer.dim() != 3 or buffer.shape[0] < pool.size:
        return Refusal(Fallback.UNSUPPORTED_FEATURE, f"the KV pool's layout has shape {tuple(buffer.shape)}")
    return None


def _model(context: object, model: object) -> Refusal | None:
    name = type(model).__name__
    allowed = MODELS | set(filter(None, os.environ.get(ALLOW_VARIABLE, "").split(",")))
    if name not in allowed:
        return Refusal(Fallback.UNSUPPORTED_MODEL, f"{name} is not among the models that were checked")
    config = getattr(getattr(context, "model_config", None), "hf_config", None)
    if getattr(config, "use_sliding_window", False) or any(_windows(model)):
        return Refusal(Fallback.UNSUPPORTED_FEATURE, "the model has sliding-window layers")
    return None


def _windows(model: Any) -> Iterator[bool]:
    for module in model.modules():
        window = getattr(module, "sliding_window_size", None)
        if type(module).__name__ == "RadixAttention" and isinstance(window, int):
            yield window > 0


def _tables(model: Any) -> list[Any]:
    """The model's distinct rotary modules. `get_rope` hands out one object for equal settings."""
    found = {}
    for module in model.modules():
        if hasattr(module, "cos_sin_cache") and hasattr(module, "is_neox_style"):
            found[id(module)] = module
    return list(found.values())


def _ropes(model: object) -> Refusal | None:
    tables = _tables(model)
    names = sorted({type(table).__name__ for table in tables})
    if len(tables) != 1:
        return Refusal(Fallback.UNSUPPORTED_ROPE, f"the model has {len(tables)} RoPE tables")
    if names[0] not in ROPES:
        return Refusal(Fallback.UNSUPPORTED_ROPE, f"the model's RoPE is a {names[0]}")
    return None


def find_rope(model: object) -> Rope | None:
    """The model's one rotary table, or None where `server_refusal` refuses the model for it."""
    tables = _tables(model)
    return Rope(tables[0]) if len(tables) == 1 and hasattr(tables[0], "rotary_dim") else None
