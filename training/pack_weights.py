"""Pack a Hugging Face checkpoint into one safetensors file: int8 a row with fp16 scales, norms in fp16.

    python training/pack_weights.py CHECKPOINT_FOLDER leyline/evals/models/NAME

A tied head (equal to the embedding) is stored once. `leyline.evals.models` expands the pack to bf16 and checks its
hash.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from leyline.evals.models.pack import expand


def quantise(weight: torch.Tensor, candidates: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    """Symmetric int8 by row of a (rows, columns) matrix; each scale is the best of `candidates` by squared error."""
    w = weight.float()
    top = w.abs().amax(1).clamp_min(1e-8)
    best_scale, best_error = (top / 127).half(), torch.full_like(top, float("inf"))
    for i in range(candidates):
        scale = (top * (1 - 0.02 * i) / 127).half().clamp_min(6e-8)
        q = (w / scale.float()[:, None]).round().clamp(-127, 127)
        error = (q * scale.float()[:, None] - w).square().sum(1)
        better = error < best_error
        best_scale, best_error = torch.where(better, scale, best_scale), torch.where(better, error, best_error)
    return (w / best_scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8), best_scale


def pack(source: Path, target: Path) -> dict[str, object]:
    """Write `target/weights.safetensors` and the small files; returns the manifest."""
    tensors = load_file(source / "model.safetensors")
    tied = "lm_head.weight" not in tensors or torch.equal(
        tensors["lm_head.weight"], tensors["model.embed_tokens.weight"]
    )
    out: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if name == "lm_head.weight" and tied:
            continue
        if tensor.ndim == 2:
            out[name], out[name + ":scale"] = quantise(tensor)
        else:
            out[name] = tensor.half()
    target.mkdir(parents=True, exist_ok=True)
    save_file(out, target / "weights.safetensors", metadata={"format": "leyline-int8-rows/1"})
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (source / name).exists():
            (target / name).write_bytes((source / name).read_bytes())
    digest = hashlib.sha256((target / "weights.safetensors").read_bytes()).hexdigest()
    manifest: dict[str, object] = {"format": "leyline-int8-rows/1", "packed_sha256": digest, "tied_head": tied}
    with tempfile.TemporaryDirectory() as scratch:
        expand(target / "weights.safetensors", Path(scratch) / "model.safetensors", tied_head=tied)
        manifest["expanded_sha256"] = hashlib.sha256((Path(scratch) / "model.safetensors").read_bytes()).hexdigest()
    (target / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    return manifest


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    print(json.dumps(pack(arguments.source, arguments.target)))
