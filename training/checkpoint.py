"""Checkpoints: whole ones to resume from, and weights alone in files small enough to travel."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.models import SHAPES, Shape, TinyLM, hf_config

PIECE = 15 * 2**20 + 2**19 + 2**18  # bytes: two pieces a model, each below 16 MiB


def save(path: Path, model: TinyLM, optimiser: Any, progress: dict[str, Any]) -> None:
    """Everything that training goes on from; written beside and renamed."""
    scratch = path.with_suffix(".tmp")
    torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict(), "progress": progress}, scratch)
    os.replace(scratch, path)  # noqa: PTH105 - atomic by contract


def load(path: Path, model: TinyLM, optimiser: Any) -> dict[str, Any]:
    """Restore model and optimiser in place; returns the progress."""
    state = torch.load(path, map_location=next(model.parameters()).device, weights_only=True)
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    progress: dict[str, Any] = state["progress"]
    return progress


def save_pieces(folder: Path, name: str, weights: dict[str, Tensor], dtype: torch.dtype = torch.bfloat16) -> list[Path]:
    """Weights as `folder/NAME-0.safetensors`, `-1`, ..., each at most PIECE bytes. Pieces of earlier weights are
    replaced one by one, so that a reader finds each of them whole at any time."""
    folder.mkdir(parents=True, exist_ok=True)
    groups: list[dict[str, Tensor]] = [{}]
    size = 0
    for key, tensor in weights.items():
        cast = tensor.detach().to("cpu", dtype).contiguous()
        if groups[-1] and size + cast.nbytes > PIECE:
            groups.append({})
            size = 0
        groups[-1][key] = cast
        size += cast.nbytes
    paths = []
    for number, group in enumerate(groups):
        paths.append(folder / f"{name}-{number}.safetensors")
        scratch = folder / f".{name}-{number}.tmp"
        save_file(group, scratch, metadata={"format": "pt"})
        scratch.replace(paths[-1])
    for old in set(folder.glob(f"{name}-*.safetensors")) - set(paths):
        old.unlink()
    return paths


def load_pieces(folder: Path, name: str) -> dict[str, Tensor]:
    """The weights that `save_pieces` wrote."""
    weights: dict[str, Tensor] = {}
    for path in sorted(folder.glob(f"{name}-*.safetensors")):
        weights.update(load_file(path))
    if not weights:
        raise FileNotFoundError(f"no pieces {name}-*.safetensors in {folder}")
    return weights


def shape_of(config: dict[str, Any]) -> Shape:
    """The sizes that a config.json names."""
    for shape in SHAPES.values():
        if config["architectures"] == hf_config(shape)["architectures"]:
            mla = shape.kind == "mla"
            return Shape(
                kind=shape.kind,
                vocab=config["vocab_size"],
                hidden=config["hidden_size"],
                layers=config["num_hidden_layers"],
                ff=config["intermediate_size"],
                heads=config["num_attention_heads"],
                kv_heads=shape.kv_heads if mla else config["num_key_value_heads"],
                head_dim=shape.head_dim if mla else config["head_dim"],
                nope=config["qk_nope_head_dim"] if mla else shape.nope,
                rope=config["qk_rope_head_dim"] if mla else shape.rope,
                value=config["v_head_dim"] if mla else shape.value,
                latent=config["kv_lora_rank"] if mla else shape.latent,
                theta=config["rope_theta"],
                eps=config["rms_norm_eps"],
                positions=config["max_position_embeddings"],
            )
    raise ValueError(f"no tiny model has the architecture {config['architectures']}")


def load_model(folder: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> TinyLM:
    """A model of a Hugging Face folder with one model.safetensors. A head of its own must equal the embedding."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = load_file(folder / "model.safetensors")
    head = weights.pop("lm_head.weight", None)
    if head is not None and not torch.equal(head, weights["model.embed_tokens.weight"]):
        raise ValueError(f"the head of {folder} is not its embedding")
    model = TinyLM(shape_of(config))
    model.load_state_dict(weights)
    return model.to(device, dtype).eval()


def export(folder: Path, shape: Shape, weights: dict[str, Tensor], tokenizer: Path, dtype: torch.dtype) -> None:
    """A Hugging Face folder: config, weights with the head written out, tokenizer files of the folder `tokenizer`."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().to("cpu", dtype).contiguous() for k, v in weights.items()}
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(hf_config(shape), indent=1) + "\n", encoding="utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_bytes((tokenizer / name).read_bytes())
