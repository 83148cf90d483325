"""The KV of one sequence: contiguous buffers that grow, and that transformers can write into."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leyline.backends.local.families import KvLayout
from leyline.backends.local.rotary import RotaryTable, rotate

GROWTH = 256


@dataclass(frozen=True, slots=True)
class KvShape:
    """layers, then (heads, dim) of the key and of the value tensor of one token."""

    layers: int
    key: tuple[int, int]
    value: tuple[int, int]
    dtype: torch.dtype
    device: torch.device

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one cached token over all layers."""
        return self.layers * (self.key[0] * self.key[1] + self.value[0] * self.value[1]) * self.dtype.itemsize


class SequenceKV:
    """KV of `length` tokens. keys: (layers, heads, capacity, dim), values likewise; rows past `length` are scratch.

    `update` and `get_seq_length` are the part of transformers' cache protocol that a forward pass uses. A forward
    writes behind `length`; `advance` makes the new rows count, so a failed forward leaves the sequence as it was.
    """

    is_compileable = False

    def __init__(self, shape: KvShape, capacity: int) -> None:
        self.shape = shape
        self.length = 0
        self._allocate(max(capacity, 1))

    @property
    def capacity(self) -> int:
        """Tokens that fit without growing."""
        return int(self.keys.shape[2])

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens cached before the current forward."""
        return self.length

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Store a forward's (1, heads, n, dim) tensors of one layer. Returns all (1, heads, length + n, dim)."""
        end = self.length + key.shape[2]
        self.keys[layer_idx, :, self.length : end] = key[0]
        self.values[layer_idx, :, self.length : end] = value[0]
        return self.keys[layer_idx, None, :, :end], self.values[layer_idx, None, :, :end]

    def advance(self, count: int) -> None:
        """Count the `count` tokens that the last forward wrote."""
        self.length += count

    def truncate(self, length: int) -> None:
        """Keep the first `length` tokens."""
        self.length = min(self.length, length)

    def erase(self, start: int) -> None:
        """Truncate to `start` tokens and overwrite what was behind."""
        self.length = min(self.length, start)
        self.keys[:, :, start:] = 0
        self.values[:, :, start:] = 0

    def reserve(self, capacity: int) -> None:
        """Make room for `capacity` tokens in all."""
        if capacity <= self.capacity:
            return
        keys, values = self.keys, self.values
        self._allocate(capacity)
        self.keys[:, :, : self.length] = keys[:, :, : self.length]
        self.values[:, :, : self.length] = values[:, :, : self.length]

    def append(self, source: SequenceKV, start: int, count: int) -> None:
        """Copy rows `[start, start + count)` of `source` behind the own ones, as they are."""
        end = self.length + count
        self.keys[:, :, self.length : end] = source.keys[:, :, start : start + count]
        self.values[:, :, self.length : end] = source.values[:, :, start : start + count]
        self.length = end

    def splice(self, source: SequenceKV, start: int, count: int, layout: KvLayout, table: RotaryTable) -> None:
        """Append rows of `source` and turn their rotary band from the old positions to the new ones."""
        target = self.length
        self.append(source, start, count)
        if target == start:
            return
        old = torch.arange(start, start + count, device=self.shape.device)
        cos, sin = table.between(old, old + (target - start))
        band = self.keys if layout.rotated == "keys" else self.values
        for layer in band:
            layer[:, target : target + count] = rotate(layer[:, target : target + count], cos, sin, layout.pairing)

    def _allocate(self, capacity: int) -> None:
        capacity = -(-capacity // GROWTH) * GROWTH
        s = self.shape
        self.keys = torch.empty(s.layers, s.key[0], capacity, s.key[1], dtype=s.dtype, device=s.device)
        self.values = torch.empty(s.layers, s.value[0], capacity, s.value[1], dtype=s.dtype, device=s.device)
