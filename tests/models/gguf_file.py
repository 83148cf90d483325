"""A small model of the Llama architecture as a GGUF file, written as llama.cpp lays it out."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np

HEADS, KV_HEADS, DIM, WIDTH, LAYERS, MLP = 4, 2, 8, 32, 2, 64
F32, F16, Q4_1, Q8_0 = 0, 1, 3, 8
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789 .,:{}<>_|/\"'\n"


def vocabulary() -> list[str]:
    """Control tokens, the byte alphabet of `LETTERS` as GPT-2 writes it, one merge."""
    letters = [{" ": "Ġ", "\n": "Ċ"}.get(c, c) for c in LETTERS]
    return ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *letters, "ab"]


def metadata() -> dict[str, object]:
    tokens = vocabulary()
    return {
        "general.architecture": "llama",
        "llama.block_count": LAYERS,
        "llama.context_length": 512,
        "llama.embedding_length": WIDTH,
        "llama.feed_forward_length": MLP,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.rope.freq_base": 10000.0,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3, 3, *([1] * (len(tokens) - 3))],
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": 2,
    }


def quantised(values: np.ndarray, kind: int) -> tuple[bytes, np.ndarray]:
    """The bytes of a type of ggml, and the values that they stand for. values: fp32, rows of a multiple of 32."""
    if kind in (F32, F16):
        raw = values.astype("<f4" if kind == F32 else "<f2")
        return raw.tobytes(), raw.astype(np.float32)
    data, meant = b"", []
    for block in values.reshape(-1, 32):
        if kind == Q8_0:
            scale = np.float16(abs(block).max() / 127)
            steps = np.round(block / np.float32(scale)).astype(np.int8)
            data += scale.tobytes() + steps.tobytes()
            meant.append(np.float32(scale) * steps.astype(np.float32))
        else:
            least = np.float16(block.min())
            scale = np.float16((block.max() - block.min()) / 15)
            nibbles = np.clip(np.round((block - np.float32(least)) / np.float32(scale)), 0, 15).astype(np.uint8)
            data += scale.tobytes() + least.tobytes() + (nibbles[:16] | (nibbles[16:] << 4)).tobytes()
            meant.append(np.float32(scale) * nibbles.astype(np.float32) + np.float32(least))
    return data, np.stack(meant).reshape(values.shape)


def write(path: Path, *, changed: dict[str, object] | None = None, head: bool = False) -> dict[str, np.ndarray]:
    """Write the file; returns what each tensor means, by name. changed: metadata, None leaves one out."""
    random = np.random.default_rng(7)
    rows = {"attn_q": HEADS * DIM, "attn_k": KV_HEADS * DIM, "attn_v": KV_HEADS * DIM, "attn_output": WIDTH}
    shapes: dict[str, tuple[tuple[int, ...], int]] = {"token_embd.weight": ((len(vocabulary()), WIDTH), Q8_0)}
    for layer in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            shapes[f"blk.{layer}.{name}.weight"] = ((WIDTH,), F32)
        for name, count in rows.items():
            shapes[f"blk.{layer}.{name}.weight"] = ((count, WIDTH), Q4_1)
        for name in ("ffn_gate", "ffn_up"):
            shapes[f"blk.{layer}.{name}.weight"] = ((MLP, WIDTH), Q4_1)
        shapes[f"blk.{layer}.ffn_down.weight"] = ((WIDTH, MLP), F16)
    shapes["output_norm.weight"] = ((WIDTH,), F32)
    if head:
        shapes["output.weight"] = ((len(vocabulary()), WIDTH), Q8_0)
    entries = {k: v for k, v in {**metadata(), **(changed or {})}.items() if v is not None}
    out = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(entries))
    for key, value in entries.items():
        out += _text(key) + _value(value)
    meant, data = {}, b""
    for name, (shape, kind) in shapes.items():
        raw, meant[name] = quantised(random.normal(0, 0.4, shape).astype(np.float32), kind)
        out += _text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape[::-1])
        out += struct.pack("<IQ", kind, len(data))
        data += raw + bytes(-len(raw) % 32)
    path.write_bytes(out + bytes(-len(out) % 32) + data)
    return meant


def in_pairs(values: np.ndarray, heads: int) -> np.ndarray:
    """As llama.cpp's converter permutes a projection of transformers': two halves of a head to pairs side by side."""
    rows, columns = values.shape
    return values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(math.prod((rows,)), columns)


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: object) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    assert isinstance(value, list)
    if isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_text, value))
    return struct.pack("<IIQ", 9, 5, len(value)) + struct.pack(f"<{len(value)}i", *value)
