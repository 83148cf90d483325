"""Tiny models with weights of a real scale, and a reference for splices that shares no code with the package.

Dummy-scale weights (1e-3) make a model nearly context independent, so that a wrong cache gives the right answer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}\n<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'
    "\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VOCABULARY = 320
ROPES: dict[str, dict[str, Any]] = {
    "plain": {"rope_type": "default", "rope_theta": 10000.0},
    "linear": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.5},
    "yarn": {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "original_max_position_embeddings": 512,
        "beta_fast": 32,
        "beta_slow": 1,
    },
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 512,
    },
}
GQA = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
MLA = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "moe_intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "kv_lora_rank": 32,
    "q_lora_rank": None,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "v_head_dim": 24,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "routed_scaling_factor": 1.0,
    "norm_topk_prob": True,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", GQA),
    "mha": ("Llama", {**GQA, "num_key_value_heads": 4}),
    "qwen2": ("Qwen2", {k: v for k, v in GQA.items() if k != "head_dim"}),
    "qwen3": ("Qwen3", GQA),
    "mistral": ("Mistral", {**GQA, "sliding_window": None}),
    "deepseek_v2": ("DeepseekV2", MLA),
    "deepseek_v2_q_lora": ("DeepseekV2", {**MLA, "q_lora_rank": 32}),
    "deepseek_v3": ("DeepseekV3", {**MLA, "rope_interleave": True}),
    "deepseek_v3_half": ("DeepseekV3", {**MLA, "rope_interleave": False}),
}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small matrices: more threads only make the tests slower."""
    torch = pytest.importorskip("torch", reason="the local backend needs torch")
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Any]:
    """`make_model(family, rope="plain", seed=0, **config)`: a transformers model, cached by its arguments."""
    made: dict[str, Any] = {}

    def make(family: str, rope: str = "plain", seed: int = 0, **overrides: Any) -> Any:
        key = json.dumps([family, rope, seed, overrides], sort_keys=True)
        if key not in made:
            made[key] = _build(family, rope, seed, overrides)
        return made[key]

    return make


def _build(family: str, rope: str, seed: int, overrides: dict[str, Any]) -> Any:
    import torch
    import transformers

    name, settings = FAMILIES[family]
    parameters = dict(ROPES[rope])
    if rope == "yarn" and name.startswith("Deepseek"):
        parameters |= {"mscale": 1.0, "mscale_all_dim": 0.4}  # their ratio, the magnitude, is not 1
    config = getattr(transformers, f"{name}Config")(
        **{
            **settings,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 4096,
            "rope_parameters": parameters,
            "bos_token_id": 256,
            "eos_token_id": 259,
            "pad_token_id": None,
            "tie_word_embeddings": False,
            **overrides,
        }
    )
    model = getattr(transformers, f"{name}ForCausalLM")(config).float().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if weight.dim() >= 2:
                std = 1.0 if "embed_tokens" in key else 1.6 / weight.shape[-1] ** 0.5
                weight.normal_(0, std, generator=generator)
    return model


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[[], Any]:
    """A byte-level tokenizer: 256 bytes and four special tokens, ids 256 to 259."""

    def make() -> Any:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers

        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens(["<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>"])
        return tokenizer

    return make


@pytest.fixture(scope="session")
def make_renderer(make_tokenizer: Callable[[], Any]) -> Callable[..., Any]:
    """`make_renderer(template=CHATML)`: a Renderer over the byte-level tokenizer."""
    from leyline.rendering.render import Renderer

    def make(template: str = CHATML) -> Any:
        return Renderer(make_tokenizer(), template, {"bos_token": "<|bos|>", "eos_token": "<|im_end|>"})

    return make


@pytest.fixture(scope="session")
def model_dir(
    tmp_path_factory: pytest.TempPathFactory, make_model: Callable[..., Any], make_tokenizer: Callable[[], Any]
) -> Callable[..., Path]:
    """`model_dir(family, rope="plain", **config)`: a complete model directory."""

    def make(family: str, rope: str = "plain", **overrides: Any) -> Path:
        path = tmp_path_factory.mktemp(family)
        make_model(family, rope, **overrides).save_pretrained(path)
        make_tokenizer().save(str(path / "tokenizer.json"))
        settings = {"bos_token": "<|bos|>", "eos_token": {"content": "<|im_end|>"}, "chat_template": CHATML}
        (path / "tokenizer_config.json").write_text(json.dumps(settings))
        return path

    return make


@pytest.fixture(scope="session")
def make_backend(make_model: Callable[..., Any], make_renderer: Callable[..., Any]) -> Callable[..., Any]:
    """`make_backend(family, rope="plain", *, model=None, **settings)`: a LocalBackend with page size 16."""
    from leyline.backends.local import LocalBackend

    def make(family: str = "llama", rope: str = "plain", *, model: Any = None, **settings: Any) -> Any:
        settings = {"page_size": 16, "renderer": make_renderer(), **settings}
        return LocalBackend(model if model is not None else make_model(family, rope), **settings)

    return make


def angles(
    parameters: dict[str, Any], dim: int, positions: Sequence[int], stored: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """Rotary angles (n, dim / 2) and the table's magnitude, from the papers' formulas in float64.

    stored: a model's own fp32 frequencies (dim / 2,). The last bit of a frequency is 1e-4 of an angle at position
    3,000, so far from 0 a model is held to what it stores; that this is the formula to the last bits is checked too.

    RoPE: Su et al., arXiv 2104.09864, eq. 15. Linear interpolation: arXiv 2306.15595. YaRN: arXiv 2309.00071, eqs. 13,
    17, 21 and 22; DeepSeek's two `mscale`s as in its released code. Llama 3: the piecewise interpolation of its
    model card.
    """
    kind, base = parameters["rope_type"], float(parameters["rope_theta"])
    exponent = np.arange(0, dim, 2, dtype=np.float64) / dim
    frequency = base**-exponent
    magnitude = 1.0
    if kind == "linear":
        frequency = frequency / parameters["factor"]
    elif kind == "yarn":
        factor, original = float(parameters["factor"]), float(parameters["original_max_position_embeddings"])

        def dimension(turns: float) -> float:
            return dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

        low = max(math.floor(dimension(parameters["beta_fast"])), 0)
        high = min(math.ceil(dimension(parameters["beta_slow"])), dim - 1)
        ramp = np.clip((np.arange(dim // 2, dtype=np.float64) - low) / max(high - low, 0.001), 0, 1)
        frequency = frequency / factor * ramp + frequency * (1 - ramp)

        def mscale(weight: float) -> float:
            return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

        both = parameters.get("mscale") and parameters.get("mscale_all_dim")
        magnitude = mscale(parameters["mscale"]) / mscale(parameters["mscale_all_dim"]) if both else mscale(1.0)
    elif kind == "llama3":
        factor, original = float(parameters["factor"]), float(parameters["original_max_position_embeddings"])
        low, high = float(parameters["low_freq_factor"]), float(parameters["high_freq_factor"])
        wave = 2 * math.pi / frequency
        smooth = (original / wave - low) / (high - low)
        middle = (1 - smooth) * frequency / factor + smooth * frequency
        frequency = np.where(
            wave < original / high, frequency, np.where(wave > original / low, frequency / factor, middle)
        )
    if stored is not None:
        assert np.allclose(stored, frequency, rtol=1e-6), "the model's frequencies are not the formula's"
        frequency = stored
    # a model multiplies in fp32: its table holds the angle of the rounded product
    table = np.asarray(positions, dtype=np.float32)[:, None] * frequency.astype(np.float32)[None]
    return table.astype(np.float64), magnitude


def turn(x: np.ndarray, angle: np.ndarray, interleaved: bool) -> np.ndarray:
    """Turn pairs of dimensions of x (..., n, dim) by angle (n, dim / 2), as complex numbers in float64."""
    x = np.asarray(x, dtype=np.float64)
    half = x.shape[-1] // 2
    pairs = x[..., 0::2] + 1j * x[..., 1::2] if interleaved else x[..., :half] + 1j * x[..., half:]
    pairs = pairs * np.exp(1j * angle)
    out = np.empty_like(x)
    if interleaved:
        out[..., 0::2], out[..., 1::2] = pairs.real, pairs.imag
    else:
        out[..., :half], out[..., half:] = pairs.real, pairs.imag
    return out


class Surgery:
    """The splice made by hand on transformers' own cache, with its own attention, and rotation in float64."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.name = type(model).__name__
        self.mla = self.name.startswith("Deepseek")
        self.interleaved = self.name == "DeepseekV2ForCausalLM"
        self.rope_dim = model.config.qk_rope_head_dim if self.mla else model.model.layers[0].self_attn.head_dim

    def prefill(self, ids: Sequence[int], cache: Any = None) -> tuple[Any, Any]:
        """(cache, logits behind the last token); computed in one forward behind what `cache` holds."""
        import torch
        from transformers import DynamicCache

        cache = DynamicCache(config=self.model.config) if cache is None else cache
        if not ids:
            return cache, None
        with torch.no_grad():
            out = self.model(input_ids=torch.tensor([list(ids)]), past_key_values=cache, use_cache=True)
        return cache, out.logits[0, -1]

    def tensors(self, cache: Any) -> list[tuple[np.ndarray, np.ndarray]]:
        """Keys and values (heads, n, dim) of each layer."""
        return [(layer.keys[0].double().numpy(), layer.values[0].double().numpy()) for layer in cache.layers]

    def splice(
        self, source: Sequence[int], script: Any, prompt: Sequence[int], seam: int = 0, donor: Any = None
    ) -> tuple[Any, Any]:
        """(cache, logits) of `prompt` after the splice of `script`. donor: the source's cache; None prefills it."""
        import torch

        donor = self.prefill(source)[0] if donor is None else donor
        cache, logits = self.prefill([])
        segments = script.segments(len(source), seam=seam)
        for s in segments:
            if s.kind == "prefill":
                cache, logits = self.prefill(prompt[s.target_start : s.target_end], cache)
                continue
            first = s.source_start
            old, _ = angles(self.model.config.rope_parameters, self.rope_dim, range(first, first + s.length))
            new, _ = angles(self.model.config.rope_parameters, self.rope_dim, range(s.target_start, s.target_end))
            for index, layer in enumerate(donor.layers):
                keys = layer.keys[:, :, first : first + s.length]
                values = layer.values[:, :, first : first + s.length]
                band = values if self.mla else keys
                if s.kind == "reuse":
                    band = torch.from_numpy(turn(band.numpy(), new - old, self.interleaved)).float()
                cache.update(*((keys, band) if self.mla else (band, values)), index)
        end = segments[-1].target_end if segments else 0
        if end < len(prompt):
            cache, logits = self.prefill(prompt[end:], cache)
        return cache, logits


@pytest.fixture(scope="session")
def reference() -> SimpleNamespace:
    """The independent reference: `angles`, `turn` and `Surgery`, and the settings of the tiny models."""
    return SimpleNamespace(
        angles=angles, turn=turn, Surgery=Surgery, ropes=ROPES, families=FAMILIES, vocabulary=VOCABULARY
    )
