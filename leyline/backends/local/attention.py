"""The attention that runs over our cache: the same mathematics as transformers' own, without mask tensors.

MLA is computed in its absorbed form: queries are taken into the latent space, so the cached latents are never
expanded to heads (DeepSeek-V2, arXiv 2405.04434, section 2.1.2). Expanding them for every forward is what makes the
stock path slow on a CPU: 30 tokens a second instead of 150 at 3,000 tokens of context, for a 20M model.

Both forms take the last `queries` of the `length` cached tokens as the queries' own places, and are causal.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel


NAME = "leyline"


def attend(
    module: object, query: Tensor, key: Tensor, value: Tensor, mask: None, scaling: float, **_: object
) -> tuple[Tensor, None]:
    """transformers' attention interface. Returns (1, queries, heads, value_dim).

    query: (1, heads, queries, dim). GQA: key and value are (1, kv_heads, length, dim). MLA: key is the latent
    (1, 1, length, rank), value the rotary band (1, 1, length, rope_dim).
    """
    if hasattr(module, "kv_lora_rank"):
        return _absorbed(module, query[0], key[0, 0], value[0, 0], scaling)[None], None
    return _grouped(query[0], key[0], value[0], scaling)[None], None


def _grouped(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    heads, count, dim = query.shape
    kv_heads = key.shape[0]
    scores = torch.matmul(query.reshape(kv_heads, -1, dim), key.transpose(1, 2)) * scaling
    weights = _causal_softmax(scores.view(heads, count, -1)).to(query.dtype)
    out = torch.matmul(weights.view(kv_heads, -1, weights.shape[-1]), value)
    return out.view(heads, count, -1).transpose(0, 1)


def _absorbed(module: Any, query: Tensor, latent: Tensor, band: Tensor, scaling: float) -> Tensor:
    heads, count, _ = query.shape
    nope: int = module.qk_nope_head_dim
    up = module.kv_b_proj.weight.view(heads, -1, latent.shape[-1])
    in_latent = torch.bmm(query[..., :nope], up[:, :nope]).view(heads * count, -1)
    turned = query[..., nope:].reshape(heads * count, -1)
    scores = torch.addmm(in_latent @ latent.T, turned, band.T, beta=scaling, alpha=scaling)
    weights = _causal_softmax(scores.view(heads, count, -1)).to(query.dtype)
    mixed = torch.mm(weights.view(heads * count, -1), latent).view(heads, count, -1)
    return torch.bmm(mixed, up[:, nope:].transpose(1, 2)).transpose(0, 1)


def _causal_softmax(scores: Tensor) -> Tensor:
    """fp32 softmax over the last dimension of (heads, queries, length), future tokens excluded. Changes `scores`."""
    count = scores.shape[1]
    if count > 1:
        future = torch.ones(count, count, dtype=torch.bool, device=scores.device).triu_(1)
        scores[..., scores.shape[2] - count :].masked_fill_(future, float("-inf"))
    return torch.softmax(scores, dim=-1, dtype=torch.float32)


@contextmanager
def engaged(model: PreTrainedModel) -> Iterator[None]:
    """Let `model` run over our cache inside the block; it is as it was afterwards."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)
    config = model.config
    before = config._attn_implementation
    layers = [layer.self_attn for layer in model.model.layers]
    latent = [attention for attention in layers if hasattr(attention, "expand_kv")]
    config._attn_implementation = NAME
    for attention in latent:
        attention.expand_kv = _keep_latent
    try:
        yield
    finally:
        config._attn_implementation = before
        for attention in latent:
            del attention.expand_kv


def _keep_latent(latent: Tensor, band: Tensor) -> tuple[Tensor, Tensor]:
    return latent, band
