"""Moved keys against the formula in float64, for every layout and table; without rotation the tests must fail."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the local backend needs torch")

from leyline.backends.local.families import KvLayout  # noqa: E402
from leyline.backends.local.kv import KvShape, SequenceKV  # noqa: E402
from leyline.backends.local.rotary import RotaryTable, rotate  # noqa: E402

DIM, LAYERS, COUNT = 32, 2, 40
TOLERANCE = 1e-5
MOVES = [(60, 12), (12, 60), (3000, 1), (0, 3900), (1, 0)]
LAYOUTS = [
    (attention, pairing, rope)
    for attention in ("mla", "gqa")
    for pairing in ("interleaved", "half")
    for rope in ("plain", "linear", "yarn")
]


def table(reference: Any, rope: str) -> tuple[RotaryTable, Any]:
    """transformers' own rotary module for a table, and `angles(positions)` of the reference for it."""
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    heads = {"hidden_size": 2 * DIM, "num_attention_heads": 2, "head_dim": DIM, "max_position_embeddings": 4096}
    module = LlamaRotaryEmbedding(LlamaConfig(**heads, rope_parameters=dict(reference.ropes[rope])))

    def angles(positions: range) -> tuple[np.ndarray, float]:
        found: tuple[np.ndarray, float] = reference.angles(
            reference.ropes[rope], DIM, positions, module.inv_freq.numpy()
        )
        return found

    return RotaryTable(module, torch.device("cpu")), angles


def filled(reference: Any, layout: KvLayout, rope: str, start: int, dtype: Any) -> tuple[SequenceKV, np.ndarray]:
    """A sequence whose rows from `start` on are rotated keys as a prefill there makes them, and the bare keys."""
    rng = np.random.default_rng(start)
    heads = 1 if layout.attention == "mla" else 3
    rotated, other = (heads, DIM), (heads, 24)
    shape = {"key": rotated, "value": other} if layout.rotated == "keys" else {"key": other, "value": rotated}
    kv = SequenceKV(KvShape(LAYERS, **shape, dtype=dtype, device=torch.device("cpu")), start + COUNT)
    kv.keys.normal_()
    kv.values.normal_()
    bare = rng.normal(size=(LAYERS, heads, COUNT, DIM))
    angle, magnitude = table(reference, rope)[1](range(start, start + COUNT))
    band = kv.keys if layout.rotated == "keys" else kv.values
    at_start = magnitude * reference.turn(bare, angle, layout.pairing == "interleaved")
    band[:, :, start : start + COUNT] = torch.from_numpy(at_start).to(dtype)
    kv.length = start + COUNT
    return kv, bare


def moved(
    reference: Any, attention: str, pairing: str, rope: str, move: tuple[int, int], dtype: Any = None
) -> SimpleNamespace:
    """Splice rows from one position to another. Returns ours, the float64 truth, and the other tensor twice."""
    dtype = dtype or torch.float32
    layout = KvLayout(attention, pairing, "values" if attention == "mla" else "keys", DIM)  # type: ignore[arg-type]
    start, target = move
    source, bare = filled(reference, layout, rope, start, dtype)
    rows, angles = table(reference, rope)
    out = SequenceKV(source.shape, target + COUNT)
    out.length = target
    out.splice(source, start, COUNT, layout, rows)
    band, rest = (out.keys, out.values) if layout.rotated == "keys" else (out.values, out.keys)
    old = source.values if layout.rotated == "keys" else source.keys
    angle, magnitude = angles(range(target, target + COUNT))
    truth = magnitude * reference.turn(bare, angle, pairing == "interleaved")
    return SimpleNamespace(
        ours=band[:, :, target : target + COUNT].double().numpy(),
        truth=truth,
        carried=rest[:, :, target : target + COUNT],
        before=old[:, :, start : start + COUNT],
    )


@pytest.mark.parametrize("move", MOVES, ids=lambda m: f"{m[0]}to{m[1]}")
@pytest.mark.parametrize(("attention", "pairing", "rope"), LAYOUTS)
def test_moved_keys_are_those_of_a_prefill_there(
    reference: Any, attention: str, pairing: str, rope: str, move: tuple[int, int]
) -> None:
    got = moved(reference, attention, pairing, rope, move)
    assert np.abs(got.ours - got.truth).max() < TOLERANCE * np.abs(got.truth).max()
    assert torch.equal(got.carried, got.before), "the latent or the values must be carried over bit for bit"


@pytest.mark.parametrize(("attention", "pairing", "rope"), LAYOUTS)
def test_without_rotation_it_is_far_off(
    reference: Any, monkeypatch: pytest.MonkeyPatch, attention: str, pairing: str, rope: str
) -> None:
    monkeypatch.setattr("leyline.backends.local.kv.rotate", lambda x, *_: x)
    got = moved(reference, attention, pairing, rope, MOVES[0])
    assert np.abs(got.ours - got.truth).max() > 10_000 * TOLERANCE * np.abs(got.truth).max()


@pytest.mark.parametrize("pairing", ["interleaved", "half"])
def test_the_other_pairing_is_far_off(reference: Any, pairing: str) -> None:
    rows, _ = table(reference, "plain")
    x = torch.randn(COUNT, DIM, generator=torch.Generator().manual_seed(0))
    cos, sin = rows.between(torch.arange(COUNT), torch.arange(COUNT) + 31)
    right, wrong = rotate(x, cos, sin, "interleaved"), rotate(x, cos, sin, "half")
    assert (right - wrong).abs().max() > 10_000 * TOLERANCE * x.abs().max()


def test_the_magnitude_of_yarn_is_not_applied_twice(reference: Any) -> None:
    rows, angles = table(reference, "yarn")
    _, magnitude = angles(range(1))
    assert magnitude > 1.1
    x = torch.randn(COUNT, DIM, generator=torch.Generator().manual_seed(1))
    turned = rotate(x, *rows.between(torch.arange(COUNT), torch.arange(COUNT) + 100), "half")
    assert torch.allclose(turned.norm(dim=-1), x.norm(dim=-1), rtol=1e-5)


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_half_precision_is_rounded_once(reference: Any, name: str) -> None:
    dtype = getattr(torch, name)
    got = moved(reference, "gqa", "half", "yarn", (60, 12), dtype)
    # the stored key was rounded once, the moved one once more, each by at most half a unit in the last place
    assert np.abs(got.ours - got.truth).max() <= 2 * torch.finfo(dtype).eps * np.abs(got.truth).max()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 4000), st.integers(0, 4000), st.integers(0, 4000), st.sampled_from(["interleaved", "half"]))
def test_two_moves_are_one(a: int, b: int, c: int, pairing: Any) -> None:
    rows, _ = table(REFERENCE, "yarn")
    x = torch.randn(3, DIM, generator=torch.Generator().manual_seed(a))

    def step(value: Any, old: int, new: int) -> Any:
        return rotate(value, *rows.between(torch.full((3,), old), torch.full((3,), new)), pairing)

    assert torch.allclose(step(step(x, a, b), b, c), step(x, a, c), atol=1e-5)
    assert torch.allclose(step(step(x, a, b), b, a), x, atol=1e-5)


REFERENCE = SimpleNamespace()


@pytest.fixture(autouse=True)
def _reference(reference: Any) -> None:
    """Hypothesis calls a test many times over one set of fixtures; the tables are the same for all."""
    REFERENCE.__dict__.update(vars(reference))
