"""What an edited request costs: time to the first token by kind of request, one at a time, stock beside plugin.

    python benchmarks/edits.py --url http://127.0.0.1:30001 --stock-url http://127.0.0.1:30000 --model NAME \\
        --lengths 16384 32768 65536 --repeat 5 --out results/speed/edits.json

Prompts are random token ids. For each length and repetition both servers are sent a cold prompt, the same again
(`full_hit`: the least that any reuse can cost) and the prompt without 1,024 tokens at a quarter (`undirected`, stock).
The server with the plugin is sent edits of the same prompt with directives: that removal (`del1`); 1, 5 and 20
replacements by 64 tokens (`rep1`, `rep5`, `rep20`; 20 remove 256 each); `rep1_auto` as AUTO; `rep5` as FORGET
(`forget`); and 32 new tokens behind `rep5` (`next_turn`). Medians in milliseconds, as the client sees them.
"""

from __future__ import annotations

import argparse
import statistics
import sys

from common import HIGH, Prompts, Server, continued, write

from leyline.directives import Mode, Receipt


def spans(kind: str, tokens: int) -> list[tuple[int, int]]:
    """Where a kind of edit cuts: `(start, length)`."""
    count = int(kind.removeprefix("del").removeprefix("rep"))
    length = 1024 if count <= 5 else 256
    step = (3 * tokens // 4) // (count + 1) if count > 1 else 0
    length = min(length, tokens // 4, max(1, step - 64) if step else length)
    return [(tokens // 4 + i * step, length) for i in range(count)]


KINDS = {"del1": 0, "rep1": 64, "rep5": 64, "rep20": 64}


class Round:
    """One length: every kind of request, `repeat` times."""

    def __init__(self, ours: Server, stock: Server | None, prompts: Prompts, tokens: int) -> None:
        self.ours, self.stock, self.prompts, self.tokens = ours, stock, prompts, tokens
        self.times: dict[str, list[float]] = {}
        self.counts: dict[str, list[int]] = {}
        self.moves: dict[str, list[float]] = {}
        self.fallbacks: dict[str, str] = {}

    def run(self, stock_first: bool) -> None:
        """One repetition."""
        source = self.prompts.fresh(self.tokens)
        servers = [("stock_", self.stock), ("", self.ours)]
        for prefix, server in servers if stock_first else reversed(servers):
            if server is not None:
                self._note(f"{prefix}cold", server.ask(source)[0])
                self._note(f"{prefix}full_hit", server.ask(source)[0])
        # Behind other edits the source would still be hit, so that each kind is sent once to a tree of one kind.
        for kind, put in KINDS.items():
            target, request = self.prompts.edit(source, spans(kind, self.tokens), put)
            receipt = self._edit(kind, target, request)
            if kind == "rep5" and receipt is not None and receipt.lineage is not None:
                milliseconds, after = self.ours.ask([*target, *self.prompts.fresh(32)], continued(receipt))
                self._note("next_turn", milliseconds)
                if after is not None:
                    self.counts.setdefault("next_turn", []).append(after.prefilled_tokens)
        target, request = self.prompts.edit(source, spans("rep1", self.tokens), 64, Mode.AUTO)
        self._edit("rep1_auto", target, request)
        target, request = self.prompts.edit(source, spans("rep5", self.tokens), 64, Mode.FORGET)
        self._edit("forget", target, request)
        target, _ = self.prompts.edit(source, spans("del1", self.tokens), 0)
        if self.stock is not None:
            self._note("undirected", self.stock.ask(target)[0])
        target, _ = self.prompts.edit(source, [(self.tokens // 4, min(1000, self.tokens // 4 - 1))], 0)
        self._note("plugin_undirected" if self.stock is not None else "undirected", self.ours.ask(target)[0])

    def _edit(self, kind: str, target: list[int], request: object) -> Receipt | None:
        milliseconds, receipt = self.ours.ask(target, request)  # type: ignore[arg-type]
        if receipt is None or receipt.fallback is not None:
            self.fallbacks[kind] = "no receipt" if receipt is None else f"{receipt.fallback}: {receipt.detail}"
            return None
        self._note(kind, milliseconds)
        self.counts.setdefault(kind, []).append(receipt.prefilled_tokens)
        self.moves.setdefault(kind, []).append(1e3 * sum(s.seconds for s in receipt.splices))
        return receipt

    def _note(self, kind: str, milliseconds: float) -> None:
        self.times.setdefault(kind, []).append(milliseconds)

    def result(self, model: str) -> dict[str, object]:
        """One entry of the file."""
        medians = {kind: round(statistics.median(values), 2) for kind, values in self.times.items()}
        return {
            "model": model,
            "tokens": self.tokens,
            "repeat": min(map(len, self.times.values())),
            "ms": medians,
            "spread_ms": {k: [round(min(v), 2), round(max(v), 2)] for k, v in self.times.items()},
            "prefilled": {kind: statistics.median(values) for kind, values in self.counts.items()},
            "scheduler_ms": {kind: round(statistics.median(values), 2) for kind, values in self.moves.items()},
            "fallbacks": self.fallbacks,
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="the server with the plugin")
    parser.add_argument("--stock-url", help="one without, on the same machine")
    parser.add_argument("--model", required=True, help="the name to write down")
    parser.add_argument("--lengths", type=int, nargs="+", default=[16384, 32768, 65536])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--vocabulary", type=int, default=HIGH, help="token ids are drawn below it")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", help="file to write or to add to; default: print")
    args = parser.parse_args()
    ours, stock = Server(args.url), Server(args.stock_url) if args.stock_url else None
    prompts = Prompts(args.seed, args.vocabulary)
    found, failed = [], False
    for tokens in args.lengths:
        warm = Round(ours, stock, prompts, tokens)
        warm.run(True)
        measured = Round(ours, stock, prompts, tokens)
        for repetition in range(args.repeat):
            measured.run(bool(repetition % 2))
        entry = measured.result(args.model)
        found.append(entry)
        failed = failed or bool(measured.fallbacks)
        print(args.model, tokens, entry["ms"], entry["prefilled"], entry["fallbacks"], file=sys.stderr, flush=True)
        write(args.out, edits=[entry])
        for server in (ours, stock):
            if server is not None:
                server.flush()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
