"""The fused kernel against the reference in plain PyTorch. Interpreted where there is no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from leyline.backends.sglang.plugin.mover import Tokens, TorchMover
from leyline.backends.sglang.plugin.rope import Rope

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
CUDA = torch.cuda.is_available()
LAYERS, SLOTS = 3, 300
SHAPES: dict[str, dict[str, Any]] = {
    "DeepSeek V2": {"rank": 512, "rope": 64, "neox": False},
    "a small latent": {"rank": 48, "rope": 16, "neox": True},
    "GQA of odd width": {"heads": 2, "width": 24, "value": 24, "rope": 24, "neox": True},
    "Llama 3.1 8B": {"heads": 8, "width": 128, "value": 128, "rope": 128, "neox": True},
    "a partial rotation": {"heads": 2, "width": 32, "value": 16, "rope": 16, "neox": False},
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def make_rope(dim: int, neox: bool, device: str) -> Rope:
    angles = torch.arange(512)[:, None] / 10000 ** (torch.arange(0, dim, 2) / dim)
    table = 1.06 * torch.cat([angles.cos(), angles.sin()], -1)
    return Rope(SimpleNamespace(cos_sin_cache=table.to(device), is_neox_style=neox, rotary_dim=dim))


def make_pool(shape: dict[str, Any], dtype: torch.dtype, device: str) -> Any:
    def layers(*row: int) -> list[torch.Tensor]:
        return [torch.randn(SLOTS, *row).to(device, dtype) for _ in range(LAYERS)]

    if "rank" in shape:
        return SimpleNamespace(kv_lora_rank=shape["rank"], kv_buffer=layers(1, shape["rank"] + shape["rope"]))
    return SimpleNamespace(
        k_buffer=layers(shape["heads"], shape["width"]), v_buffer=layers(shape["heads"], shape["value"])
    )


def copy(pool: Any) -> Any:
    cloned = {k: [b.clone() for b in v] if isinstance(v, list) else v for k, v in vars(pool).items()}
    return SimpleNamespace(**cloned)


def compare(name: str, dtype: str, seed: int, device: str) -> None:
    """Several runs of random lengths and shifts in one launch: every slot of every layer."""
    from leyline.backends.sglang.plugin.kernel import KernelMover

    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    shape = SHAPES[name]
    expected = make_pool(shape, DTYPES[dtype], device)
    moved = copy(expected)
    rope = make_rope(shape["rope"], shape["neox"], device)
    order = torch.randperm(SLOTS - 1, generator=generator) + 1
    parts, at = [], 0
    for _ in range(int(torch.randint(1, 5, (), generator=generator))):
        count = int(torch.randint(1, 38, (), generator=generator))
        old, new = torch.randint(0, 512 - count, (2,), generator=generator).tolist()
        steps = torch.arange(count)
        source, target = order[at : at + count], order[150 + at : 150 + at + count]
        parts.append(Tokens(source, target, steps + old, steps + new))
        at += count
    joint = Tokens(*(torch.cat(column).to(device) for column in zip(*parts, strict=True)))
    TorchMover(expected, rope)(joint)
    KernelMover(moved, rope)(joint)
    # The interpreter cuts bf16 where a GPU rounds: one unit in the last place.
    limit = {"fp32": 3e-6, "bf16": 2**-7, "fp16": 2**-10}[dtype]
    for field in ("kv_buffer", "k_buffer", "v_buffer"):
        for a, b in zip(getattr(expected, field, []), getattr(moved, field, []), strict=True):
            a, b = a.float(), b.float()
            assert bool(((a - b).abs() <= limit * a.abs().clamp(min=0.25)).all()), (name, dtype, seed, field)
            # A compiler that contracts to fused multiply-adds changes the last bit of fp32.
            least = 0.0 if (dtype, device) == ("fp32", "cuda") else 0.9 if dtype == "fp32" else 0.6
            same = float((a == b).float().mean())
            assert same >= least, (name, dtype, seed, field, same)
            if field == "v_buffer":
                assert torch.equal(a, b)


@pytest.mark.gpu
@pytest.mark.skipif(not CUDA, reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("name", list(SHAPES))
def test_compiled(name: str, dtype: str) -> None:
    for seed in range(20):
        compare(name, dtype, seed, "cuda")


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_interpreted(dtype: str) -> None:
    """In a process of its own: triton reads TRITON_INTERPRET when it is imported."""
    root = Path(__file__).resolve().parents[4]
    script = Path(__file__)
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), dtype],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split()[-1] == "equal"


if __name__ == "__main__":
    for shape in SHAPES:
        for seed in range(2 if shape in ("DeepSeek V2", "Llama 3.1 8B") else 6):
            compare(shape, sys.argv[1], seed, "cpu")
    print("equal")
