"""The two tiny agents: MLA (as DeepSeek-V2) and GQA (as Qwen3), written for training and for batched decoding.

Parameter names are those of transformers' `DeepseekV2ForCausalLM` and `Qwen3ForCausalLM`, so a state dict is a
checkpoint; `hf_config` is its config.json. Both are held against transformers by tests/training/test_models.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Kind = Literal["mla", "gqa"]
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # (B, H, T, d), (B, KV, T, d), (B, KV, T, v) -> (B, H, T, v)


@dataclass(frozen=True)
class Shape:
    """Sizes of a model. Defaults are those of the shipped models; `kv_heads` and `head_dim` are GQA's, the rest of the
    head sizes MLA's."""

    kind: Kind
    vocab: int = 4096
    hidden: int = 384
    layers: int = 9
    ff: int = 896
    heads: int = 8
    kv_heads: int = 2
    head_dim: int = 64
    nope: int = 32
    rope: int = 32
    value: int = 64
    latent: int = 128
    theta: float = 10000.0
    eps: float = 1e-6
    positions: int = 8192

    @property
    def rotary_dim(self) -> int:
        return self.rope if self.kind == "mla" else self.head_dim

    def small(self) -> Shape:
        """The same kind with two layers, to try the code."""
        return replace(self, layers=2, hidden=64, ff=128, heads=2, latent=32)


SHAPES = {"tiny-mla": Shape("mla"), "tiny-gqa": Shape("gqa")}


class Norm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.eps).to(x.dtype)  # autocast may widen it


class Rotary(nn.Module):
    """The angle table, called as transformers' rotary modules are: (cos, sin) of (1, n, dim), halves repeated."""

    def __init__(self, dim: int, theta: float) -> None:
        super().__init__()
        self.dim, self.theta = dim, theta

    def angles(self, positions: Tensor) -> Tensor:
        steps = torch.arange(0, self.dim, 2, device=positions.device, dtype=torch.float32) / self.dim
        return positions[..., None].float() * (1.0 / self.theta**steps)

    def forward(self, _: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        angle = self.angles(positions)
        return torch.cat((angle.cos(),) * 2, -1), torch.cat((angle.sin(),) * 2, -1)


def turn_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate dimensions (0, 1), (2, 3), ... of x (..., dim) by angles of which cos and sin are (..., dim / 2)."""
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).to(x.dtype)


def turn_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate dimensions (i, i + dim / 2) of x (..., dim) by angles of which cos and sin are (..., dim / 2)."""
    a, b = x.float().chunk(2, -1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), -1).to(x.dtype)


class LatentAttention(nn.Module):
    """MLA. Cached per token: the normed latent as (1, latent), the rotated band as (1, rope)."""

    pairing = "interleaved"
    rotated = 1

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.s = s
        self.q_proj = nn.Linear(s.hidden, s.heads * (s.nope + s.rope), bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(s.hidden, s.latent + s.rope, bias=False)
        self.kv_a_layernorm = Norm(s.latent, s.eps)
        self.kv_b_proj = nn.Linear(s.latent, s.heads * (s.nope + s.value), bias=False)
        self.o_proj = nn.Linear(s.heads * s.value, s.hidden, bias=False)

    @staticmethod
    def cache_dims(s: Shape) -> tuple[tuple[int, int], tuple[int, int]]:
        return (1, s.latent), (1, s.rope)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query (B, T, H, nope + rope) and the two cached tensors (B, T, 1, latent), (B, T, 1, rope)."""
        s = self.s
        q = self.q_proj(x).unflatten(-1, (s.heads, -1))
        nope, band = q.split([s.nope, s.rope], -1)
        latent, key = self.kv_a_proj_with_mqa(x).split([s.latent, s.rope], -1)
        cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
        q = torch.cat((nope, turn_pairs(band, cos, sin)), -1)
        return q, self.kv_a_layernorm(latent).unsqueeze(-2), turn_pairs(key.unsqueeze(-2), cos, sin)

    def expand(self, latent: Tensor, band: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, T, dim) of cached tensors (B, 1, T, dim)."""
        s = self.s
        kv = self.kv_b_proj(latent[:, 0]).unflatten(-1, (s.heads, -1)).transpose(1, 2)
        nope, value = kv.split([s.nope, s.value], -1)
        return torch.cat((nope, band.expand(-1, s.heads, -1, -1)), -1), value

    def step(self, q: Tensor, latent: Tensor, band: Tensor, hidden: Tensor) -> Tensor:
        """One query a row over the cache, in the absorbed form (DeepSeek-V2, arXiv 2405.04434, section 2.1.2).

        q: (B, H, nope + rope); latent, band: (B, 1, T, dim); hidden: (B, T), true where a row may not look.
        Returns (B, H * value).
        """
        s = self.s
        up = self.kv_b_proj.weight.view(s.heads, s.nope + s.value, s.latent)
        nope, turned = q.split([s.nope, s.rope], -1)
        inner = torch.einsum("bhd,hdr->bhr", nope, up[:, : s.nope])
        scores = (inner @ latent[:, 0].mT + turned @ band[:, 0].mT).float() * (s.nope + s.rope) ** -0.5
        weights = scores.masked_fill(hidden[:, None], float("-inf")).softmax(-1).to(q.dtype)
        return torch.einsum("bhr,hvr->bhv", weights @ latent[:, 0], up[:, s.nope :]).flatten(1)


class GroupedAttention(nn.Module):
    """GQA with normed queries and keys. Cached per token: keys and values, (kv_heads, head_dim) each."""

    pairing = "half"
    rotated = 0

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.s = s
        self.q_proj = nn.Linear(s.hidden, s.heads * s.head_dim, bias=False)
        self.k_proj = nn.Linear(s.hidden, s.kv_heads * s.head_dim, bias=False)
        self.v_proj = nn.Linear(s.hidden, s.kv_heads * s.head_dim, bias=False)
        self.o_proj = nn.Linear(s.heads * s.head_dim, s.hidden, bias=False)
        self.q_norm, self.k_norm = Norm(s.head_dim, s.eps), Norm(s.head_dim, s.eps)

    @staticmethod
    def cache_dims(s: Shape) -> tuple[tuple[int, int], tuple[int, int]]:
        return (s.kv_heads, s.head_dim), (s.kv_heads, s.head_dim)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query (B, T, H, dim) and the two cached tensors (B, T, kv_heads, dim)."""
        s = self.s
        cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
        q = turn_halves(self.q_norm(self.q_proj(x).unflatten(-1, (s.heads, -1))), cos, sin)
        k = turn_halves(self.k_norm(self.k_proj(x).unflatten(-1, (s.kv_heads, -1))), cos, sin)
        return q, k, self.v_proj(x).unflatten(-1, (s.kv_heads, -1))

    def expand(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        return keys, values

    def step(self, q: Tensor, keys: Tensor, values: Tensor, hidden: Tensor) -> Tensor:
        """One query a row over the cache: as `LatentAttention.step`, with keys and values (B, kv_heads, T, dim)."""
        s = self.s
        grouped = q.view(q.shape[0], s.kv_heads, -1, s.head_dim)
        scores = (grouped @ keys.mT).float() * s.head_dim**-0.5
        weights = scores.masked_fill(hidden[:, None, None], float("-inf")).softmax(-1).to(q.dtype)
        return (weights @ values).flatten(1)


class MLP(nn.Module):
    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(s.hidden, s.ff, bias=False)
        self.up_proj = nn.Linear(s.hidden, s.ff, bias=False)
        self.down_proj = nn.Linear(s.ff, s.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.self_attn = LatentAttention(s) if s.kind == "mla" else GroupedAttention(s)
        self.mlp = MLP(s)
        self.input_layernorm = Norm(s.hidden, s.eps)
        self.post_attention_layernorm = Norm(s.hidden, s.eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        q, first, second = self.self_attn.project(self.input_layernorm(x), cos, sin)
        k, v = self.self_attn.expand(first.transpose(1, 2), second.transpose(1, 2))
        x = x + self.self_attn.o_proj(attend(q.transpose(1, 2), k, v).transpose(1, 2).flatten(-2))
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Body(nn.Module):
    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(s.vocab, s.hidden)
        self.layers = nn.ModuleList([Layer(s) for _ in range(s.layers)])
        self.norm = Norm(s.hidden, s.eps)


class TinyLM(nn.Module):
    """A causal LM whose head is its embedding."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.model = Body(shape)
        self.rotary = Rotary(shape.rotary_dim, shape.theta)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                nn.init.normal_(p, std=0.02 if "embed" in name else p.shape[1] ** -0.5)
            if "o_proj" in name or "down_proj" in name:
                nn.init.zeros_(p)

    def angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine (..., rotary_dim / 2) of positions (...), fp32."""
        angle = self.rotary.angles(positions)
        return angle.cos(), angle.sin()

    def hidden(self, tokens: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """Normed hidden states (B, T, hidden) of tokens and positions (B, T)."""
        cos, sin = self.angles(positions)
        x = self.model.embed_tokens(tokens)
        for layer in self.model.layers:
            x = layer(x, cos, sin, attend)
        out: Tensor = self.model.norm(x)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.model.embed_tokens.weight.to(hidden.dtype))

    def losses(self, tokens: Tensor, positions: Tensor, targets: Tensor, attend: Attend) -> Tensor:
        """Cross entropy (B, T) of every target, fp32."""
        scores = self.logits(self.hidden(tokens, positions, attend)).float()
        return F.cross_entropy(scores.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)


def parameters(shape: Shape) -> int:
    """Parameters, the tied head counted once."""
    with torch.device("meta"):
        return sum(p.numel() for p in TinyLM(shape).parameters())


def hf_config(shape: Shape) -> dict[str, Any]:
    """config.json for transformers and SGLang.

    MLA: `first_k_dense_replace` makes every layer dense, so that no expert exists. The YaRN entry has factor 1, which
    changes no angle; SGLang's CPU path of DeepSeek-V2 expects one.
    """
    common = {
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ff,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "max_position_embeddings": shape.positions,
        "rms_norm_eps": shape.eps,
        "rope_theta": shape.theta,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    if shape.kind == "gqa":
        return {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            **common,
            "num_key_value_heads": shape.kv_heads,
            "head_dim": shape.head_dim,
            "use_sliding_window": False,
            "rope_parameters": {"rope_type": "default", "rope_theta": shape.theta},
        }
    yarn = {
        "rope_type": "yarn",
        "type": "yarn",
        "factor": 1.0,
        "original_max_position_embeddings": shape.positions,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
    }
    return {
        "architectures": ["DeepseekV2ForCausalLM"],
        "model_type": "deepseek_v2",
        **common,
        "num_key_value_heads": shape.heads,
        "kv_lora_rank": shape.latent,
        "q_lora_rank": None,
        "qk_nope_head_dim": shape.nope,
        "qk_rope_head_dim": shape.rope,
        "v_head_dim": shape.value,
        "moe_intermediate_size": shape.ff,
        "n_routed_experts": 1,
        "n_shared_experts": 1,
        "num_experts_per_tok": 1,
        "first_k_dense_replace": shape.layers,
        "moe_layer_freq": 1,
        "n_group": 1,
        "topk_group": 1,
        "topk_method": "greedy",
        "scoring_func": "softmax",
        "norm_topk_prob": False,
        "routed_scaling_factor": 1.0,
        "mlp_bias": False,
        "rope_parameters": {**yarn, "rope_theta": shape.theta},
        "rope_scaling": yarn,
    }


def sdpa(mask: Tensor | None) -> Attend:
    """Attention through PyTorch's own kernel. mask: (B, 1, T, T), true where a token may look; None is causal."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        grouped = q.shape[1] != k.shape[1]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=grouped)

    return attend


def scale_of(shape: Shape) -> float:
    """The softmax scale of either kind, for attention that does not take it from the query's size."""
    return 1.0 / math.sqrt(shape.nope + shape.rope if shape.kind == "mla" else shape.head_dim)
