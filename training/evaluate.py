"""Evaluate a tiny agent: many episodes at once, each through the product's own session and agent loop.

    python -m training.evaluate tiny-mla --cells long/seen/amortize,long/seen/truncate --tasks 200 --out runs/eval
    python -m training.evaluate --matrix --out runs/eval --seconds 280        # all cells of both models

A cell is LEVEL/SPLIT/ARM; all arms of a level and split run on the same tasks. One JSON a cell, written when it is
done; a cell whose file exists is skipped. Arms are described by ARMS.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from leyline.backends.base import Sampling
from leyline.backends.render import Renderer
from leyline.evals.suites import micro
from leyline.harness.agent import AgentResult, Event, Limits, run_agent
from leyline.harness.session import Session
from training import checkpoint
from training.batch import BatchBackend
from training.engine import Fault
from training.environments import Attempt, Environments
from training.models import TinyLM

TRUNCATE = "truncate_older_than(n=2, max_chars=200)"
MAX_TOKENS = 256
SHARED = Path(__file__).parent.parent / "leyline" / "evals" / "models" / "shared"


@dataclass(frozen=True)
class Arm:
    """A policy, the mode of its edits, whether the server splices at all, and what is broken on purpose."""

    policy: str
    mode: str = "amortize"
    splice: bool = True
    fault: Fault = "none"


ARMS = {
    "keep_all": Arm("keep_all"),
    "truncate": Arm(TRUNCATE, splice=False),
    "amortize": Arm(TRUNCATE),
    "forget": Arm(TRUNCATE, mode="forget"),
    "unrotated": Arm(TRUNCATE, fault="unrotated"),
    "shifted": Arm(TRUNCATE, fault="shifted"),
    "slipped": Arm(TRUNCATE, fault="slipped"),
    "cut_all": Arm("truncate_older_than(n=0, max_chars=100)", splice=False),
}
MATRIX = (
    *(f"long/seen/{arm}" for arm in ("amortize", "truncate", "keep_all", "forget", "unrotated", "shifted", "cut_all")),
    *(f"short/seen/{arm}" for arm in ("amortize", "truncate", "keep_all", "forget")),
    *(f"short/unseen/{arm}" for arm in ("truncate", "amortize", "keep_all")),
    "long/seen/slipped",
    "short/seen/unrotated",
    "short/seen/shifted",
    "long/unseen/truncate",
    "long/unseen/amortize",
)
Watch = Callable[[Attempt, Event], None]


@dataclass(frozen=True)
class Spec:
    """One task of a cell."""

    seed: int
    level: str
    split: str


def run_episodes(
    backend: BatchBackend,
    environments: Environments,
    specs: Sequence[Spec],
    policies: Sequence[str],
    *,
    mode: str = "amortize",
    until: float = float("inf"),
    watch: Watch | None = None,
) -> list[dict[str, Any]]:
    """Run all episodes in one batch, each under its own policy; rows of those that ended, in the order of `specs`."""
    rows: dict[int, dict[str, Any]] = {}
    failures: list[BaseException] = []

    def run(number: int, spec: Spec, policy: str) -> None:
        session_id = str(number)
        try:
            attempt = environments.open(spec.seed, spec.level, spec.split)
            session = Session(
                backend,
                policy,
                mode=mode,
                sampling=Sampling(max_tokens=MAX_TOKENS),
                session_id=session_id,
                tools=micro.TOOLS,
            )
            events = (lambda event: watch(attempt, event)) if watch is not None else None
            result = run_agent(attempt, attempt, session, limits=Limits(turns=attempt.budget), on_event=events)
            if result.outcome != "error":
                rows[number] = _row(spec, attempt, session, result)
            attempt.close()
        except BaseException as error:
            failures.append(error)
        finally:
            backend.leave(session_id)

    threads = []
    for number, (spec, policy) in enumerate(zip(specs, policies, strict=True)):
        backend.join()
        threads.append(threading.Thread(target=run, args=(number, spec, policy), daemon=True))
    for thread in threads:
        thread.start()
    complete = backend.serve(until)
    if complete:
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]
    return [rows[number] for number in sorted(rows)]


def _row(spec: Spec, attempt: Attempt, session: Session, result: AgentResult) -> dict[str, Any]:
    totals = result.totals
    return {
        "task": attempt.id,
        "seed": spec.seed,
        "bugs": [bug["kind"] for bug in attempt.bugs],
        "solved": result.outcome == "solved",
        "outcome": result.outcome,
        "reason": result.reason.split(":")[0] if result.outcome == "limit" else "",
        "turns": result.turns,
        "prompt_tokens": totals.prompt_tokens,
        "cached_tokens": totals.cached_tokens,
        "spliced_tokens": totals.spliced_tokens,
        "prefilled_tokens": totals.prefilled_tokens,
        "completion_tokens": totals.completion_tokens,
        "longest_prompt": max((turn.receipt.prompt_tokens for turn in session.turns), default=0),
        "edits": totals.edits,
        "fallbacks": dict(totals.fallbacks),
    }


def run_cell(
    model: TinyLM, renderer: Renderer, environments: Environments, cell: str, tasks: int, first: int, until: float
) -> dict[str, Any] | None:
    """One cell; None when time ran out before every episode ended."""
    level, split, name = cell.split("/")
    arm = ARMS[name]
    backend = BatchBackend(model, renderer, tasks, splice=arm.splice, fault=arm.fault)
    specs = [Spec(seed, level, split) for seed in range(first, first + tasks)]
    began = time.time()
    rows = run_episodes(backend, environments, specs, [arm.policy] * tasks, mode=arm.mode, until=until)
    if len(rows) < tasks:
        return None
    spent = {key: round(value, 1) for key, value in backend.seconds.items()}
    return {
        "cell": cell,
        "policy": arm.policy,
        "mode": arm.mode,
        "splice": arm.splice,
        "fault": arm.fault,
        "seconds": round(time.time() - began, 1),
        "phases": spent,
        "rows": rows,
    }


def load(name_or_folder: str, device: str, dtype: torch.dtype) -> tuple[TinyLM, Renderer]:
    """A bundled model by name, or a Hugging Face folder of one."""
    from leyline.evals.models import names, resolve

    folder = resolve(name_or_folder) if name_or_folder in names() else Path(name_or_folder)
    return checkpoint.load_model(folder, device, dtype), Renderer.from_dir(folder)


def machine(device: str) -> str:
    if device == "cpu":
        return f"{os.cpu_count()}-core x86 CPU"
    return torch.cuda.get_device_name(torch.device(device))


def evaluate(args: argparse.Namespace) -> None:
    until = time.time() + args.seconds
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    args.out.mkdir(parents=True, exist_ok=True)
    todo = [(cell, args.out / f"{args.name}--{cell.replace('/', '--')}.json") for cell in args.cells.split(",")]
    todo = [(cell, path) for cell, path in todo if not path.exists()]
    if not todo:
        return
    environments = Environments(args.workers)
    model, renderer = load(args.model or args.name, device, dtype)
    meta = {
        "model": args.name,
        "machine": machine(device),
        "dtype": str(dtype).removeprefix("torch."),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "command": "python -m training.evaluate " + " ".join(args.command),
        "first_seed": args.first,
        "max_tokens": MAX_TOKENS,
    }
    for cell, path in todo:
        if time.time() >= until - 5:
            break
        made = run_cell(model, renderer, environments, cell, args.tasks, args.first, until)
        if made is None:
            print(f"{args.name} {cell}: out of time", flush=True)
            break
        solved = sum(row["solved"] for row in made["rows"])
        print(f"{args.name} {cell}: {solved}/{len(made['rows'])} in {made['seconds']} s {made['phases']}", flush=True)
        scratch = path.with_suffix(".tmp")
        scratch.write_text(json.dumps({**meta, **made}), encoding="utf-8")
        scratch.rename(path)
    environments.close()


def matrix(args: argparse.Namespace) -> None:
    """Every cell of both models: `lanes` processes a model, a GPU for each model where there are two."""
    until = time.time() + args.seconds
    cells = args.cells.split(",") if args.cells else list(MATRIX)
    lanes = []
    for place, name in enumerate(("tiny-mla", "tiny-gqa")):
        environment = dict(os.environ)
        if torch.cuda.device_count() > 1:
            environment["CUDA_VISIBLE_DEVICES"] = str(place)
        for lane in range(args.lanes):
            mine = cells[lane :: args.lanes]
            if mine:
                command = [sys.executable, "-m", "training.evaluate", name, "--cells", ",".join(mine)]
                command += ["--tasks", str(args.tasks), "--first", str(args.first), "--out", str(args.out)]
                command += ["--workers", str(args.workers), "--seconds", str(args.seconds - 5)]
                if args.model:
                    command += ["--model", str(Path(args.model) / name)]
                lanes.append(subprocess.Popen(command, env=environment))
    while any(lane.poll() is None for lane in lanes) and time.time() < until:
        time.sleep(2)
        merge(args.out)
    for lane in lanes:
        lane.kill()
    merge(args.out)


def merge(folder: Path) -> None:
    """Join the cells of each model into `folder/MODEL.json`, a task a line."""
    for name in ("tiny-mla", "tiny-gqa"):
        cells = [json.loads(p.read_text(encoding="utf-8")) for p in sorted(folder.glob(f"{name}--*.json"))]
        if cells:
            write_cells(folder / f"{name}.json", cells)


def write_cells(path: Path, cells: Sequence[Mapping[str, Any]]) -> None:
    """A JSON array of cells, with one line for each row."""
    parts = []
    for cell in cells:
        head = json.dumps({k: v for k, v in cell.items() if k != "rows"})
        rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in cell["rows"])
        parts.append(f'{head[:-1]}, "rows": [\n{rows}\n]}}')
    scratch = path.with_suffix(".tmp")
    scratch.write_text("[\n" + ",\n".join(parts) + "\n]\n", encoding="utf-8")
    scratch.rename(path)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=("tiny-mla", "tiny-gqa"))
    parser.add_argument("--matrix", action="store_true", help="every cell of both models")
    parser.add_argument("--model", help="a Hugging Face folder instead of the bundled model (--matrix: their parent)")
    parser.add_argument("--cells", help="LEVEL/SPLIT/ARM, separated by commas")
    parser.add_argument("--tasks", type=int, default=200, help="tasks a cell")
    parser.add_argument("--first", type=int, default=0, help="seed of the first task")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2, help="processes for environments")
    parser.add_argument("--lanes", type=int, default=4, help="with --matrix: processes a model")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so many; finished cells are kept")
    parser.add_argument("--device")
    args = parser.parse_args(argv)
    args.command = list(argv) if argv is not None else sys.argv[1:]
    if args.matrix:
        matrix(args)
    elif args.name and args.cells:
        evaluate(args)
    else:
        parser.error("give a model and --cells, or --matrix")
    sys.stdout.flush()
    os._exit(0)  # threads of episodes that ran out of time are still waiting


if __name__ == "__main__":
    multiprocessing.freeze_support()
    raise SystemExit(main())
