"""Identity of models: content decides, whatever names, sizes and dates say."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from leyline.models import identity
from leyline.models.find import ModelError
from leyline.models.identity import file_digest, folder_digest

LARGE = 20 * 2**20  # over what a reader of the beginning would look at


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEYLINE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "tokenizer.json").write_text("{}")
    (path / "model.safetensors").write_bytes(bytes(LARGE))
    _age(path / "model.safetensors")
    return path


def _age(file: Path, seconds: float = 3600.0) -> None:
    then = time.time() - seconds
    os.utime(file, (then, then))


def _change(file: Path, at: int) -> None:
    """Change one byte, and nothing that a folder's listing tells."""
    before = file.stat()
    with file.open("r+b") as stream:
        stream.seek(at)
        stream.write(b"\1")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("at", [0, 17 * 2**20, LARGE - 1])
def test_a_byte_anywhere_in_the_weights_makes_another_model(folder: Path, at: int) -> None:
    before = folder_digest(folder)
    assert folder_digest(folder) == before
    _change(folder / "model.safetensors", at)
    assert folder_digest(folder) != before


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_setting_of_the_same_length_makes_another_model(folder: Path, name: str) -> None:
    before = folder_digest(folder)
    (folder / name).write_text("[]")
    assert folder_digest(folder) != before


def test_what_the_model_does_not_read_makes_no_other_model(folder: Path) -> None:
    before = folder_digest(folder)
    (folder / "README.md").write_text("words")
    (folder / "gate.json").write_text("{}")
    (folder / "optimizer.state").write_text("x")
    assert folder_digest(folder) == before
    for name in ("chat_template.jinja", "model-2.safetensors", "tokenizer.model"):
        (folder / name).write_text("x")
        assert folder_digest(folder) != before
        (folder / name).unlink()
    assert folder_digest(folder) == before


def test_a_large_file_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real: Any = identity._chunks
    monkeypatch.setattr(identity, "_SETTLED", -1.0)  # its time of change is now, and cannot be set
    monkeypatch.setattr(identity, "_chunks", lambda file: [read.append(file.name), real(file)][1])
    first = folder_digest(folder)
    assert read.count("model.safetensors") == 1
    assert folder_digest(folder) == first
    assert read.count("model.safetensors") == 1
    assert read.count("config.json") == 2
    (entry,) = (folder.parent / "cache" / "digests").iterdir()
    entry.write_text('{"digest": "damaged')
    assert folder_digest(folder) == first
    assert read.count("model.safetensors") == 2


def test_a_file_that_changed_just_now_is_not_remembered(folder: Path) -> None:
    folder_digest(folder)
    assert not (folder.parent / "cache").exists()


def test_a_cache_that_cannot_be_written_is_done_without(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_SETTLED", -1.0)
    monkeypatch.setenv("LEYLINE_CACHE", str(folder / "config.json"))
    assert folder_digest(folder) == folder_digest(folder)


def test_a_file_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot read .*none"):
        file_digest(tmp_path / "none")
