"""Both architectures against transformers, and the files that they travel in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from leyline.backends.local.load import load_model
from training import checkpoint
from training.models import SHAPES, TinyLM, parameters, sdpa


def test_logits_equal_transformers(small_model: Path) -> None:
    reference = load_model(small_model, device="cpu", dtype="float32")
    mine = checkpoint.load_model(small_model)
    tokens = torch.randint(3, 4000, (2, 150), generator=torch.Generator().manual_seed(1))
    places = torch.arange(150)[None].expand(2, -1)
    with torch.no_grad():
        expected = reference(tokens).logits
        got = mine.logits(mine.hidden(tokens, places, sdpa(None)))
    assert torch.allclose(got, expected, atol=2e-4)


def test_shapes_survive_the_config(small_model: Path) -> None:
    model = checkpoint.load_model(small_model)
    assert model.shape.layers == 3
    assert model.shape.hidden == 96
    assert model.shape.positions == 2048


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_shipped_shapes_fit_the_budget(name: str) -> None:
    assert 14e6 < parameters(SHAPES[name]) < 16.5e6


def test_pieces_hold_all_weights(small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = checkpoint.load_model(small_model)
    monkeypatch.setattr(checkpoint, "PIECE", 200_000)
    paths = checkpoint.save_pieces(tmp_path, "m", model.state_dict(), torch.float32)
    assert len(paths) > 2
    again = TinyLM(model.shape)
    again.load_state_dict(checkpoint.load_pieces(tmp_path, "m"))
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))


def test_a_head_of_its_own_is_refused(small_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(small_model / "model.safetensors")
    weights["lm_head.weight"] = weights["lm_head.weight"] + 1
    (tmp_path / "config.json").write_bytes((small_model / "config.json").read_bytes())
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="not its embedding"):
        checkpoint.load_model(tmp_path)
