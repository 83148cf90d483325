"""Copying KV to other slots, with the keys rotated to their new positions: the reference, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch

from leyline.backends.sglang.plugin.rope import Rope
from leyline.backends.sglang.plugin.staging import Staged


class Tokens(NamedTuple):
    """What is moved, one row a token, `(tokens,)` int64 each: slots, and positions in the prompt.

    No slot is both a source and a target: targets were just allocated while the sources were locked in the tree.
    """

    source: torch.Tensor
    target: torch.Tensor
    old: torch.Tensor
    new: torch.Tensor


class Mover(Protocol):
    """Moves the KV of all layers."""

    @property
    def positions(self) -> int:
        """Positions that a token can be moved to or from."""

    def __call__(self, tokens: Tokens) -> None: ...


def tokens_of(staged: Staged) -> Tokens:
    """The tokens that `staged` moves; built on the device, from a table with one row a run."""
    device = staged.slots.device
    lengths = [end - start for _, start, end in staged.moves]
    count = sum(lengths)
    before, firsts = 0, []
    for (_, start, _), length in zip(staged.moves, lengths, strict=True):
        firsts.append(start - before)
        before += length
    table = to_device([firsts, [move.run.shift for move in staged.moves], lengths], torch.int64, device)
    run = torch.repeat_interleave(table[2], output_size=count)
    new = torch.arange(count, device=device) + table[0][run]
    old = new - table[1][run]
    return Tokens(staged.source[old], staged.slots[new - staged.start], old, new)


def joined(parts: Sequence[Tokens]) -> Tokens:
    """Several requests' tokens as one move."""
    return parts[0] if len(parts) == 1 else Tokens(*(torch.cat(column) for column in zip(*parts, strict=True)))


def to_device(values: Any, dtype: torch.dtype, device: torch.device | str) -> torch.Tensor:
    """A tensor of a few host numbers, without waiting for the device."""
    pinned = torch.device(device).type == "cuda"
    return torch.tensor(values, dtype=dtype, pin_memory=pinned).to(device, non_blocking=True)


class TorchMover:
    """Gather, rotate, scatter, a layer at a time."""

    def __init__(self, pool: Any, rope: Rope) -> None:
        self.rope = rope
        self._pool = pool
        self._latent = hasattr(pool, "kv_lora_rank")

    @property
    def positions(self) -> int:
        return self.rope.positions

    def __call__(self, tokens: Tokens) -> None:
        source, target, old, new = tokens
        rotation = self.rope.between(old, new)
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
