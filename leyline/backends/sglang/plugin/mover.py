"""Copying KV from one run of slots to another, with the keys rotated to their new positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from leyline.backends.sglang.plugin.rope import Rope


class Mover:
    """Gather, rotate, scatter for every layer of one KV pool.

    The source and target slots never overlap: the target was just allocated while the source was locked in the tree.
    """

    def __init__(self, pool: Any, rope: Rope, before_copy: Callable[[], None]) -> None:
        """before_copy: orders the copy behind every forward pass that was launched (a donor's KV may be in flight)."""
        self.rope = rope
        self._pool = pool
        self._before_copy = before_copy
        self._latent = hasattr(pool, "kv_lora_rank")

    def __call__(self, source: torch.Tensor, target: torch.Tensor, old_start: int, new_start: int) -> None:
        """Move the KV in slots `source` `(tokens,)`, at positions from `old_start` on, to slots `target`."""
        count = len(source)
        if max(old_start, new_start) + count > self.rope.positions:
            raise IndexError(f"position {max(old_start, new_start) + count} is outside the model's RoPE table")
        self._before_copy()
        steps = torch.arange(count, device=target.device)
        rotation = self.rope.between(steps + old_start, steps + new_start)
        width = self.rope.dim
        if self._latent:
            rank = self._pool.kv_lora_rank
            for buffer in self._pool.kv_buffer:
                rows = buffer[source]
                rows[..., rank : rank + width] = rotation.apply(rows[..., rank : rank + width])
                buffer[target] = rows
        else:
            for keys, values in zip(self._pool.k_buffer, self._pool.v_buffer, strict=True):
                rows = keys[source]
                rows[..., :width] = rotation.apply(rows[..., :width])
                keys[target] = rows
                values[target] = values[source]
