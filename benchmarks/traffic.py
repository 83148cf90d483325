"""Recorded conversations through one server, several at a time: time to the first token by policy and cache.

    python benchmarks/traffic.py --url http://127.0.0.1:30001 --model NAME --traces TRACES.jsonl.gz --count 16 \\
        --concurrency 8 --out results/speed/traffic.json

An arm is a policy and a cache: `radix` (the edited prompt, no directives), `amortize` or `auto`. Every arm replays the
same trajectories from an empty cache; recorded answers are prefilled behind the prompt as if they had been generated,
or, with `--decode N`, N tokens are decoded in every turn. Written for each arm: the client's time to the first token
over all turns and over the turns with an edit, in milliseconds, the hit rate, turns a second, GPU-seconds and joules a
turn; and beside each arm the mean of the same policy's `radix` and of `keep_all/radix` from the same run. With
`--rounds` all arms are run in turn that often, so that what drifts falls on each of them alike.

Text is tokenised with the bundled models' tokenizer; the server's own is not used (`--skip-tokenizer-init`).
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from common import Server, summary, write
from tokenizers import Tokenizer

from leyline.backends.contract import Backend, BackendError, Sampling
from leyline.backends.sglang import SGLangBackend
from leyline.evals.replay.recorded import RecordedBackend
from leyline.evals.replay.traces import load_trajectories
from leyline.evals.trials.energy import EnergyMeter
from leyline.evals.trials.serving import PlainBackend
from leyline.evals.trials.turns import answer_places
from leyline.harness.session.session import Session
from leyline.models import tokenizer_file
from leyline.policies import load_policy
from leyline.rendering.textrender import TextRenderer

POLICIES = {
    "keep_all": "keep_all",
    "truncate": "truncate_older_than(n=2, max_chars=200)",
    "keep_last": "keep_last(n=5)",
    "clear_over": "clear_over(trigger=8000, keep=3, at_least=2000)",
    "frozen": "when(truncate_older_than(n=2, max_chars=200), every=8)",
}
ARMS = ["keep_all/radix"] + [
    f"{policy}/{held}" for policy in POLICIES if policy != "keep_all" for held in ("radix", "amortize", "auto")
]


@dataclass(frozen=True)
class Job:
    """One trajectory under one arm, for a worker process. stamp: keeps its cache apart from every other run's."""

    url: str
    traces: str
    index: int
    arm: str
    decode: int
    stamp: str
    turns: int | None = None


class _Text(TextRenderer):
    """ChatML, with the tokenizer in reach of the client."""

    @property
    def tokenizer(self) -> Tokenizer:
        return self._tokenizer


class _Decoding:
    """A backend that decodes so many tokens a turn, and answers with the recording all the same."""

    def __init__(self, inner: Backend, tokens: int) -> None:
        self._inner, self._tokens = inner, tokens

    def chat(self, messages: Any, tools: Any, session: Any) -> Any:
        return self._inner.chat(messages, tools, replace(session, sampling=Sampling(max_tokens=self._tokens)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@cache
def _trajectories(path: str) -> list[Any]:
    return list(load_trajectories(path))


@cache
def _backend(url: str) -> SGLangBackend:
    backend = SGLangBackend(url, tokenizer=tokenizer_file().parent)
    backend._renderer = _Text(Tokenizer.from_file(str(tokenizer_file())))  # type: ignore[assignment]
    return backend


def replay(job: Job) -> list[dict[str, Any]]:
    """All turns of one trajectory."""
    policy, held = job.arm.split("/")
    trajectory = _trajectories(job.traces)[job.index]
    served: Any = _backend(job.url)
    if job.decode:
        served = _Decoding(served, job.decode)
    recorded = RecordedBackend(served)
    places = answer_places(trajectory.messages)[: job.turns]
    recorded.begin([trajectory.messages[place] for place in places])
    name = f"{trajectory.id}/{job.arm}/{job.stamp}"
    session = Session(
        PlainBackend(recorded) if held == "radix" else recorded,
        load_policy(POLICIES[policy]),
        mode="forget" if held == "radix" else held,
        session_id=name,
        tenant=name,
    )
    rows: list[dict[str, Any]] = []
    for place in places:
        began = time.perf_counter()
        try:
            turn = session.turn(trajectory.messages[:place])
        except BackendError as error:
            rows.append({"error": str(error)[:200]})
            break
        receipt = turn.receipt
        rows.append(
            {
                "ttft": 1e3 * turn.timings["ttft"] if "ttft" in turn.timings else None,
                "turn": time.perf_counter() - began,
                "prompt": receipt.prompt_tokens,
                "spliced": receipt.spliced_tokens,
                "prefilled": receipt.prefilled_tokens,
                "edits": len(turn.edits),
                "fallback": str(receipt.fallback) if receipt.fallback else None,
                "taken": receipt.choice.taken if receipt.choice else None,
                "expected": min(receipt.choice.expected.values()) if receipt.choice else None,
                "took": receipt.choice.seconds if receipt.choice else None,
                "client": 1e3 * (turn.timings["policy"] + turn.timings["render"]),
            }
        )
    return rows


@dataclass
class Measured:
    """One arm's rounds."""

    rows: list[list[dict[str, Any]]] = field(default_factory=list)
    walls: list[float] = field(default_factory=list)
    joules: list[float | None] = field(default_factory=list)
    means: list[float] = field(default_factory=list)

    def add(self, rows: list[list[dict[str, Any]]], wall: float, joules: float | None) -> None:
        """One round."""
        self.rows += rows
        self.walls.append(wall)
        self.joules.append(joules)
        self.means.append(statistics.fmean(row["ttft"] for turns in rows for row in turns if row.get("ttft")))

    def entry(self) -> dict[str, Any]:
        """All rounds as one, and the mean of each."""
        joules = [value for value in self.joules if value is not None]
        spent = sum(joules) if len(joules) == len(self.joules) else None
        rounds = {"rounds": len(self.walls), "round_means": [round(mean, 1) for mean in self.means]}
        return arm_entry(self.rows, sum(self.walls), spent) | rounds


def arm_entry(rows: Iterable[list[dict[str, Any]]], wall: float, joules: float | None) -> dict[str, Any]:
    """What is written of one arm."""
    flat = [row for found in rows for row in found]
    errors = [row["error"] for row in flat if "error" in row]
    turns = [row for row in flat if row.get("ttft") is not None]
    times, edited = [row["ttft"] for row in turns], [row["ttft"] for row in turns if row["edits"]]
    prompt = sum(row["prompt"] for row in turns)
    entry: dict[str, Any] = {
        "turns": len(turns),
        **{f"ttft_{name}": value for name, value in summary(times).items()},
        "edited_turns": len(edited),
        **({f"edited_{name}": value for name, value in summary(edited).items()} if edited else {}),
        "hit_rate": round(1 - sum(row["prefilled"] for row in turns) / prompt, 4),
        "prompt_mean": round(prompt / len(turns)),
        "prefilled_per_turn": round(sum(row["prefilled"] for row in turns) / len(turns)),
        "spliced_per_turn": round(sum(row["spliced"] for row in turns) / len(turns)),
        "wall_s": round(wall, 2),
        "turns_per_s": round(len(turns) / wall, 2),
        "gpu_s_per_turn": round(wall / len(turns), 4),
        "joules_per_turn": None if joules is None else round(joules / len(turns), 2),
        "client_ms": round(statistics.fmean(row["client"] for row in turns), 2),
        "fallbacks": dict(Counter(row["fallback"] for row in turns if row["fallback"])),
        "taken": dict(Counter(row["taken"] for row in turns if row["taken"])),
        "errors": errors[:3],
    }
    pairs = [(row["expected"], row["took"]) for row in turns if row["took"] is not None]
    if pairs:
        entry["auto_expected_ms"] = round(1e3 * statistics.fmean(e for e, _ in pairs), 2)
        entry["auto_took_ms"] = round(1e3 * statistics.fmean(t for _, t in pairs), 2)
    return entry


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="the server with the plugin")
    parser.add_argument("--model", required=True, help="the name to write down")
    parser.add_argument("--traces", required=True, help="trajectories, as of `leyline replay`")
    parser.add_argument("--count", type=int, default=16, help="trajectories")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[8])
    parser.add_argument("--arms", nargs="+", default=ARMS, help="POLICY/CACHE; see the top of this file")
    parser.add_argument("--decode", type=int, default=0, help="tokens to decode in each turn; 0 decodes none")
    parser.add_argument("--turns", type=int, help="turns of each trajectory at most")
    parser.add_argument("--rounds", type=int, default=1, help="how often the arms are run, every second time backwards")
    parser.add_argument("--pool", type=int, help="the server's KV pool in tokens, to write down")
    parser.add_argument("--warm", type=int, default=8, help="turns of each trajectory to warm the server up with")
    parser.add_argument("--until", type=float, help="start no further arm after so many seconds")
    parser.add_argument("--out", help="file to write or to add to; default: print")
    args = parser.parse_args()
    began = time.monotonic()
    traces, server, energy = str(Path(args.traces).resolve()), Server(args.url), EnergyMeter()
    failed = False
    with multiprocessing.get_context("spawn").Pool(max(args.concurrency)) as pool:
        for arm in ("truncate/radix", "truncate/amortize", "truncate/auto"):
            jobs = [Job(args.url, traces, i, arm, args.decode, "warm", args.warm) for i in range(max(args.concurrency))]
            pool.map(replay, jobs, chunksize=1)
    for concurrency in args.concurrency:
        found: dict[str, Measured] = {arm: Measured() for arm in args.arms}
        with multiprocessing.get_context("spawn").Pool(concurrency) as pool:
            pool.map(_ready, [(args.url, traces)] * concurrency, chunksize=1)
            for number in range(args.rounds):
                for arm in args.arms if number % 2 == 0 else reversed(args.arms):
                    if args.until is not None and time.monotonic() - began > args.until:
                        print("out of time before", arm, concurrency, "round", number, file=sys.stderr)
                        failed = True
                        continue
                    server.flush()
                    stamp = f"c{concurrency}r{number}"
                    jobs = [Job(args.url, traces, i, arm, args.decode, stamp, args.turns) for i in range(args.count)]
                    joules, start = energy.read(), time.perf_counter()
                    rows = pool.map(replay, jobs, chunksize=1)
                    wall, after = time.perf_counter() - start, energy.read()
                    found[arm].add(rows, wall, after - joules if joules is not None and after is not None else None)
                    print(
                        arm,
                        concurrency,
                        number,
                        summary([r["ttft"] for f in rows for r in f if r.get("ttft")]),
                        round(wall, 1),
                        "s",
                        file=sys.stderr,
                        flush=True,
                    )
        for entry in entries(found, args, concurrency):
            failed = failed or bool(entry["errors"])
            print(entry, file=sys.stderr, flush=True)
            write(args.out, traffic=[entry])
    return int(failed)


def entries(found: dict[str, Measured], args: argparse.Namespace, concurrency: int) -> Iterable[dict[str, Any]]:
    """What is written of the arms of one concurrency."""
    means: dict[str, dict[str, Any]] = {}
    for arm in sorted(found, key=lambda arm: (not arm.endswith("/radix"), args.arms.index(arm))):
        measured = found[arm]
        if not measured.walls:
            continue
        about = {"model": args.model, "arm": arm, "concurrency": concurrency, "decode": args.decode}
        if args.pool:
            about["pool"] = args.pool
        entry = measured.entry()
        means[arm] = {key: value for key, value in entry.items() if str(key).startswith("ttft_")}
        radix = means.get(f"{arm.split('/')[0]}/radix", {})
        entry |= {f"radix_{key}": value for key, value in radix.items()}
        yield {**about, **entry, "keep_all_ttft_mean": means.get("keep_all/radix", {}).get("ttft_mean")}


def _ready(job: tuple[str, str]) -> None:
    """Bring one worker's tokenizer and trajectories in before the clock runs."""
    _backend(job[0])
    _trajectories(job[1])
    time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
