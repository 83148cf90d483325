"""All layers and all runs of a pass in one launch: a Triton kernel that copies KV rows and rotates keys on the way.

Every token carries its own slots and positions, so runs with different shifts, of different requests, are one launch.
Layers are reached from the first one's buffer by offsets in units of 16 elements, which the compiler thus knows to be
aligned. The rotation is that of `rope`, taken from the model's table inside the kernel: once a token, for all heads.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from leyline.backends.sglang.plugin.mover import Tokens
from leyline.backends.sglang.plugin.rope import Rope

UNIT: tl.constexpr = tl.constexpr(16)
"""Elements that layers' offsets are counted in."""
_TOKENS = {"latent": 8, "heads": 16}
"""Tokens a program moves."""
_WARPS = {"latent": 4, "heads": 4}


@triton.jit
def _ratio(table, old, new, i, mask, half: tl.constexpr):
    """cos and sin of theta(new) - theta(old), `(tokens, half)` fp32, from rows `[cos | sin]`."""
    row_old = table + old[:, None] * (2 * half) + i[None, :]
    row_new = table + new[:, None] * (2 * half) + i[None, :]
    old_cos = tl.load(row_old, mask=mask, other=1.0).to(tl.float32)
    old_sin = tl.load(row_old + half, mask=mask, other=0.0).to(tl.float32)
    new_cos = tl.load(row_new, mask=mask, other=1.0).to(tl.float32)
    new_sin = tl.load(row_new + half, mask=mask, other=0.0).to(tl.float32)
    cos = new_cos * old_cos + new_sin * old_sin
    sin = new_sin * old_cos - new_cos * old_sin
    unit = 1.0 / tl.sqrt(cos * cos + sin * sin)
    return cos * unit, sin * unit


@triton.jit
def _turn(base, source, target, at, cos, sin, inside, half: tl.constexpr, neox: tl.constexpr, row: tl.constexpr):
    """Move the `2 * half` elements from `at` on, rotated."""
    block: tl.constexpr = cos.shape[1]
    read, write = base + source[:, None] * row + at, base + target[:, None] * row + at
    if neox:
        i = tl.arange(0, block)
        mask = inside[:, None] & (i < half)[None, :]
        a = tl.load(read + i[None, :], mask=mask, other=0.0)
        b = tl.load(read + half + i[None, :], mask=mask, other=0.0)
        x, y = a.to(tl.float32), b.to(tl.float32)
        tl.store(write + i[None, :], (x * cos - y * sin).to(a.dtype), mask=mask)
        tl.store(write + half + i[None, :], (y * cos + x * sin).to(a.dtype), mask=mask)
    else:  # pairs stand side by side: read them whole, and part them in registers
        j = tl.arange(0, 2 * block)
        mask = inside[:, None] & (j < 2 * half)[None, :]
        both = tl.load(read + j[None, :], mask=mask, other=0.0)
        x, y = tl.split(tl.reshape(both.to(tl.float32), (cos.shape[0], block, 2)))
        turned = tl.reshape(tl.join(x * cos - y * sin, y * cos + x * sin), (cos.shape[0], 2 * block))
        tl.store(write + j[None, :], turned.to(both.dtype), mask=mask)


@triton.jit
def _copy(base, source, target, at, inside, count: tl.constexpr, block: tl.constexpr, row: tl.constexpr):
    """Move the `count` elements from `at` on as they are."""
    j = tl.arange(0, block)
    mask = inside[:, None] & (j < count)[None, :]
    values = tl.load(base + source[:, None] * row + at + j[None, :], mask=mask, other=0.0)
    tl.store(base + target[:, None] * row + at + j[None, :], values, mask=mask)


@triton.jit(do_not_specialize=["count"])
def _move_latent(
    first,
    offsets,
    table,
    sources,
    targets,
    olds,
    news,
    count,
    rank: tl.constexpr,
    half: tl.constexpr,
    neox: tl.constexpr,
    row: tl.constexpr,
    tokens: tl.constexpr,
    block_rank: tl.constexpr,
    block_half: tl.constexpr,
):
    """Grid (ceil(count / tokens), layers). A row is `rank` latent elements and `2 * half` rotary ones."""
    t = tl.program_id(0) * tokens + tl.arange(0, tokens)
    inside = t < count
    source, target = tl.load(sources + t, mask=inside, other=0), tl.load(targets + t, mask=inside, other=0)
    old, new = tl.load(olds + t, mask=inside, other=0), tl.load(news + t, mask=inside, other=0)
    base = first + tl.load(offsets + tl.program_id(1)) * UNIT
    _copy(base, source, target, 0, inside, rank, block_rank, row)
    i = tl.arange(0, block_half)
    mask = inside[:, None] & (i < half)[None, :]
    cos, sin = _ratio(table, old, new, i, mask, half)
    _turn(base, source, target, rank, cos, sin, inside, half, neox, row)


@triton.jit(do_not_specialize=["count"])
def _move_heads(
    first_key,
    first_value,
    key_offsets,
    value_offsets,
    table,
    sources,
    targets,
    olds,
    news,
    count,
    heads: tl.constexpr,
    width: tl.constexpr,
    value_width: tl.constexpr,
    half: tl.constexpr,
    neox: tl.constexpr,
    tokens: tl.constexpr,
    block_value: tl.constexpr,
    block_rest: tl.constexpr,
    block_half: tl.constexpr,
):
    """Grid (ceil(count / tokens), layers). Keys `(slots, heads, width)`, the first `2 * half` of a head rotated."""
    t = tl.program_id(0) * tokens + tl.arange(0, tokens)
    inside = t < count
    source, target = tl.load(sources + t, mask=inside, other=0), tl.load(targets + t, mask=inside, other=0)
    old, new = tl.load(olds + t, mask=inside, other=0), tl.load(news + t, mask=inside, other=0)
    key = first_key + tl.load(key_offsets + tl.program_id(1)) * UNIT
    value = first_value + tl.load(value_offsets + tl.program_id(1)) * UNIT
    i = tl.arange(0, block_half)
    mask = inside[:, None] & (i < half)[None, :]
    cos, sin = _ratio(table, old, new, i, mask, half)
    for head in range(heads):
        _turn(key, source, target, head * width, cos, sin, inside, half, neox, heads * width)
        if width > 2 * half:
            rest = head * width + 2 * half
            _copy(key, source, target, rest, inside, width - 2 * half, block_rest, heads * width)
        _copy(value, source, target, head * value_width, inside, value_width, block_value, heads * value_width)


class UnfitLayoutError(ValueError):
    """The pool's buffers are not laid out as the kernel reads them."""


class KernelMover:
    """Moves the KV of all layers in one launch, on the current stream. The reference is `TorchMover`."""

    def __init__(self, pool: Any, rope: Rope) -> None:
        """Compiles the kernel, by moving slot 0, which holds no token, onto itself. Raises `UnfitLayoutError`."""
        self.rope = rope
        self._latent = hasattr(pool, "kv_lora_rank")
        if self._latent:
            self._buffers = pool.kv_buffer
            self._rank = int(pool.kv_lora_rank)
            self._offsets: tuple[torch.Tensor, ...] = (_offsets(pool.kv_buffer),)
        else:
            self._buffers, self._values = pool.k_buffer, pool.v_buffer
            self._offsets = (_offsets(pool.k_buffer), _offsets(pool.v_buffer))
        nothing = torch.zeros(1, dtype=torch.int64, device=self._buffers[0].device)
        self(Tokens(nothing, nothing, nothing, nothing))

    @property
    def positions(self) -> int:
        return self.rope.positions

    def __call__(self, tokens: Tokens) -> None:
        table = self.rope.table
        half, count, buffer = self.rope.dim // 2, len(tokens.source), self._buffers[0]
        kind = "latent" if self._latent else "heads"
        size = _TOKENS[kind]
        grid = (triton.cdiv(count, size), len(self._buffers))
        shape: dict[str, object] = {"half": half, "neox": self.rope.neox, "tokens": size}
        shape["num_warps"] = _WARPS[kind]
        shape["block_half"] = triton.next_power_of_2(half)
        if self._latent:
            shape |= {"rank": self._rank, "row": buffer.stride(0), "block_rank": triton.next_power_of_2(self._rank)}
            _move_latent[grid](buffer, *self._offsets, table, *tokens, count, **shape)
            return
        _, heads, width = buffer.shape
        value_width = self._values[0].shape[2]
        shape |= {"heads": heads, "width": width, "value_width": value_width}
        shape["block_value"] = triton.next_power_of_2(value_width)
        shape["block_rest"] = triton.next_power_of_2(max(width - 2 * half, 1))
        _move_heads[grid](buffer, self._values[0], *self._offsets, table, *tokens, count, **shape)


def _offsets(buffers: list[torch.Tensor]) -> torch.Tensor:
    """Where each layer's buffer begins, from the first one's, in UNITs: `(layers,)` int64 on the device."""
    first, found = buffers[0], []
    unit = UNIT.value * first.element_size()
    for buffer in buffers:
        distance = buffer.data_ptr() - first.data_ptr()
        same = buffer.shape == first.shape and buffer.dtype == first.dtype and buffer.device == first.device
        if distance % unit or not same or not buffer.is_contiguous():
            raise UnfitLayoutError(f"a layer's buffer has shape {tuple(buffer.shape)} and strides {buffer.stride()}")
        found.append(distance // unit)
    return torch.tensor(found, dtype=torch.int64, device=first.device)
