"""What a model is: a digest of the content of its files. Large files are read once and remembered."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from leyline.models.find import ModelError

_LARGE = 1 << 20  # bytes; reading less costs no more than looking into the cache
_CHUNK = 1 << 22
_SETTLED = 2.0  # seconds; within them a file may change again under the same time stamp
# What decides which tokens a model reads and says; not what people read, nor what training left.
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf")
_SETTINGS = (
    *("config.json", "generation_config.json", "adapter_config.json", "*.index.json", "*.py"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "*.model", "*.tiktoken", "*.jinja", "additional_chat_templates/*.jinja"),
)


def folder_digest(folder: str | os.PathLike[str], files: Sequence[Path] | None = None) -> str:
    """Thirty-two hex digits over name and content of every file that decides what the model reads and says.

    files: of the folder, instead of `model_files`. Large files are hashed once: their digests are kept in the cache
    folder, by path, size and time of change. Raises ModelError for a file that cannot be read.
    """
    path = Path(folder)
    state = hashlib.blake2b(digest_size=16)
    for file in model_files(path) if files is None else files:
        state.update(f"{file.relative_to(path).as_posix()}\0{file_digest(file)}\n".encode())
    return state.hexdigest()


def model_files(folder: Path) -> list[Path]:
    """The files of a model folder that `folder_digest` covers, by name."""
    return sorted({file for pattern in (*_SETTINGS, *_WEIGHTS) for file in folder.glob(pattern) if file.is_file()})


def weight_files(folder: Path) -> list[Path]:
    """The files of a model folder that hold weights, by name."""
    return sorted({file for pattern in _WEIGHTS for file in folder.glob(pattern) if file.is_file()})


def file_digest(file: Path) -> str:
    """Thirty-two hex digits over the whole content of a file. Raises ModelError."""
    try:
        before = _stamp(file)
        if before["size"] < _LARGE:
            return _hash(file)
        known = _remembered(file, before)
        if known is not None:
            return known
        digest = _hash(file)
        if _stamp(file) == before:
            _remember(file, before, digest)
        return digest
    except OSError as error:
        raise ModelError(f"cannot read {file}: {error.strerror or error}") from None


def _stamp(file: Path) -> dict[str, int]:
    # The time of the inode's change, too: a tool that copies a file with its time of modification does not set it.
    found = file.stat()
    return {"size": found.st_size, "mtime": found.st_mtime_ns, "ctime": found.st_ctime_ns, "inode": found.st_ino}


def _hash(file: Path) -> str:
    state = hashlib.blake2b(digest_size=16)
    for chunk in _chunks(file):
        state.update(chunk)
    return state.hexdigest()


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk


def _entry(file: Path) -> Path:
    from leyline.models import cache_dir

    name = hashlib.blake2b(str(file.resolve()).encode(errors="surrogateescape"), digest_size=16).hexdigest()
    return cache_dir() / "digests" / f"{name}.json"


def _remembered(file: Path, stamp: dict[str, int]) -> str | None:
    try:
        known = json.loads(_entry(file).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(known, dict) or any(known.get(name) != value for name, value in stamp.items()):
        return None
    digest = known.get("digest")
    return digest if isinstance(digest, str) and len(digest) == 32 else None


def _remember(file: Path, stamp: dict[str, int], digest: str) -> None:
    """Keep a digest; without a cache folder that can be written the file is read again next time."""
    if time.time() - max(stamp["mtime"], stamp["ctime"]) / 1e9 < _SETTLED:
        return
    entry = _entry(file)
    with contextlib.suppress(OSError):
        entry.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(dir=entry.parent, prefix=entry.name)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump({"path": str(file.resolve()), **stamp, "digest": digest}, stream)
        Path(scratch).replace(entry)
