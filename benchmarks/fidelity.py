"""The fidelity lab at full size: models, policies and trajectories as jobs of many processes, up to a deadline.

    python benchmarks/fidelity.py --trace trajectories.jsonl.gz --out results/fidelity

Writes one packed file of records a model, `MODEL.jsonl.gz`, and one of its poison probes, `poison-MODEL.jsonl.gz`; and
`run.json`: machine, date, command, and how many jobs were done. A job is one probe, or one trajectory under one policy
at all seams, and counts whole or not at all. The first policy goes first; the others take turns, so that a run that is
cut has some of each.
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import os
import queue
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leyline.backends.local import LocalBackend

POLICIES = (
    "truncate_older_than(n=2, max_chars=200)",
    "drop_stale",
    "keep_last(n=4)",
    "clear_over(trigger=3000, keep=2, at_least=500)",
)
SEAMS = (0, 8, 32, 128)
CONTINUED = 8  # greedy tokens of a probe of the lab
TOKENS = {"settings": 24, "repair": 96}  # of an answer
REPAIRS = 5  # generated tasks for one that makes a poison probe, at least
PAGE = 256  # tokens a forward pass of prefill; what is compared does not depend on it


@dataclass(frozen=True)
class Job:
    """What one process does at a time. source: trace, micro, settings or repair; index: which of it."""

    model: str
    source: str
    index: int
    policy: str = ""


def main() -> None:
    """Run the jobs and write what was done."""
    options = _options()
    began = time.monotonic()
    jobs = [*_poison_jobs(options), *_jobs(options)]
    context = multiprocessing.get_context("spawn")
    waiting, done = context.Queue(), context.Queue()
    for job in [*jobs, *[None] * options.processes]:
        waiting.put(job)
    workers = [
        context.Process(target=_work, args=(options, number, waiting, done), daemon=True)
        for number in range(options.processes)
    ]
    for worker in workers:
        worker.start()
    lines: dict[str, list[str]] = {}
    finished, notes = 0, []
    deadline = began + options.seconds
    while finished < len(jobs) and time.monotonic() < deadline and any(w.is_alive() for w in workers):
        try:
            job, found, note = done.get(timeout=1)
        except queue.Empty:
            continue
        finished += 1
        lines.setdefault(f"{'poison-' if job.source in TOKENS else ''}{job.model}", []).extend(found)
        notes += [f"{job}: {note}"] if note else []
        said = f"{finished}/{len(jobs)} {job.model} {job.source} {job.index} {job.policy}: {len(found)} records {note}"
        print(f"{time.monotonic() - began:6.1f} s  {said}", flush=True)
        if finished % 20 == 0:
            _write(options, lines)  # what is there, should the run be stopped from outside
    for worker in workers:
        worker.terminate()
    waiting.cancel_join_thread()  # nobody reads what is left in it
    _write(options, lines)
    _describe(options, began, finished, len(jobs), notes)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["smollm2", "tiny-mla", "tiny-gqa"])
    parser.add_argument("--trace", type=Path, help="recorded trajectories; without it only generated tasks")
    parser.add_argument("--trace-models", nargs="*", default=["smollm2"], help="models that the recordings fit")
    parser.add_argument("--trajectories", type=int, default=40)
    parser.add_argument("--tasks", type=int, default=40, help="generated tasks")
    parser.add_argument("--first", type=int, default=0, help="index of the first trajectory and task, to go on")
    parser.add_argument("--policies", nargs="+", default=list(POLICIES))
    parser.add_argument("--every", type=int, default=3, help="use every n-th turn with spliced KV")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--devices", nargs="+", default=["cuda:0"], help="the processes take turns on them")
    parser.add_argument("--seconds", type=float, default=480.0, help="stop then; what is done is kept")
    parser.add_argument("--probes", type=int, default=150, help="poison probes of settings; about as many of repairs")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def _jobs(options: argparse.Namespace) -> Iterator[Job]:
    """Every trajectory under the first policy; then, trajectory by trajectory, under each of the others."""
    recorded = [model for model in options.models if options.trace and model in options.trace_models]
    rest = [model for model in options.models if model not in recorded]

    def of(index: int, policy: str) -> Iterator[Job]:
        if index < options.trajectories:
            yield from (Job(model, "trace", index, policy) for model in recorded)
        if index < options.tasks:
            yield from (Job(model, "micro", index, policy) for model in rest)

    every = range(options.first, max(options.trajectories, options.tasks))
    yield from (job for index in every for job in of(index, options.policies[0]))
    yield from (job for index in every for policy in options.policies[1:] for job in of(index, policy))
    first = (options.policies[0],) if recorded else ()
    yield from (
        Job(model, "micro", index, p) for index in every for p in first if index < options.tasks for model in recorded
    )


def _poison_jobs(options: argparse.Namespace) -> Iterator[Job]:
    for index in range(options.probes):
        for model in options.models:
            if model in options.trace_models:
                yield Job(model, "settings", index)
            else:
                yield from (Job(model, "repair", REPAIRS * index + k) for k in range(REPAIRS))


def _work(
    options: argparse.Namespace, number: int, waiting: multiprocessing.Queue, done: multiprocessing.Queue
) -> None:
    """One process: loads each model once, takes jobs until there are none."""
    import torch

    from leyline.directives import LeylineError

    torch.set_num_threads(1)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    shelf = _Shelf(options, options.devices[number % len(options.devices)])
    while True:
        job = waiting.get()
        if job is None:
            return
        found: list[str] = []
        note = ""
        try:
            found.extend(record for record in shelf.records(job))
        except LeylineError as error:
            note = f"{type(error).__name__}: {error}"
        done.put((job, found, note))


class _Shelf:
    """Models, trajectories and probes of one process, made when they are first asked for."""

    def __init__(self, options: argparse.Namespace, device: str) -> None:
        self.options, self.device = options, device
        self._backends: dict[str, LocalBackend] = {}
        self._traces: list = []

    def records(self, job: Job) -> Iterator[str]:
        """The records of a job, as JSON lines."""
        backend = self._backend(job.model)
        if job.source in TOKENS:
            from leyline.evals.fidelity.poison import ask

            probe = self._probe(job)
            if probe is not None:
                for record in ask(backend, probe, seams=SEAMS, tokens=TOKENS[job.source], model=job.model):
                    yield record.model_dump_json()
            return
        from leyline.evals.fidelity.lab import measure

        settings = {"seams": SEAMS, "tokens": CONTINUED, "every": self.options.every, "model": job.model}
        for record in measure(backend, self._trajectory(job), job.policy, **settings):
            yield record.model_dump_json()

    def _backend(self, model: str) -> LocalBackend:
        if model not in self._backends:
            from leyline.backends.local import LocalBackend
            from leyline.models import model_folder

            self._backends[model] = LocalBackend(
                model_folder(model), device=self.device, dtype="float32", page_size=PAGE, max_cached_tokens=60_000
            )
        return self._backends[model]

    def _trajectory(self, job: Job):
        from leyline.evals.fidelity.micro import micro_trajectories
        from leyline.evals.replay.traces import load_trajectories
        from leyline.suites.spec import FIRST_SEED

        if job.source == "micro":
            return next(micro_trajectories(1, job.policy, first=FIRST_SEED + job.index))
        self._traces = self._traces or load_trajectories(self.options.trace)
        return self._traces[job.index]

    def _probe(self, job: Job):
        from leyline.evals.fidelity.poisons import repair_probe, settings_probe

        return settings_probe(job.index) if job.source == "settings" else repair_probe(job.index)


def _write(options: argparse.Namespace, lines: dict[str, list[str]]) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    for name, found in lines.items():
        if found:
            with gzip.GzipFile(options.out / f"{name}.jsonl.gz", "wb", mtime=0) as stream:
                stream.write("".join(f"{line}\n" for line in sorted(found)).encode())


def _describe(options: argparse.Namespace, began: float, finished: int, jobs: int, notes: list[str]) -> None:
    import torch

    from leyline.evals.trials.environment import machine_name, versions

    words = [f'"{word}"' if " " in word else word for word in sys.argv[1:]]
    cuda = torch.cuda.is_available() and any(device.startswith("cuda") for device in options.devices)
    content = {
        "machine": machine_name(f"{len(set(options.devices))} x {torch.cuda.get_device_name(0)}" if cuda else None),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "command": f"python benchmarks/fidelity.py {' '.join(Path(w).name if w.startswith('/') else w for w in words)}",
        "dtype": "float32",
        "versions": versions(),
        "jobs": jobs,
        "finished": finished,
        "seconds": round(time.monotonic() - began, 1),
        "ended_early": notes,
    }
    (options.out / "run.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
