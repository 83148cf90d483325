"""The compact weight file: int8 rows with fp16 scales, entropy coded, expanded to bf16 safetensors without torch.

Layout: a zlib stream of a safetensors file with, for each matrix `name`, int8 (rows, columns) and `name:scale` fp16
(rows,); vectors in fp16. weight[r, c] = q[r, c] * scale[r], rounded to bf16 (nearest, ties to even). A head that equals
the embedding is not stored. The output is byte-reproducible.

The step of a row is a fixed share of its RMS, far coarser than its largest weight would need, and Huffman coding takes
the bits that the rare large values do not use: at 6 bits a weight this rounds 40 % finer than 6-bit integers would.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from leyline.directives import JsonObject, LeylineError

FORMAT = "leyline-int8-rows/2"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


class PackError(LeylineError):
    """A shipped weight file is damaged or not in the expected format."""


def read_pack(path: Path) -> tuple[dict[str, JsonObject], memoryview]:
    """Header entries by tensor name, and the data section of a packed file."""
    try:
        blob = zlib.decompress(path.read_bytes())
        (size,) = struct.unpack("<Q", blob[:8])
        header = json.loads(blob[8 : 8 + size])
    except (OSError, struct.error, ValueError, zlib.error) as error:
        raise PackError(f"cannot read the weights at {path}: {error}; reinstall leyline-kv") from error
    if header.pop("__metadata__", {}).get("format") != FORMAT:
        raise PackError(f"{path} is not a {FORMAT} file; reinstall leyline-kv")
    return header, memoryview(blob)[8 + size :]


def expand(source: Path, target: Path) -> None:
    """Write the bf16 safetensors file that transformers and SGLang load. Needs numpy."""
    import numpy as np

    header, data = read_pack(source)

    def array(name: str) -> Any:
        kinds = {"I8": np.int8, "F16": np.float16}
        entry = header[name]
        begin, end = entry["data_offsets"]
        return np.frombuffer(data[begin:end], dtype=kinds[entry["dtype"]]).reshape(entry["shape"])

    tensors: dict[str, bytes] = {}
    shapes: dict[str, list[int]] = {}
    for name in sorted(n for n in header if not n.endswith(":scale")):
        values = array(name).astype(np.float32)
        if name + ":scale" in header:
            values = values * array(name + ":scale").astype(np.float32)[:, None]
        bits = values.view(np.uint32)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        tensors[name], shapes[name] = rounded.astype("<u2").tobytes(), header[name]["shape"]
    if HEAD not in tensors:
        tensors[HEAD], shapes[HEAD] = tensors[EMBEDDING], shapes[EMBEDDING]
    write_safetensors(target, {name: Tensor("BF16", shapes[name], raw) for name, raw in tensors.items()})


class Tensor(NamedTuple):
    """A tensor of a safetensors file: its type's name there, its shape and its bytes, or what makes them."""

    dtype: str
    shape: list[int]
    data: bytes | Callable[[], bytes]

    @property
    def size(self) -> int:
        """How many bytes it has. Every type that is written here has two a value."""
        return 2 * math.prod(self.shape)


def write_safetensors(target: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, the tensors in the order given."""
    entries: JsonObject = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        span = [offset, offset + tensor.size]
        entries[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": span}
        offset += tensor.size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with target.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(tensor.data if isinstance(tensor.data, bytes) else tensor.data())
