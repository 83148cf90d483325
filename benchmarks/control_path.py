"""What a request with many edits costs the scheduler of an SGLang server, without a forward pass: by step, on one core.

    python benchmarks/control_path.py [--tokens 128000] [--edits 200] [--json FILE]

It fills SGLang's own radix cache with a prompt of random tokens, edits it, and times what the plugin does with the
edited request: reading it, its plan, its look-ups, its slots, its marked keys, and what the cache does beside it. Needs
SGLang 0.5.23 (`make sglang-cpu`). Prints one JSON object: microseconds of CPU time per 10,000 prompt tokens, medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("SGLANG_PLATFORM", "torch_cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=128_000, help="tokens of the source (default 128000)")
    parser.add_argument("--edits", type=int, default=200, help="replacements (default 200)")
    parser.add_argument("--page", type=int, default=1, help="tokens a page (default 1)")
    parser.add_argument("--reps", type=int, default=7, help="repetitions (default 7)")
    parser.add_argument("--json", type=Path, help="write the result there too")
    args = parser.parse_args()
    found: dict[str, list[float]] = {}
    for rep in range(args.reps):
        for step, seconds in once(args, rep).items():
            found.setdefault(step, []).append(seconds)
    scale = 1e6 / (args.tokens / 10_000)
    result = {
        "tokens": args.tokens,
        "edits": args.edits,
        "page": args.page,
        "us_per_10k_tokens": {step: round(statistics.median(times) * scale, 1) for step, times in found.items()},
        "machine": f"{os.cpu_count()}-core {platform.machine()} CPU",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "command": "python benchmarks/control_path.py "
        + " ".join(f"--{k} {getattr(args, k)}" for k in ("tokens", "edits")),
    }
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


def once(args: argparse.Namespace, seed: int) -> dict[str, float]:
    """One edited request against a fresh cache: seconds by step."""
    from leyline.backends.sglang.plugin.keys import Space
    from leyline.backends.sglang.plugin.mover import tokens_of
    from leyline.backends.sglang.plugin.ops import Hit
    from leyline.backends.sglang.plugin.receipts import make_receipt
    from leyline.backends.sglang.plugin.runs import make_plan, read_request
    from leyline.backends.sglang.plugin.staging import Room
    from leyline.directives import Directive, EditScript, Mode, WireRequest

    times: dict[str, float] = {}

    def timed(step: str, call: Callable[[], Any]) -> Any:
        began = time.thread_time()
        result = call()
        times[step] = time.thread_time() - began
        return result

    rng, space = random.Random(seed), Space()
    ops, splicer = _cache(args)
    source = array("q", (rng.randrange(100_000) for _ in range(args.tokens)))
    slots = ops.reserve(args.tokens)
    timed("stock: insert of the source", lambda: _insert(ops, source, slots, 0, space))
    step = args.tokens // args.edits
    edits = tuple(
        Directive(a, a + step // 4, tuple(rng.randrange(100_000) for _ in range(24)), Mode.AMORTIZE)
        for a in range(1000, args.tokens - step, step)
    )
    script = EditScript(edits)
    prompt = array("q", [*script.apply(list(source)), *(rng.randrange(100_000) for _ in range(50))])
    text, limit = WireRequest.build(script, list(source)).to_json(), len(prompt) - 1
    stock = timed("stock: look-up of the prompt", lambda: ops.match(prompt, limit, space))
    timed("read the request", lambda: read_request(text, 2**20))
    plan = timed(
        "read it and plan", lambda: make_plan(text, prompt, space, splicer.keyring, page=args.page, max_tokens=2**20)
    )
    key = timed("look-ups", lambda: splicer.admit(plan, prompt, limit, space))
    own = ops.match(key, limit, space)
    staged = timed(
        "slots and runs",
        lambda: splicer.stage(plan, prompt, Hit(own.length, own.node), plan.donor, limit, space, Room(10**6, 256)),
    )
    timed("commit", lambda: splicer.commit(plan, prompt, staged))
    timed("receipt", lambda: make_receipt(plan, len(prompt), splicer.keyring, space).to_dict())
    timed("slots and positions of each token", lambda: tokens_of(staged))
    splicer.release(staged)
    assert stock.length == own.length
    marked = timed("marked key", lambda: splicer.keyring.marked(prompt, plan.marks))
    row = _joined(ops.slots(own), staged.slots, ops.reserve(len(prompt) - staged.end))
    timed("stock: insert of the prompt", lambda: _insert(ops, marked, row, own.length, space))
    times["sum without stock's and the first"] = sum(
        seconds for name, seconds in times.items() if not name.startswith(("stock", "read the"))
    )
    return times


def _joined(*parts: Any) -> Any:
    import torch

    return torch.cat(parts)


def _insert(ops: Any, ids: array[int], slots: Any, known: int, space: Any) -> None:
    from sglang.srt.mem_cache.base_prefix_cache import InsertParams
    from sglang.srt.mem_cache.radix_cache import RadixKey

    key = RadixKey(ids, space.extra_key, cache_salt=space.cache_salt).page_aligned(ops.page)
    ops._cache.insert(InsertParams(key=key, value=slots[: len(key)], prev_prefix_len=known, inserted_len=known))


def _cache(args: argparse.Namespace) -> tuple[Any, Any]:
    """SGLang's radix cache over a pool without KV, and a splicer over it."""
    import torch
    from leyline_torch_cpu import standin_path

    torch.set_num_threads(1)
    if (folder := standin_path()) is not None:
        sys.path.append(folder)
    from sglang.srt.mem_cache.allocator.token import TokenToKVPoolAllocator
    from sglang.srt.mem_cache.cache_init_params import CacheInitParams
    from sglang.srt.mem_cache.unified_cache.components import ComponentType

    from leyline.backends.sglang.plugin.adapter_0523 import LeylineRadixCache, Ops
    from leyline.backends.sglang.plugin.keys import Keyring
    from leyline.backends.sglang.plugin.move_counts import Generations
    from leyline.backends.sglang.plugin.splicer import Splicer

    size = 3 * args.tokens
    pool = SimpleNamespace(device="cpu", req_to_token=torch.zeros((2, 8), dtype=torch.int32))
    allocator = TokenToKVPoolAllocator(size, torch.bfloat16, "cpu", SimpleNamespace(), False)
    params = CacheInitParams(
        disable=False,
        req_to_token_pool=pool,
        token_to_kv_pool_allocator=allocator,
        page_size=args.page,
        tree_components=(ComponentType.FULL,),
    )
    cache = LeylineRadixCache(params)
    cache.leyline = SimpleNamespace(writing=())
    ops = Ops(cache)
    return ops, Splicer(ops, Keyring(b"benchmark"), Generations(size + 2, "cpu"), 2**30)


if __name__ == "__main__":
    main()
