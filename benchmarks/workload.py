"""The paper's concurrent workload: sessions with one system prompt and a message edit in every turn.

    python benchmarks/workload.py --url http://127.0.0.1:30001 --model NAME --out results/speed/workload.json

16 sessions of 6 turns: a system prompt of 4,096 tokens that all share, 2,048 new tokens a turn, and from the second
turn on the first half of the oldest unedited message is removed. `radix` sends the edited prompt only, `amortize` and
`auto` send directives. For each concurrency: hit rate over all prompt tokens, and the median and 95th percentile of the
time to the whole answer of `--decode` tokens. The paper reports a hit rate of 49.6 -> 60.8 % and -4.4 % p95 on its
server.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from common import HIGH, Prompts, Server, summary, write

from leyline.directives import Directive, EditScript, Mode, Receipt, WireRequest

SYSTEM, MESSAGE = 4096, 2048


class Client:
    """One session against one server."""

    def __init__(self, server: Server, system: list[int], prompts: Prompts, mode: Mode | None, decode: int) -> None:
        self.server, self.prompts, self.mode, self.decode = server, prompts, mode, decode
        self.held = list(system)
        self.edges = [len(system)]
        self.receipt: Receipt | None = None
        self.times: list[float] = []
        self.counts: list[tuple[int, int]] = []

    def turn(self, number: int) -> None:
        """Edit the oldest whole message, append a new one, ask."""
        request = None
        lineage = (self.receipt.lineage, self.receipt.approximate_from) if self.receipt is not None else (None, None)
        prompt = self.held
        if number:
            start = self.edges[number - 1]
            script = EditScript((Directive(start, start + MESSAGE // 2, (), self.mode or Mode.AMORTIZE),))
            if self.mode is not None:
                request = WireRequest.build(script, self.held, lineage=lineage[0], lineage_start=lineage[1])
            prompt = script.apply(self.held)
            self.edges[number:] = [edge - MESSAGE // 2 for edge in self.edges[number:]]
        prompt = [*prompt, *self.prompts.fresh(MESSAGE)]
        milliseconds, receipt = self.server.ask(prompt, request or WireRequest(EditScript(), ()), tokens=self.decode)
        assert receipt is not None, "the server runs without the plugin"
        self.times.append(milliseconds)
        self.counts.append((receipt.prompt_tokens, receipt.prefilled_tokens))
        self.receipt = receipt if receipt.lineage is not None else None
        self.held = prompt
        self.edges.append(len(prompt))


def run(
    server: Server, mode: Mode | None, sessions: int, turns: int, concurrency: int, decode: int, high: int, seed: int
) -> dict[str, Any]:
    """One arm from an empty cache: turns go round the sessions."""
    server.flush()
    system = Prompts(0, high).fresh(SYSTEM)
    clients = [Client(server, system, Prompts(seed + i, high), mode, decode) for i in range(sessions)]
    began = time.perf_counter()
    with ThreadPoolExecutor(concurrency) as pool:
        list(pool.map(lambda client: [client.turn(number) for number in range(turns)], clients))
    wall = time.perf_counter() - began
    counts = [count for client in clients for count in client.counts]
    return {
        "arm": "radix" if mode is None else str(mode),
        "concurrency": concurrency,
        "decode": decode,
        "turns": len(counts),
        "hit_rate": round(1 - sum(done for _, done in counts) / sum(length for length, _ in counts), 4),
        **{f"latency_{key}": value for key, value in summary([t for c in clients for t in c.times]).items()},
        "wall_s": round(wall, 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="the server with the plugin")
    parser.add_argument("--model", required=True, help="the name to write down")
    parser.add_argument("--sessions", type=int, default=16)
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--decode", type=int, default=1)
    parser.add_argument("--vocabulary", type=int, default=HIGH, help="token ids are drawn below it")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", help="file to write or to add to; default: print")
    args = parser.parse_args()
    server = Server(args.url)
    for concurrency in args.concurrency:
        for mode in (None, Mode.AMORTIZE, Mode.AUTO):
            common = (args.sessions, args.turns, concurrency, args.decode, args.vocabulary)
            entry = {"model": args.model, **run(server, mode, *common, args.seed)}
            print(entry, file=sys.stderr, flush=True)
            write(args.out, workload=[entry])
    return 0


if __name__ == "__main__":
    sys.exit(main())
