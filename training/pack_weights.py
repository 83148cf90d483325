"""Pack a Hugging Face checkpoint into one small file, in the format of `leyline.models.pack`.

    python -m training.pack_weights CHECKPOINT_FOLDER leyline/models/NAME --step 0.07

--step is the rounding step of a row as a share of the row's RMS; smaller is finer and larger. A head equal to the
embedding is not stored.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import zlib
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from leyline.models.pack import EMBEDDING, FORMAT, HEAD, expand

STEP = 0.07


def quantise(weight: torch.Tensor, step: float = STEP) -> tuple[torch.Tensor, torch.Tensor]:
    """int8 (rows, columns) and fp16 scales (rows,) of a matrix; a row with an outlier gets the step that reaches it."""
    w = weight.float()
    scale = torch.maximum(w.square().mean(1).sqrt() * step, w.abs().amax(1) / 127).clamp_min(1e-7).half()
    return (w / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8), scale


def deflate(blob: bytes) -> bytes:
    """Huffman coding alone: weights hold no repetition that a search could find."""
    coder = zlib.compressobj(9, zlib.DEFLATED, 15, 9, zlib.Z_HUFFMAN_ONLY)
    return coder.compress(blob) + coder.flush()


def pack(source: Path, target: Path, step: float = STEP) -> dict[str, object]:
    """Write `target/weights.bin`, the config and the manifest; returns the manifest."""
    tensors = load_file(source / "model.safetensors")
    if HEAD in tensors and torch.equal(tensors[HEAD], tensors[EMBEDDING]):
        del tensors[HEAD]
    out: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim == 2:
            out[name], out[name + ":scale"] = quantise(tensor, step)
        else:
            out[name] = tensor.half()
    target.mkdir(parents=True, exist_ok=True)
    packed = deflate(save(out, metadata={"format": FORMAT}))
    (target / "weights.bin").write_bytes(packed)
    (target / "config.json").write_bytes((source / "config.json").read_bytes())
    with tempfile.TemporaryDirectory() as scratch:
        expanded = Path(scratch) / "model.safetensors"
        expand(target / "weights.bin", expanded)
        manifest: dict[str, object] = {
            "format": FORMAT,
            "step": step,
            "packed_sha256": hashlib.sha256(packed).hexdigest(),
            "expanded_sha256": hashlib.sha256(expanded.read_bytes()).hexdigest(),
        }
    (target / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return manifest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--step", type=float, default=STEP)
    args = parser.parse_args()
    print(json.dumps(pack(args.source, args.target, args.step)))


if __name__ == "__main__":
    main()
