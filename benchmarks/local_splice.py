"""What a splice costs on the local backend, against its floor (copying the rows) and against what it saves (a prefill).

    python benchmarks/local_splice.py [MODEL_DIR] [--tokens 256 1024 4096] [--threads 1]

Prints one line for each run length, in milliseconds: the best of several runs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from leyline.backends.local.kv import SequenceKV
from leyline.backends.local.load import load_model
from leyline.backends.local.runner import Splicer, build_runner
from leyline.models import resolve


def best(call: Callable[[], object], device: torch.device, repeat: int) -> float:
    """Milliseconds of the fastest of `repeat` calls, after one that is not counted."""
    times = []
    for _ in range(repeat + 1):
        began = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return 1e3 * min(times[1:])


def measure(runner: Splicer, count: int, page: int, repeat: int) -> tuple[float, float, float]:
    """Milliseconds to copy, to splice and to prefill `count` tokens behind a prefix of one page."""
    source = runner.new_kv(page + count)
    source.keys.normal_()
    source.values.normal_()
    source.length = page + count
    target = runner.new_kv(page + count)

    def copy() -> None:
        target.length = page // 2
        target.append(source, page, count)

    def splice() -> None:
        target.length = page // 2
        target.splice(source, page, count, runner.layout, runner.table)

    def prefill() -> None:
        fresh: SequenceKV = runner.new_kv(page + count)
        fresh.length = page
        for start in range(0, count, page):
            runner.forward(fresh, [1] * min(page, count - start))

    with runner.session():
        return (
            best(copy, runner.device, repeat),
            best(splice, runner.device, repeat),
            best(prefill, runner.device, max(1, repeat // 5)),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", help="a Hugging Face model folder; the bundled tiny-mla if left out")
    parser.add_argument("--tokens", type=int, nargs="+", default=[256, 1024, 4096])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = options.model or resolve("tiny-mla")
    runner = build_runner(load_model(folder, device=None, dtype=None))
    if not isinstance(runner, Splicer):
        parser.exit(2, f"{folder} is not spliced: {runner.detail}\n")
    shape = runner.shape
    print(f"{folder}: {runner.layout.attention}, {shape.layers} layers, {shape.bytes_per_token} bytes a token")
    print(f"{runner.device}, {shape.dtype}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'tokens':>7} {'copy':>9} {'splice':>9} {'prefill':>10}  splice/copy  prefill/splice")
    for count in options.tokens:
        copy, splice, prefill = measure(runner, count, 64, options.repeat)
        ratios = f"{splice / copy:>11.1f}  {prefill / splice:>14.0f}"
        print(f"{count:>7} {copy:>9.3f} {splice:>9.3f} {prefill:>10.1f}  {ratios}")


if __name__ == "__main__":
    main()
