"""How far a server's answers are from a replay of their receipts, in logprobs of the first token."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from statistics import median
from typing import Any

MARGIN = 2.0
"""How much further than a replay in the server's own precision its answers may be from the exact replay."""
CONTROL = 4.0
"""How much further than the splice the unrotated control must be, in the median."""
TOLERANCE = 1e-4
"""For a server in fp32: how far an answer may be from the exact replay."""


@dataclass
class Distances:
    """The largest difference over the vocabulary, for each answer, by kind.

    honest, spliced: the server against the exact replay. `_replay`: the rounded replay against the exact one, for the
    same requests. by_turn: spliced answers by the number of turns before them, over which rounding adds up.
    """

    honest: list[float] = field(default_factory=list)
    spliced: list[float] = field(default_factory=list)
    honest_replay: list[float] = field(default_factory=list)
    spliced_replay: list[float] = field(default_factory=list)
    control: list[float] = field(default_factory=list)
    changed: list[float] = field(default_factory=list)
    by_turn: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    replay_by_turn: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    unverified: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, exchanges: list[Any], exact: Any, rounded: Any) -> None:
        """One conversation. Its turns behind a retraction are left out: their receipts tell of the first prefill."""
        from sgl_oracle import State, distance, first_logprobs
        from sgl_traffic import _expected, _problem

        state, rough, lost = State([]), State([]), False
        clean = next((e for e in exchanges if e.kind == "plain"), None)
        for number, exchange in enumerate(exchanges):
            if exchange.kind == "turn" and lost:
                self.unverified += 1
                continue
            expected, after = _expected(exact, state, exchange)
            second, after_rough = _expected(rounded, rough, exchange)
            got, noise = first_logprobs(exchange.answer, len(expected)), distance(second, expected)
            problem = _problem(exchange)
            if problem:
                self.problems.append(f"{exchange.kind}: {problem}")
            receipt = exchange.receipt
            if receipt is None or receipt.approximate_from is None:
                self.honest.append(distance(expected, got))
                self.honest_replay.append(noise)
            else:
                self.spliced.append(distance(expected, got))
                self.spliced_replay.append(noise)
                self.by_turn[number].append(self.spliced[-1])
                self.replay_by_turn[number].append(noise)
                if receipt.splices:
                    first = exchange.script.directives[0].start
                    wrong, _ = exact.replay(state, exchange.prompt, receipt, first, rotate=False)
                    self.control.append(distance(wrong, got))
                if clean is not None and clean.prompt == exchange.prompt:
                    self.changed.append(distance(first_logprobs(clean.answer, len(expected)), got))
            if exchange.kind in ("first", "turn"):
                state, rough = exact.extend(after, exchange.output), rounded.extend(after_rough, exchange.output)
                lost = lost or bool(exchange.meta.get("num_retractions"))

    def summary(self) -> dict[str, Any]:
        return {
            "honest": spread(self.honest),
            "honest_replay_in_the_servers_precision": spread(self.honest_replay),
            "spliced": spread(self.spliced),
            "spliced_replay_in_the_servers_precision": spread(self.spliced_replay),
            "unrotated_control": spread(self.control),
            "splice_against_clean_prefill": spread(self.changed),
            "spliced_by_turn": {turn: spread(values) for turn, values in sorted(self.by_turn.items())},
            "replay_by_turn": {turn: spread(values) for turn, values in sorted(self.replay_by_turn.items())},
            "unverified_after_retraction": self.unverified,
            "problems": self.problems[:20],
        }

    def ok(self, *, exact_server: bool) -> bool:
        """Whether the answers are as near as the server's precision allows, and the control is not."""
        if self.problems or median(self.control) < CONTROL * median(self.spliced):
            return False
        if exact_server:
            return max(self.honest + self.spliced) <= TOLERANCE
        pairs = ((self.honest, self.honest_replay), (self.spliced, self.spliced_replay))
        return all(f(got) <= MARGIN * f(noise) for got, noise in pairs for f in (median, max))


def spread(values: list[float]) -> dict[str, Any]:
    """How many, and the median, 99th percentile and largest of some distances in logprobs."""
    if not values:
        return {"count": 0}
    ordered = sorted(values)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return {"count": len(values), "median": f"{median(values):.2e}", "p99": f"{p99:.2e}", "max": f"{ordered[-1]:.2e}"}
