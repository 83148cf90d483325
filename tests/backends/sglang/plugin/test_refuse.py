"""What is refused, with which reason."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from leyline.backends.sglang.plugin.refuse import hole_refusal, server_refusal
from leyline.directives import Fallback


class MHATokenToKVPool:
    def __init__(self, dtype: torch.dtype = torch.bfloat16, store: torch.dtype | None = None, dims: int = 3) -> None:
        self.dtype, self.store_dtype, self.size = dtype, store or dtype, 8
        self.k_buffer = [torch.zeros((9, *(2,) * (dims - 1)))]
        self.v_buffer = self.k_buffer


class SWAKVPool(MHATokenToKVPool):
    pass


class YaRNScalingRotaryEmbedding(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cos_sin_cache, self.is_neox_style, self.rotary_dim = torch.zeros(4, 4), True, 4


class MRotaryEmbedding(YaRNScalingRotaryEmbedding):
    pass


class RadixAttention(torch.nn.Module):
    def __init__(self, window: int) -> None:
        super().__init__()
        self.sliding_window_size = window


class LlamaForCausalLM(torch.nn.Module):
    def __init__(self, *parts: torch.nn.Module) -> None:
        super().__init__()
        self.parts = torch.nn.ModuleList(parts or (YaRNScalingRotaryEmbedding(),))


class Gemma3ForCausalLM(LlamaForCausalLM):
    pass


def refusal(model: Any = None, pool: Any = None, context: Any = None, **args: Any) -> Any:
    context = context or {}
    return server_refusal(
        SimpleNamespace(**args), SimpleNamespace(**context), pool or MHATokenToKVPool(), model or LlamaForCausalLM()
    )


def test_a_plain_server_is_not_refused() -> None:
    assert refusal() is None
    assert refusal(disaggregation_mode="null", pp_size=1, speculative_algorithm=None) is None


def label(value: Any) -> str:
    """A test id that is the same in every process: no addresses."""
    if not isinstance(value, dict):
        return str(value)
    return ",".join(f"{k}={v if isinstance(v, str | int | dict) else type(v).__name__}" for k, v in value.items())


@pytest.mark.parametrize(
    "args",
    [
        {"speculative_algorithm": "EAGLE"},
        {"enable_hierarchical_cache": True},
        {"enable_lmcache": True},
        {"kv_events_config": "{}"},
        {"disaggregation_mode": "prefill"},
        {"pp_size": 2},
        {"dcp_size": 2},
        {"enable_streaming_session": True},
        {"enable_deterministic_inference": True},
        {"context": {"is_hybrid_swa": True}},
        {"context": {"is_hybrid_ssm": True}},
        {"context": {"is_dsa": True}},
        {"model": LlamaForCausalLM(YaRNScalingRotaryEmbedding(), RadixAttention(128))},
        {"pool": MHATokenToKVPool(dims=4)},
    ],
    ids=label,
)
def test_features_that_exclude_splicing(args: dict[str, Any]) -> None:
    found = refusal(**args)
    assert found is not None
    assert found.reason is Fallback.UNSUPPORTED_FEATURE
    assert found.detail


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        ({"model": Gemma3ForCausalLM()}, Fallback.UNSUPPORTED_MODEL),
        ({"pool": SWAKVPool()}, Fallback.UNSUPPORTED_MODEL),
        ({"pool": MHATokenToKVPool(torch.float8_e4m3fn)}, Fallback.UNSUPPORTED_KV_DTYPE),
        ({"pool": MHATokenToKVPool(torch.bfloat16, torch.uint8)}, Fallback.UNSUPPORTED_KV_DTYPE),
        ({"model": LlamaForCausalLM(MRotaryEmbedding())}, Fallback.UNSUPPORTED_ROPE),
        (
            {"model": LlamaForCausalLM(YaRNScalingRotaryEmbedding(), YaRNScalingRotaryEmbedding())},
            Fallback.UNSUPPORTED_ROPE,
        ),
        ({"model": LlamaForCausalLM(torch.nn.Linear(1, 1))}, Fallback.UNSUPPORTED_ROPE),
    ],
    ids=label,
)
def test_models_and_pools(args: dict[str, Any], reason: Fallback) -> None:
    found = refusal(**args)
    assert found is not None
    assert found.reason is reason
    assert found.detail


def test_a_model_can_be_allowed_at_the_users_own_risk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEYLINE_ALLOW_MODEL", "Gemma3ForCausalLM,Other")
    assert refusal(model=Gemma3ForCausalLM()) is None


@pytest.mark.parametrize(
    ("args", "backend", "said"),
    [
        ({}, "flashinfer", "not flashinfer"),
        ({}, "trtllm_mla", "not trtllm_mla"),
        ({"enable_lora": True}, "fa3", "LoRA"),
        ({"enable_dp_attention": True}, "fa3", "data-parallel attention"),
        ({"attn_dp_size": 2}, "fa3", "data-parallel attention"),
        ({"enable_two_batch_overlap": True}, "fa3", "two-batch overlap"),
        ({"moe_a2a_backend": "deepep"}, "fa3", "deepep"),
    ],
    ids=label,
)
def test_where_only_deletions_are_spliced(args: dict[str, Any], backend: str, said: str) -> None:
    found = hole_refusal(SimpleNamespace(**args), SimpleNamespace(prefill_attention_backend_str=backend))
    assert found is not None
    assert found.reason is Fallback.UNSUPPORTED_FEATURE
    assert said in found.detail


@pytest.mark.parametrize("backend", ["fa3", "torch_native"])
def test_backends_that_compute_holes(backend: str) -> None:
    args = SimpleNamespace(enable_lora=False, moe_a2a_backend="none", attn_dp_size=1)
    assert hole_refusal(args, SimpleNamespace(prefill_attention_backend_str=backend)) is None
