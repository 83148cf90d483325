"""Server settings that exclude splicing, by their name in SGLang's ServerArgs, with what they turn on."""

from __future__ import annotations

FEATURES = {
    "speculative_algorithm": "speculative decoding",
    "enable_hierarchical_cache": "the hierarchical cache (it would keep approximate KV outside this tree)",
    "enable_unified_cache_external_linker": "an external cache",
    "enable_lmcache": "LMCache",
    "enable_flexkv": "FlexKV",
    "kv_events_config": "KV events (they would publish marked ids)",
    "enable_deterministic_inference": "deterministic inference (it fixes where chunks end)",
    "enable_streaming_session": "streaming sessions",
    "enable_session_radix_cache": "session caching",
    "enable_kv_cache_sharding": "KV cache sharding",
    "dllm_algorithm": "a diffusion language model",
    "disable_radix_cache": "a disabled prefix cache",
    "enable_hisparse": "sparse attention",
    "enable_unified_memory": "unified memory",
    "strip_thinking_cache": "strip_thinking_cache",
}

HOLE_FEATURES = {
    "enable_lora": "LoRA",
    "enable_dp_attention": "data-parallel attention",
    "enable_two_batch_overlap": "two-batch overlap",
    "enable_single_batch_overlap": "single-batch overlap",
    "enable_pdmux": "prefill and decode multiplexing",
    "enable_return_routed_experts": "the return of routed experts",
    "enable_mis": "multi-item scoring",
    "debug_tensor_dump_output_folder": "tensor dumps",
}
"""Settings under which only deletions are spliced: a forward takes its batch's sequences for the requests'."""
