"""What the GPU check stands on: models of a real scale, the reference, and a plugin that SGLang finds."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "backends" / "sglang" / "plugin")]

SIZES: dict[str, dict[str, dict[str, Any]]] = {
    # The widths of Llama 3.1 8B and DeepSeek V2 Lite, with few layers, all of them dense.
    "real": {
        "gqa": {
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
        },
        "mla": {
            "hidden_size": 2048,
            "intermediate_size": 10944,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "kv_lora_rank": 512,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
        },
    },
    "tiny": {"gqa": {}, "mla": {}},
}


def write_model(kind: str, path: Path, device: str, args: argparse.Namespace) -> Path:
    """A model of `args.size` with random weights at unit-variance activations, and a byte-level tokenizer."""
    import torch
    from tiny_models import CONFIGS, write_tokenizer
    from transformers import AutoConfig, AutoModelForCausalLM

    config = {**CONFIGS[kind], **SIZES[args.size][kind], "torch_dtype": args.dtype, "num_hidden_layers": args.layers}
    if kind == "mla":
        config.update(first_k_dense_replace=args.layers, n_routed_experts=1, num_experts_per_tok=1)
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config, indent=1))
    write_tokenizer(path)
    dtype = getattr(torch, args.dtype)
    generator = torch.Generator(device).manual_seed(args.seed)
    with torch.device(device), torch.no_grad():
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path), dtype=dtype)
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2:
                scale = 1.0 if "embed_tokens" in name else 1.6 / parameter.shape[-1] ** 0.5
                parameter.normal_(0, scale, generator=generator)
    model.save_pretrained(path)
    (path / "config.json").write_text(json.dumps(config, indent=1))
    return path


def make_oracle(path: Path, device: str, dtype: Any) -> Any:
    """The oracle, also for older releases of transformers.

    They cache an MLA model's keys and values decompressed, and leave YaRN's factor out of its softmax scale, which
    DeepSeek's released code multiplies by `(0.1 * mscale_all_dim * ln(factor) + 1) ** 2`.
    """
    import torch
    from sgl_oracle import Oracle

    class AnyOracle(Oracle):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            config = self.model.config
            rope = getattr(config, "rope_parameters", None) or config.rope_scaling
            if self.latent:
                factor = 0.1 * rope["mscale_all_dim"] * math.log(rope["factor"]) + 1
                for layer in self.model.model.layers:
                    width = config.qk_nope_head_dim + config.qk_rope_head_dim
                    layer.self_attn.scaling = width**-0.5 * factor**2

        def _moved(self, layers: Any, start: int, end: int, delta: int) -> Any:
            width = 2 * len(self.angles)
            if not self.latent or layers[0][1].shape[-1] == width:
                return super()._moved(layers, start, end, delta)
            out = []
            for keys, values in layers:
                keys, values = keys[:, :, start:end], values[:, :, start:end]
                turned = self._rotate(keys[..., -width:], delta)
                out.append((torch.cat((keys[..., :-width], turned), -1), values))
            return out

    return AnyOracle(path, device, dtype)


def machine_name(device: str) -> str:
    import torch

    name = torch.cuda.get_device_name(0) if device == "cuda" else f"{os.cpu_count()}-core {platform.machine()} CPU"
    return f"{name}, torch {torch.__version__}"


def make_importable(work: Path) -> None:
    """Let SGLang find the plugin where leyline is not installed: a plugin is found by a distribution's metadata."""
    paths = [str(ROOT)]
    try:
        metadata.version("leyline-kv")
    except metadata.PackageNotFoundError:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        folder = work / "metadata" / f"leyline_kv-{project['version']}.dist-info"
        folder.mkdir(parents=True, exist_ok=True)
        head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        (folder / "METADATA").write_text(head)
        groups = project["entry-points"]
        text = "".join(f"[{g}]\n" + "".join(f"{k} = {v}\n" for k, v in e.items()) for g, e in groups.items())
        (folder / "entry_points.txt").write_text(text)
        paths.append(str(folder.parent))
        sys.path.append(str(folder.parent))
    known = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, *([known] if known else [])])
