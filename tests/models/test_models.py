"""The bundled models: expanded once, checked by hash, loadable, small enough."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from leyline import models
from leyline.models.pack import PackError, expand, read_pack

SHIPPED = Path(models.__file__).parent


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LEYLINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Path:
    """A tree of bundled models of our own: one small model, packed by the training code's format."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    source = tmp_path / "source"
    source.mkdir()
    generator = torch.Generator().manual_seed(1)
    embedding = torch.randn(32, 8, generator=generator)
    save_file(
        {
            "model.embed_tokens.weight": embedding,
            "lm_head.weight": embedding.clone(),
            "model.norm.weight": torch.ones(8),
            "model.layers.0.mlp.up_proj.weight": torch.randn(16, 8, generator=generator),
        },
        source / "model.safetensors",
    )
    (source / "config.json").write_text("{}")
    pack_weights = _load_packer()
    tree = tmp_path / "models"
    pack_weights.pack(source, tree / "toy", 0.07)
    (tree / "shared").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tree / "shared" / name).write_text("x")
    monkeypatch.setattr(models, "_SHIPPED", tree)
    return tree


def _load_packer():  # type: ignore[no-untyped-def]
    import importlib.util

    path = Path(__file__).resolve().parents[2] / "training" / "pack_weights.py"
    spec = importlib.util.spec_from_file_location("pack_weights", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_expanding_is_close_and_writes_the_head(shipped: Path) -> None:
    from safetensors.torch import load_file

    folder = models.resolve("toy")
    tensors = load_file(folder / "model.safetensors")
    original = load_file(shipped.parent / "source" / "model.safetensors")
    assert tensors.keys() == original.keys()
    for name, tensor in tensors.items():
        error = (tensor.float() - original[name]).norm() / original[name].norm()
        assert error < 0.03, name
    assert (tensors["lm_head.weight"] == tensors["model.embed_tokens.weight"]).all()


def test_second_call_only_looks(shipped: Path) -> None:
    folder = models.resolve("toy")
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert models.resolve("toy") == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_many_at_once_get_one_folder(shipped: Path) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(models.resolve("toy"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert len(set(found)) == 1
    assert [p.name for p in found[0].parent.iterdir()] == [found[0].name]


def test_a_half_written_folder_is_replaced(shipped: Path) -> None:
    folder = models.resolve("toy")
    (folder / "complete").unlink()
    (folder / "model.safetensors").write_bytes(b"half")
    assert models.resolve("toy") == folder
    assert (folder / "model.safetensors").stat().st_size > 100


def test_damage_is_found(shipped: Path) -> None:
    weights = shipped / "toy" / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(PackError, match="does not match its recorded hash; reinstall"):
        models.resolve("toy")
    with pytest.raises(PackError, match="cannot read the weights"):
        read_pack(weights)


def test_another_file_is_refused(tmp_path: Path) -> None:
    import struct
    import zlib

    header = json.dumps({"__metadata__": {"format": "other"}}).encode()
    (tmp_path / "w.bin").write_bytes(zlib.compress(struct.pack("<Q", len(header)) + header))
    with pytest.raises(PackError, match="is not a leyline-int8-rows/2 file"):
        expand(tmp_path / "w.bin", tmp_path / "out")


def test_unwritable_cache_says_what_to_do(shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LEYLINE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(PackError, match="set LEYLINE_CACHE"):
        models.resolve("toy")


def test_unknown_name_suggests_one() -> None:
    with pytest.raises(models.ModelNotFoundError, match="did you mean tiny-mla"):
        models.resolve("tiny-mlo")


@pytest.mark.parametrize("name", models.names())
def test_a_bundled_model_loads_and_can_be_spliced(name: str, cache: Path) -> None:
    pytest.importorskip("transformers")
    from leyline.backends.local.backend import LocalBackend

    backend = LocalBackend(models.resolve(name))
    able = backend.capabilities()
    assert able.splice, able.reason
    assert able.max_context == 8192
    backend.close()


def test_together_they_are_small() -> None:
    total = sum(p.stat().st_size for p in SHIPPED.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc"))
    assert total <= 24_000_000
