"""What a harness pays for a session: processor time of a turn beside the server's, on recorded conversations.

    python benchmarks/overheads.py --traces TRACES.jsonl.gz --count 5 --out results/speed/overheads.json

Every turn of each trajectory goes through a `Session` over a backend that answers with the recording at once. Written
for each policy: milliseconds of processor time a turn (policy, ledger, rendering, directives and the accounting of a
simulated cache together) and the same for the longest tenth of the prompts. Processor time, so that a busy machine
does not count.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from typing import Any

from common import write

from leyline.backends.simulated.backend import SimulatedBackend
from leyline.backends.simulated.radix import RadixCache
from leyline.evals.replay.traces import load_trajectories
from leyline.evals.trials.turns import answer_places
from leyline.harness.session.session import Session
from leyline.models.find import load_renderer
from leyline.policies import load_policy

POLICIES = {
    "keep_all": "keep_all",
    "truncate": "truncate_older_than(n=2, max_chars=200)",
    "clear_over": "clear_over(trigger=8000, keep=3, at_least=2000)",
    "cost_aware": "cost_aware(truncate_older_than(n=2, max_chars=200), splice=False)",
}


def measure(policy: str, trajectories: list[Any]) -> list[tuple[int, float]]:
    """Prompt tokens and milliseconds of each turn."""
    renderer, found = load_renderer(), []
    for trajectory in trajectories:
        messages = trajectory.messages
        places = answer_places(messages)
        backend = SimulatedBackend(renderer, RadixCache(), [messages[p] for p in places], splice=True)
        session = Session(backend, load_policy(policy), session_id=trajectory.id)
        for place in places:
            began = time.process_time()
            receipt = session.turn(messages[:place]).receipt
            found.append((receipt.prompt_tokens, 1e3 * (time.process_time() - began)))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", required=True, help="trajectories, as of `leyline replay`")
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--out", help="file to write or to add to; default: print")
    args = parser.parse_args()
    trajectories = list(load_trajectories(args.traces))[: args.count]
    for name, policy in POLICIES.items():
        measure(policy, trajectories[:1])
        turns = sorted(measure(policy, trajectories))
        longest = turns[-max(1, len(turns) // 10) :]
        entry = {
            "name": name,
            "turns": len(turns),
            "prompt_mean": round(statistics.fmean(n for n, _ in turns)),
            "ms_median": round(statistics.median(ms for _, ms in turns), 2),
            "longest_prompt_mean": round(statistics.fmean(n for n, _ in longest)),
            "longest_ms_median": round(statistics.median(ms for _, ms in longest), 2),
        }
        print(entry, file=sys.stderr, flush=True)
        write(args.out, overheads=[entry])
    return 0


if __name__ == "__main__":
    sys.exit(main())
