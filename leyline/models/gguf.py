"""Reading a GGUF file, format 3: metadata by key, tensors by name, the quantisations Q4_1 and Q8_0.

The layout is llama.cpp's, `docs/gguf.md` of ggml: little-endian; a header, the metadata, the tensors' descriptions, and
behind them, aligned, the data. Shapes are written with the fastest dimension first.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from leyline.models.pack import PackError

if TYPE_CHECKING:
    from numpy import ndarray

_MAGIC, _VERSION = b"GGUF", 3
_NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_TEXT, _LIST = 8, 9
_F32, _F16, _Q4_1, _Q8_0 = 0, 1, 3, 8
_BLOCK = 32  # values of a quantised block
_BLOCK_BYTES = {_F32: 4 * _BLOCK, _F16: 2 * _BLOCK, _Q4_1: 20, _Q8_0: 34}
_ALIGNMENT = 32


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor of a file. shape: slowest dimension first; start: of its data, in bytes from the file's beginning."""

    file: Path
    name: str
    shape: tuple[int, ...]
    kind: int
    start: int

    def values(self) -> ndarray:
        """Its values in fp32, of its shape."""
        import numpy as np

        size = math.prod(self.shape) * _BLOCK_BYTES[self.kind] // _BLOCK
        with self.file.open("rb") as stream:
            stream.seek(self.start)
            raw = stream.read(size)
        if len(raw) != size:
            raise PackError(f"{self.file} ends within the tensor {self.name}")
        if self.kind in (_F32, _F16):
            return np.frombuffer(raw, "<f4" if self.kind == _F32 else "<f2").astype(np.float32).reshape(self.shape)
        blocks = np.frombuffer(raw, np.uint8).reshape(-1, _BLOCK_BYTES[self.kind])
        scale = blocks[:, :2].copy().view("<f2").astype(np.float32)
        if self.kind == _Q8_0:
            return (scale * blocks[:, 2:].view(np.int8).astype(np.float32)).reshape(self.shape)
        least = blocks[:, 2:4].copy().view("<f2").astype(np.float32)
        steps = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1).astype(np.float32)
        return (scale * steps + least).reshape(self.shape)


class GgufFile:
    """A file's metadata and the description of its tensors; data is read when it is asked for.

    Raises PackError for what is no such file, and for a tensor of a type that is not known here.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._at = 0  # bytes read so far
        try:
            with path.open("rb") as self._stream:
                self.metadata, self.tensors = self._parse()
        except (OSError, struct.error, UnicodeDecodeError, MemoryError, OverflowError, RecursionError) as error:
            raise PackError(f"{path} is no GGUF file that can be read: {error}") from None

    def text(self, key: str) -> str:
        """A value of the metadata as text. Raises PackError where there is none."""
        return str(self._get(key))

    def number(self, key: str) -> int:
        """A whole number of the metadata. Raises PackError."""
        found = self._get(key)
        if not isinstance(found, int):
            raise PackError(f"{self.path} says {found!r} for {key}, which is no whole number")
        return found

    def real(self, key: str) -> float:
        """A number of the metadata. Raises PackError."""
        found = self._get(key)
        if not isinstance(found, int | float):
            raise PackError(f"{self.path} says {found!r} for {key}, which is no number")
        return float(found)

    def strings(self, key: str) -> list[str]:
        """A list of the metadata, its items as text. Raises PackError."""
        found = self._get(key)
        return [str(item) for item in found] if isinstance(found, list) else []

    def _get(self, key: str) -> object:
        if key not in self.metadata:
            raise PackError(f"{self.path} does not say {key}, so it cannot be converted")
        return self.metadata[key]

    def _parse(self) -> tuple[dict[str, object], list[GgufTensor]]:
        if self._take(4) != _MAGIC or self._number("<I") != _VERSION:
            raise PackError(f"{self.path} is no GGUF file of version {_VERSION}")
        tensors, entries = self._number("<Q"), self._number("<Q")
        metadata = {}
        for _ in range(entries):
            key = self._string()
            metadata[key] = self._value(self._number("<I"))
        described = []
        for _ in range(tensors):
            name = self._string()
            shape = tuple(self._number("<Q") for _ in range(self._number("<I")))[::-1]
            kind, offset = self._number("<I"), self._number("<Q")
            if kind not in _BLOCK_BYTES:
                raise PackError(f"{self.path}: the tensor {name} is of ggml's type {kind}, which is not read here")
            described.append((name, shape, kind, offset))
        alignment = metadata.get("general.alignment", _ALIGNMENT)
        step = alignment if isinstance(alignment, int) and alignment > 0 else _ALIGNMENT
        data = -(-self._at // step) * step
        return metadata, [GgufTensor(self.path, name, s, kind, data + offset) for name, s, kind, offset in described]

    def _value(self, kind: int) -> object:
        if kind == _TEXT:
            return self._string()
        if kind == _LIST:
            inner, count = self._number("<I"), self._number("<Q")
            return [self._value(inner) for _ in range(count)]
        if kind not in _NUMBERS:
            raise PackError(f"{self.path} holds metadata of a type {kind} that is not known")
        found: object = struct.unpack(_NUMBERS[kind], self._take(struct.calcsize(_NUMBERS[kind])))[0]
        return found

    def _string(self) -> str:
        return self._take(self._number("<Q")).decode("utf-8")

    def _number(self, form: str) -> int:
        return int(struct.unpack(form, self._take(struct.calcsize(form)))[0])

    def _take(self, count: int) -> bytes:
        taken = self._stream.read(count)
        self._at += len(taken)
        if len(taken) != count:
            raise PackError(f"{self.path} is no GGUF file that can be read: it ends too early")
        return taken
