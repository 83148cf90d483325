"""Copying and rotating KV, against a float64 rotation by a constant angle."""

from __future__ import annotations

import math
from array import array
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from leyline.backends.sglang.plugin.move_counts import Bounds, Generations
from leyline.backends.sglang.plugin.mover import Tokens, TorchMover
from leyline.backends.sglang.plugin.rope import Rope
from leyline.backends.sglang.plugin.runs import Run
from leyline.backends.sglang.plugin.staging import Move
from leyline.backends.sglang.settings import move_limit
from leyline.directives import LeylineError

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
    steps = torch.arange(4)
    TorchMover(pool, rope(latent is None))(Tokens(source, target, steps + 50, steps + 20))
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


def test_moves_are_counted_behind_a_lineages_mark() -> None:
    counts = Generations(20, "cpu", limit=2)
    a, b, c, d = (torch.arange(start, start + 4) for start in (0, 4, 8, 12))
    moves = [Move(Run(10, 14, 10, 0), 10, 14)]

    def allowed(slots: torch.Tensor, honest: int) -> tuple[int, int]:
        (move,), most = counts.allowed(moves, slots, honest)
        return move.end - move.start, most

    def moved(source: torch.Tensor, target: torch.Tensor, honest: int) -> None:
        counts.moved(source, target, torch.arange(4) < honest)

    counts.reset(torch.arange(20))
    assert allowed(a, honest=4) == (4, 0)
    moved(a, b, honest=4)
    moved(b, c, honest=0)
    assert allowed(c, honest=0) == (0, 0)
    assert allowed(c, honest=3) == (3, 0)
    assert allowed(c, honest=9) == (4, 0)
    counts.reset(c[2:])
    assert allowed(c, honest=2) == (4, 0)
    moved(c, d, honest=1)
    assert allowed(d, honest=0) == (1, 1)


def test_a_bound_belongs_to_a_path() -> None:
    bounds = Bounds(limit=9)
    path, other = array("q", range(100)), array("q", [*range(60), *range(200, 240)])
    assert bounds.of(b"root", path) == 9, "nothing is known of it"
    bounds.note(b"root", path, 80, 1)
    bounds.note(b"root", other, 90, 5)
    assert bounds.of(b"root", array("q", [*path, 7, 8])) == 1
    assert bounds.of(b"root", other) == 5
    assert bounds.of(b"root", array("q", range(300, 400))) == 5, "an unknown path of a known lineage"
    bounds.note(b"root", array("q", [*range(1, 41), *path[40:]]), 80, 3)
    assert bounds.of(b"root", path) == 3, "paths that cannot be told apart share the larger bound"
    assert bounds.of(b"another", path) == 9


@pytest.mark.parametrize("text", ["256", "-1", "many", "", "3.5", "9" * 30])
def test_a_limit_that_cannot_be_counted_is_an_error_in_one_line(text: str) -> None:
    with pytest.raises(LeylineError, match="whole number from 0 to 255") as error:
        move_limit({"LEYLINE_MAX_GENERATIONS": text})
    assert "\n" not in str(error.value)


def test_a_counter_holds_the_largest_limit() -> None:
    counts = Generations(3, "cpu", move_limit({"LEYLINE_MAX_GENERATIONS": "255"}))
    slot, honest = torch.tensor([1]), torch.tensor([False])
    for _ in range(255):
        counts.moved(slot, slot, honest)
    (move,), _ = counts.allowed([Move(Run(0, 1, 0, 0), 0, 1)], slot, 0)
    assert move.end == move.start
