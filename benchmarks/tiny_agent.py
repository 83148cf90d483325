"""How long a generated task takes a bundled agent on this machine's CPU, in process and without a sandbox.

python benchmarks/tiny_agent.py --tasks 5
python benchmarks/tiny_agent.py --model tiny-gqa --policy keep_all --json bench.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from leyline.backends.contract import Sampling
from leyline.backends.local.backend import LocalBackend
from leyline.harness.agent import Limits, run_agent
from leyline.harness.session.session import Session
from leyline.models import names, resolve
from leyline.suites import micro
from leyline.suites.micro.env import MicroEnv


@dataclass
class Observation:
    text: str
    done: bool


class Attempt:
    """A micro environment as the agent loop's task and toolbox."""

    def __init__(self, seed: int, level: str, split: str) -> None:
        self.task = micro.make_task(seed, level, split)
        self._env = MicroEnv(self.task)
        self.messages = self._env.messages

    def call(self, name: str, arguments: Any) -> Observation:
        return Observation(self._env.call(name, arguments), self._env.done)

    def solved(self) -> bool:
        return self._env.solved()


def measure(backend: LocalBackend, seed: int, level: str, split: str, policy: str, mode: str) -> dict[str, Any]:
    attempt = Attempt(seed, level, split)
    session = Session(backend, policy, mode=mode, tools=micro.TOOLS, sampling=Sampling(max_tokens=256))
    began, used = time.perf_counter(), time.process_time()
    result = run_agent(attempt, attempt, session, limits=Limits(turns=attempt.task.budget))
    totals = result.totals
    return {
        "task": attempt.task.id,
        "seconds": round(time.perf_counter() - began, 2),
        "processor_seconds": round(time.process_time() - used, 2),
        "outcome": result.outcome,
        "turns": result.turns,
        "prefilled_tokens": totals.prefilled_tokens,
        "spliced_tokens": totals.spliced_tokens,
        "completion_tokens": totals.completion_tokens,
        "decode_seconds": round(sum(turn.timings.get("decode", 0.0) for turn in session.turns), 2),
        "prefill_seconds": round(sum(turn.timings.get("prefill", 0.0) for turn in session.turns), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=names(), action="append", help="default: every bundled model")
    parser.add_argument("--tasks", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="seed of the first task")
    parser.add_argument("--level", default="short", choices=micro.LEVELS)
    parser.add_argument("--split", default="seen", choices=micro.SPLITS)
    parser.add_argument("--policy", default="truncate_older_than(n=2, max_chars=200)")
    parser.add_argument("--mode", default="amortize", choices=("amortize", "forget"))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="write the rows to a file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    out = []
    for name in args.model or names():
        backend = LocalBackend(resolve(name), device="cpu")
        measure(backend, args.first, "short", "seen", "keep_all", "amortize")  # warms the kernels up
        rows = []
        for seed in range(args.first, args.first + args.tasks):
            rows.append(measure(backend, seed, args.level, args.split, args.policy, args.mode))
            print(f"{name}  {rows[-1]}", flush=True)
        seconds = sorted(row["seconds"] for row in rows)
        used = statistics.median(row["processor_seconds"] for row in rows)
        decoded = sum(row["completion_tokens"] for row in rows) / max(1e-9, sum(r["decode_seconds"] for r in rows))
        print(
            f"{name}: {args.level} {args.split}, {args.threads} threads: median {statistics.median(seconds):.1f} s, "
            f"worst {seconds[-1]:.1f} s, processor time {used:.1f} s, "
            f"solved {sum(r['outcome'] == 'solved' for r in rows)}/{len(rows)}, "
            f"decode {decoded:.0f} tokens/s",
            flush=True,
        )
        out.append({"model": name, "date": time.strftime("%Y-%m-%d"), "threads": args.threads, "rows": rows})
        backend.close()
    if args.json:
        args.json.write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
