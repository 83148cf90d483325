"""Recorded sessions over 1 to 1,000 simulated replicas behind each kind of router.

    python benchmarks/fleet.py --traces TRACES.jsonl.gz --costs results/speed/costs-dsv2-lite.json \\
        --out results/fleet/fleet.json

Every session is replayed once by each policy through the simulated cache, which gives for each turn what hits, what is
moved and what an older turn left; then fleets of each size are simulated with so many sessions a replica, arriving at a
steady rate. Text is tokenised with the bundled models' tokenizer. No server is needed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice

from common import write
from tokenizers import Tokenizer

from leyline.backends.simulated import RadixCache, SimulatedBackend
from leyline.directives import Costs
from leyline.directives.common import common_prefix
from leyline.evals.replay.fleet import ROUTERS, Fleet, Request, Seen, requests, simulate
from leyline.evals.replay.traces import load_trajectories
from leyline.evals.trials.turns import answer_places
from leyline.harness.session.session import Session
from leyline.models import tokenizer_file
from leyline.rendering.textrender import TextRenderer

POLICIES = {
    "keep_all": "keep_all",
    "truncate": "truncate_older_than(n=2, max_chars=200)",
    "clear_over": "clear_over(trigger=8000, keep=3, at_least=2000)",
}


def replayed(traces: str, count: int, policy: str) -> tuple[list[tuple[Request, ...]], int, dict[str, float]]:
    """The sessions of a policy, the tokens that all of them begin with, and how long their prompts are."""
    renderer = TextRenderer(Tokenizer.from_file(str(tokenizer_file())))
    sessions, opening, lengths = [], None, []
    for trajectory in islice(load_trajectories(traces), count):
        places = answer_places(trajectory.messages)
        answers = [trajectory.messages[place] for place in places]
        session = Session(SimulatedBackend(renderer, RadixCache(), answers, splice=True), policy)
        for place in places:
            session.turn(trajectory.messages[:place])
        seen = [Seen(turn.input_ids or (), turn.output_ids or (), turn.receipt) for turn in session.turns]
        if not seen:
            continue
        sessions.append(requests(seen))
        first = seen[0].prompt
        opening = first if opening is None else opening[: common_prefix(opening, first)]
        lengths += [len(turn.prompt) for turn in seen]
    about = {"turns": len(lengths), "mean_prompt": sum(lengths) / len(lengths)}
    about["mean_longest"] = sum(max(request.length for request in session) for session in sessions) / len(sessions)
    return sessions, len(opening or ()), about


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", required=True, help="trajectories, as of `leyline replay`")
    parser.add_argument("--costs", required=True, help="a file of `leyline bench calibrate`")
    parser.add_argument("--count", type=int, default=16, help="trajectories that are replayed")
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4, 16, 64, 250, 1000])
    parser.add_argument("--sessions", type=int, default=8, help="sessions of each replica, in all")
    parser.add_argument("--rate", type=float, default=0.2, help="sessions that arrive at each replica a second")
    parser.add_argument("--capacity", type=int, default=400_000, help="KV tokens of a replica")
    parser.add_argument("--out")
    args = parser.parse_args(arguments)
    costs, started = Costs.read(args.costs), time.perf_counter()
    rows, about = [], {}
    for name, policy in POLICIES.items():
        sessions, opening, about[name] = replayed(args.traces, args.count, policy)
        for replicas in args.replicas:
            for router in ROUTERS:
                fleet = Fleet(replicas, router, costs, capacity=args.capacity, rate=args.rate, opening=opening)
                fared = simulate(sessions, fleet, count=args.sessions * replicas)
                rows.append({"policy": name, "replicas": replicas, "router": router, **asdict(fared)})
                print({key: round(value, 3) if isinstance(value, float) else value for key, value in rows[-1].items()})
    seconds = round(time.perf_counter() - started, 1)
    settings = {key: str(value) for key, value in vars(args).items() if key not in ("traces", "out")}
    write(args.out, seconds=seconds, settings=settings, sessions=about, rows=rows)


if __name__ == "__main__":
    main()
