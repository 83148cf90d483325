"""What the plugin costs requests that use none of it: a stock server and one with the plugin, paired on one machine.

    python benchmarks/idle.py --url http://127.0.0.1:30001 --stock-url http://127.0.0.1:30000 --model NAME \\
        --seconds 60 --out results/speed/idle.json

Both servers serve the same load in turn, in an order that alternates: 48 prompts of 1,500 tokens that share 500, 16 at
a time, `--decode` tokens each. Written: the median of the pairs' ratios (plugin over stock, wall time), and a 95 %
interval of it by the order statistics of the pairs, which assumes nothing about their distribution.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from common import HIGH, Prompts, Server, write


def load(server: Server, prompts: list[list[int]], concurrency: int, decode: int) -> float:
    """Seconds to serve all of them."""
    began = time.perf_counter()
    with ThreadPoolExecutor(concurrency) as pool:
        list(pool.map(lambda ids: server.ask(ids, tokens=decode), prompts))
    return time.perf_counter() - began


def median_interval(values: list[float]) -> tuple[float, float, float]:
    """The median and the order statistics that hold the true one between them with at least 95 %."""
    ordered, count = sorted(values), len(values)
    low = 0
    while low + 1 < count // 2 and 2 * sum(math.comb(count, k) for k in range(low + 2)) / 2**count <= 0.05:
        low += 1
    return statistics.median(ordered), ordered[low], ordered[count - 1 - low]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="the server with the plugin")
    parser.add_argument("--stock-url", required=True, help="one without, on the same machine")
    parser.add_argument("--model", required=True, help="the name to write down")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--requests", type=int, default=48)
    parser.add_argument("--decode", type=int, default=32)
    parser.add_argument("--vocabulary", type=int, default=HIGH, help="token ids are drawn below it")
    parser.add_argument("--out", help="file to write or to add to; default: print")
    args = parser.parse_args()
    servers = {"plugin": Server(args.url), "stock": Server(args.stock_url)}
    prompts = Prompts(1, args.vocabulary)
    times: dict[str, list[float]] = {name: [] for name in servers}
    began, rounds = time.monotonic(), 0
    while rounds < 7 or time.monotonic() - began < args.seconds:
        shared = prompts.fresh(500)
        batch = [shared + prompts.fresh(1000) for _ in range(args.requests)]
        for name in list(servers) if rounds % 2 else reversed(servers):
            seconds = load(servers[name], batch, args.concurrency, args.decode)
            if rounds:  # the first pair warms up
                times[name].append(seconds)
        rounds += 1
    ratios = [ours / stock for ours, stock in zip(times["plugin"], times["stock"], strict=True)]
    median, low, high = median_interval(ratios)
    entry = {
        "model": args.model,
        "concurrency": args.concurrency,
        "decode": args.decode,
        "requests": args.requests,
        "pairs": len(ratios),
        "ratio": round(median, 4),
        "interval": [round(low, 4), round(high, 4)],
        "plugin_s": round(statistics.median(times["plugin"]), 4),
        "stock_s": round(statistics.median(times["stock"]), 4),
        "ratios": [round(ratio, 4) for ratio in ratios],
    }
    print(entry, file=sys.stderr)
    write(args.out, idle=[entry])
    return 0


if __name__ == "__main__":
    sys.exit(main())
