"""Copying and rotating KV, against a float64 rotation by a constant angle."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from leyline.backends.sglang.plugin.move_counts import Generations
from leyline.backends.sglang.plugin.mover import Mover
from leyline.backends.sglang.plugin.rope import Rope

POSITIONS, WIDTH, MAGNITUDE = 4096, 16, 1.3
ANGLES = 1.0 / 10000.0 ** (torch.arange(0, WIDTH, 2, dtype=torch.float64) / WIDTH)


def table(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A cos/sin table as a model holds it, with a YaRN magnitude in it."""
    phase = torch.arange(POSITIONS, dtype=torch.float64)[:, None] * ANGLES
    return (MAGNITUDE * torch.cat([phase.cos(), phase.sin()], -1)).to(dtype)


def rotated(keys: torch.Tensor, positions: torch.Tensor, neox: bool, magnitude: float = 1.0) -> torch.Tensor:
    """`keys` `(tokens, heads, width)` rotated to `positions`, in float64."""
    phase = positions.double()[:, None, None] * ANGLES
    cos, sin = phase.cos() * magnitude, phase.sin() * magnitude
    out = torch.empty_like(keys)
    first, second = (slice(0, WIDTH // 2), slice(WIDTH // 2, None)) if neox else (slice(0, None, 2), slice(1, None, 2))
    a, b = keys[..., first], keys[..., second]
    out[..., first], out[..., second] = a * cos - b * sin, b * cos + a * sin
    return out


def rope(neox: bool, dtype: torch.dtype = torch.float32) -> Rope:
    return Rope(SimpleNamespace(is_neox_style=neox, rotary_dim=WIDTH, cos_sin_cache=table(dtype)))


@pytest.mark.parametrize("neox", [True, False])
@pytest.mark.parametrize(("old", "new"), [(0, 1), (700, 3), (3000, 4000), (5, 5)])
def test_a_moved_key_is_the_key_of_its_new_position(neox: bool, old: int, new: int) -> None:
    torch.manual_seed(0)
    raw = torch.randn(64, 2, WIDTH, dtype=torch.float64)
    steps = torch.arange(64)
    stored = rotated(raw, steps + old, neox, MAGNITUDE).float()
    wanted = rotated(raw, steps + new, neox, MAGNITUDE)
    moved = rope(neox).between(steps + old, steps + new).apply(stored)
    assert (moved.double() - wanted).abs().max() < 5e-6
    assert math.isclose(float(moved.norm()), float(stored.norm()), rel_tol=1e-5)


def test_in_bf16_a_move_rounds_once() -> None:
    torch.manual_seed(0)
    raw, steps = torch.randn(256, 2, WIDTH, dtype=torch.float64), torch.arange(256)
    stored = rotated(raw, steps + 900, True).to(torch.bfloat16)
    wanted = rotated(stored.double(), torch.full((256,), -37), True)
    moved = rope(True).between(steps + 900, steps + 863).apply(stored)
    assert moved.dtype is torch.bfloat16
    assert (moved.double() - wanted).abs().max() <= wanted.abs().max() * 2**-8


class Pool:
    """A KV pool as SGLang shapes it: `(slots, heads, width)` a layer."""

    def __init__(self, latent: int | None) -> None:
        generator = torch.Generator().manual_seed(1)
        if latent is None:
            self.k_buffer = [torch.randn(99, 2, WIDTH + 4, generator=generator) for _ in range(3)]
            self.v_buffer = [torch.randn(99, 2, 11, generator=generator) for _ in range(3)]
        else:
            self.kv_lora_rank = latent
            self.kv_buffer = [torch.randn(99, 1, latent + WIDTH, generator=generator) for _ in range(3)]

    def buffers(self) -> list[torch.Tensor]:
        data: dict[str, Any] = vars(self)
        return [buffer for name in ("k_buffer", "v_buffer", "kv_buffer") for buffer in data.get(name, [])]


@pytest.mark.parametrize("latent", [None, 24])
def test_moving_copies_values_and_rotates_only_the_rotary_part_of_keys(latent: int | None) -> None:
    pool = Pool(latent)
    before = [buffer.clone() for buffer in pool.buffers()]
    source, target = torch.tensor([5, 9, 6, 40]), torch.tensor([70, 3, 71, 72])
    waited = []
    Mover(pool, rope(latent is None), lambda: waited.append(True))(source, target, 50, 20)
    assert waited == [True]
    steps = torch.arange(4)
    for index, (old, new) in enumerate(zip(before, pool.buffers(), strict=True)):
        untouched = torch.ones(99, dtype=torch.bool)
        untouched[target] = False
        assert torch.equal(old[untouched], new[untouched])
        if latent is None and index >= 3:
            assert torch.equal(new[target], old[source])
            continue
        start = latent or 0
        assert torch.equal(new[target][..., :start], old[source][..., :start])
        assert torch.equal(new[target][..., start + WIDTH :], old[source][..., start + WIDTH :])
        key = old[source][..., start : start + WIDTH].double()
        plain = rotated(key, -(steps + 50), latent is None)
        wanted = rotated(plain, steps + 20, latent is None)
        assert (new[target][..., start : start + WIDTH].double() - wanted).abs().max() < 1e-5


def test_a_position_behind_the_table_is_an_error_before_anything_is_copied() -> None:
    pool = Pool(None)
    before = [buffer.clone() for buffer in pool.buffers()]
    with pytest.raises(IndexError):
        Mover(pool, rope(True), lambda: None)(torch.tensor([1, 2]), torch.tensor([3, 4]), 0, POSITIONS - 1)
    assert all(torch.equal(a, b) for a, b in zip(before, pool.buffers(), strict=True))


def test_moves_are_counted_behind_a_lineages_mark() -> None:
    counts = Generations(20, "cpu", limit=2)
    a, b, c, d = (torch.arange(start, start + 4) for start in (0, 4, 8, 12))
    assert counts.allowed(a, honest=4) == 4
    counts.moved(a, b, honest=4)
    counts.moved(b, c, honest=0)
    assert counts.allowed(c, honest=0) == 0
    assert counts.allowed(c, honest=3) == 3
    assert counts.allowed(c, honest=9) == 4
    counts.reset(c[2:])
    assert counts.allowed(c[2:], honest=0) == 2
    counts.moved(c, d, honest=1)
    assert counts.allowed(d, honest=0) == 1
