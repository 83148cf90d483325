"""What moving KV costs on this GPU against its floor: the bytes read and written over the copy bandwidth.

    python benchmarks/kernel.py --tokens 1024 8192 24576 49152 --out results/speed/kernel.json

For each shape (DeepSeek-V2-Lite: 27 layers of 576; Llama-3.1-8B: 32 layers of 8 x 128 keys and values; Qwen3-8B: 36
layers of the same; bf16) rows scattered over the pool are moved by an edit's shift to other scattered rows, by the
kernel (`ms`) and by plain PyTorch (`torch_ms`). Medians by CUDA events over other rows each time. `--tune` tries the
kernel's sizes instead: tokens a program and warps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from common import write

from leyline.backends.sglang.plugin import kernel
from leyline.backends.sglang.plugin.mover import Tokens, TorchMover
from leyline.backends.sglang.plugin.rope import Rope

SHAPES: dict[str, dict[str, int]] = {
    "dsv2-lite": {"layers": 27, "rank": 512, "rotary": 64},
    "llama31-8b": {"layers": 32, "heads": 8, "width": 128},
    "qwen3-8b": {"layers": 36, "heads": 8, "width": 128},
}


def median_ms(call: Callable[[int], object], repeat: int, *, behind: bool = True) -> float:
    """Milliseconds of a call on the device.

    behind: launched while the device is still busy, as in a server, where a forward always runs ahead; else from an
    idle device, which waits for the host to launch.
    """
    for i in range(3):
        call(i)
    times = []
    for i in range(repeat):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        if behind:
            torch.cuda._sleep(2_000_000)  # cycles: a millisecond
        first.record()
        call(i)
        last.record()
        last.synchronize()
        times.append(first.elapsed_time(last))
    return statistics.median(times)


def bandwidth() -> float:
    """Bytes a second of a large copy, read and written."""
    source = torch.empty(2 << 30, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    return 2 * source.numel() / median_ms(lambda _: target.copy_(source), 15) * 1e3


def pool_of(shape: dict[str, int], slots: int) -> tuple[Any, Rope, int]:
    """A KV pool as SGLang lays it out, its rotation, and the bytes of a token."""

    def rows(*size: int) -> list[torch.Tensor]:
        return [torch.randn(slots, *size, device="cuda", dtype=torch.bfloat16) for _ in range(shape["layers"])]

    dim = shape.get("rotary", shape.get("width", 0))
    angles = torch.arange(131072, device="cuda", dtype=torch.float32)[:, None] * 10000.0 ** (
        -torch.arange(0, dim, 2, device="cuda", dtype=torch.float32) / dim
    )
    table = torch.cat((angles.cos(), angles.sin()), 1)
    if "rank" in shape:
        pool = SimpleNamespace(kv_lora_rank=shape["rank"], kv_buffer=rows(1, shape["rank"] + dim))
        return pool, rope(table, dim, False), 2 * shape["layers"] * (shape["rank"] + dim)
    size = (shape["heads"], shape["width"])
    pool = SimpleNamespace(k_buffer=rows(*size), v_buffer=rows(*size))
    return pool, rope(table, dim, True), 4 * shape["layers"] * shape["heads"] * shape["width"]


def rope(table: torch.Tensor, dim: int, neox: bool) -> Rope:
    """The rotation as the plugin reads it from a model."""
    return Rope(SimpleNamespace(cos_sin_cache=table, is_neox_style=neox, rotary_dim=dim))


def moves(tokens: int, slots: int, sets: int) -> list[Tokens]:
    """So many sets of scattered rows to move by a shift of 1,024 positions."""
    found = []
    for _ in range(sets):
        order = torch.randperm(slots, device="cuda")
        old = torch.arange(tokens, device="cuda") + 2048
        found.append(Tokens(order[:tokens], order[tokens : 2 * tokens], old, old - 1024))
    return found


def tune(mover: Any, chosen: list[Tokens], key: str, floor: float) -> list[dict[str, Any]]:
    """Time over the floor for the sizes of a program."""
    found = []
    for size in (4, 8, 16, 32):
        kernel._TOKENS[key] = size
        for warps in (2, 4, 8):
            kernel._WARPS[key] = warps
            try:
                milliseconds = median_ms(lambda i: mover(chosen[i % len(chosen)]), 7)
            except Exception as error:
                found.append({"tokens": size, "warps": warps, "error": str(error)[:80]})
                continue
            found.append({"tokens": size, "warps": warps, "over_floor": round(milliseconds / floor, 3)})
    return sorted(found, key=lambda entry: entry.get("over_floor", 99))


def measure(
    name: str,
    tokens: int,
    movers: tuple[Any, Any],
    chosen: list[Tokens],
    floor: float,
    speed: float,
    args: argparse.Namespace,
) -> None:
    """One shape and number of tokens. floor: milliseconds; speed: bytes a second."""
    if args.tune:
        key = "latent" if "rank" in SHAPES[name] else "heads"
        print(name, tokens, json.dumps(tune(movers[0], chosen, key, floor)[:6]), flush=True)
        return
    ours, plain = (
        median_ms(lambda i, mover=mover: mover(chosen[i % len(chosen)]), repeat)  # type: ignore[misc]
        for mover, repeat in zip(movers, (args.repeat, 5), strict=True)
    )
    idle = median_ms(lambda i: movers[0](chosen[i % len(chosen)]), args.repeat, behind=False)
    entry = {
        "shape": name,
        "tokens": tokens,
        "ms": round(ours, 4),
        "from_idle_ms": round(idle, 4),
        "torch_ms": round(plain, 4),
        "floor_ms": round(floor, 4),
        "over_floor": round(ours / floor, 3),
    }
    print(entry, file=sys.stderr, flush=True)
    write(args.out, kernel=[entry], copy_gb_per_s=round(speed / 1e9))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 2048, 4096, 8192, 24576, 49152])
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--tune", action="store_true", help="try the kernel's sizes, write nothing")
    parser.add_argument("--out", help="file to write or to add to; default: print")
    args = parser.parse_args()
    speed = bandwidth()
    print(f"copy bandwidth {speed / 1e9:,.0f} GB/s, read and written", file=sys.stderr)
    for name in args.shapes:
        slots = 2 * max(args.tokens) + 1024
        pool, turn, token_bytes = pool_of(SHAPES[name], slots)
        movers = (kernel.KernelMover(pool, turn), TorchMover(pool, turn))
        for tokens in args.tokens:
            floor = 2e3 * token_bytes * tokens / speed
            measure(name, tokens, movers, moves(tokens, slots, 3), floor, speed, args)
        del pool, movers
        torch.cuda.empty_cache()
    return 0


if __name__ == "__main__":
    sys.exit(main())
