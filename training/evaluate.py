"""Evaluate a tiny agent: many episodes at once, each through the product's own session and agent loop.

    python -m training.evaluate tiny-mla --cells long/seen/amortize,long/seen/truncate --tasks 200 --out runs/eval
    python -m training.evaluate --matrix --out runs/eval --seconds 280        # all cells of both models

A cell is LEVEL/SPLIT/ARM; all arms of a level and split run on the same tasks, and all cells of a call in one batch.
One JSON a cell, written when it is done or time is over; a call runs only the tasks that a cell still lacks. Arms are
described by ARMS.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training import checkpoint
from training.engine import Engine, Fault
from training.episodes import Episode, Setting, run_all

TRUNCATE = "truncate_older_than(n=2, max_chars=200)"
MAX_TOKENS = 256
SAVE_EVERY = 15.0  # seconds


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
SHORT = (*(f"short/seen/{arm}" for arm in ("keep_all", "truncate", "amortize", "forget")), "short/unseen/truncate")
CONTROLS = tuple(f"long/seen/{arm}" for arm in ("unrotated", "shifted", "cut_all"))
LONG = tuple(f"long/seen/{arm}" for arm in ("keep_all", "truncate", "amortize", "forget"))
MATRIX = (SHORT, LONG, CONTROLS)


class Cells:
    """The files of cells: what is there, what is missing, and rows as they come. A row that is missing is an episode
    that had not ended when time was over."""

    def __init__(self, folder: Path, name: str, cells: Sequence[str], seeds: Sequence[int]) -> None:
        self._folder, self._name, self._seeds = folder, name, seeds
        self._kept = {cell: self._read(cell) for cell in cells}
        self._new: dict[str, list[dict[str, Any]]] = {cell: [] for cell in cells}

    def episodes(self) -> list[Episode]:
        """What is still to be run."""
        out: list[Episode] = []
        for cell, kept in self._kept.items():
            level, split, name = cell.split("/")
            arm = ARMS[name]
            there = {row["seed"] for row in kept["rows"]}
            for seed in self._seeds:
                if seed not in there:
                    out.append(Episode(len(out), cell, seed, level, split, arm.policy, arm.mode, arm.splice, arm.fault))
        return out

    def add(self, episode: Episode, row: dict[str, Any]) -> bool:
        """Keep a row; true when its cell is complete."""
        self._new[episode.cell].append(row)
        return len(self._new[episode.cell]) + len(self._kept[episode.cell]["rows"]) == len(self._seeds)

    def write(self, cell: str, run: Mapping[str, Any]) -> str:
        """Write a cell with what came so far; returns one line about it."""
        kept = self._kept[cell]
        if self._new[cell]:
            same = bool(kept["runs"]) and {**kept["runs"][-1], "rows": 0} == {**run, "rows": 0}
            if not same:
                kept["runs"].append({**run, "rows": 0})
            kept["runs"][-1]["rows"] += len(self._new[cell])
            kept["rows"] = sorted([*kept["rows"], *self._new[cell]], key=lambda row: row["seed"])
            self._new[cell] = []
            scratch = self._path(cell).with_suffix(".tmp")
            scratch.write_text(json.dumps(kept), encoding="utf-8")
            scratch.rename(self._path(cell))
        count = len(kept["rows"])
        return f"{self._name} {cell}: {sum(row['solved'] for row in kept['rows'])}/{count} of {len(self._seeds)}"

    def _path(self, cell: str) -> Path:
        return self._folder / f"{self._name}--{cell.replace('/', '--')}.json"

    def _read(self, cell: str) -> dict[str, Any]:
        if self._path(cell).exists():
            found: dict[str, Any] = json.loads(self._path(cell).read_text(encoding="utf-8"))
            return found
        arm = ARMS[cell.split("/")[2]]
        facts = {"policy": arm.policy, "mode": arm.mode, "splice": arm.splice, "fault": arm.fault}
        seeds = {"first_seed": self._seeds[0], "tasks": len(self._seeds)}
        return {"model": self._name, "cell": cell, **facts, **seeds, "max_tokens": MAX_TOKENS, "runs": [], "rows": []}


def find(name_or_folder: str) -> Path:
    """The Hugging Face folder of a bundled model by name, or the folder given."""
    from leyline.models import names, resolve

    return resolve(name_or_folder) if name_or_folder in names() else Path(name_or_folder)


def machine(device: str) -> str:
    if device == "cpu":
        return f"{os.cpu_count()}-core x86 CPU"
    return torch.cuda.get_device_name(torch.device(device))


def evaluate(args: argparse.Namespace) -> None:
    began = time.time()
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    args.out.mkdir(parents=True, exist_ok=True)
    names = args.cells.split(",")
    cells = Cells(args.out, args.name, names, range(args.first, args.first + args.tasks))
    episodes = cells.episodes()
    if not episodes:
        return
    folder = find(args.model or args.name)
    model = checkpoint.load_model(folder, device, dtype)
    engine = Engine(model, len(episodes))
    engine.reserve(args.context + 64 if device != "cpu" else 0)
    run = {
        "machine": machine(device),
        "dtype": str(dtype).removeprefix("torch."),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "command": "python -m training.evaluate " + " ".join(args.command),
        "context": args.context,
    }

    written = began

    def on_row(episode: Episode, row: dict[str, Any]) -> None:
        nonlocal written
        if cells.add(episode, row):
            print(f"{cells.write(episode.cell, run)} after {time.time() - began:.0f} s", flush=True)
        if time.time() - written > SAVE_EVERY:
            lines = [cells.write(cell, run) for cell in names]
            print(f"-- {time.time() - began:.0f} s", *lines, sep="\n", flush=True)
            written = time.time()

    setting = Setting(folder, args.context, MAX_TOKENS)
    stop = int(json.loads((folder / "config.json").read_text(encoding="utf-8"))["eos_token_id"])
    spent = run_all(engine, stop, episodes, setting, args.workers, until=began + args.seconds, on_row=on_row)
    for cell in names:
        print(cells.write(cell, run), flush=True)
    print(f"{args.name}: {spent}, {time.time() - began:.0f} s", flush=True)


def matrix(args: argparse.Namespace) -> None:
    """Every cell of both models: a process for each group of cells, a GPU for each model where there are two."""
    until = time.time() + args.seconds
    groups = [group.split(",") for group in args.cells.split(";")] if args.cells else MATRIX
    running = []
    for place, name in enumerate(("tiny-mla", "tiny-gqa")):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        if torch.cuda.device_count() > 1:
            environment["CUDA_VISIBLE_DEVICES"] = str(place)
        for group in groups:
            owner, _, first = group[0].rpartition(":")
            if owner and owner != name:
                continue
            group = [first, *group[1:]]
            command = [sys.executable, "-m", "training.evaluate", name, "--cells", ",".join(group)]
            command += ["--tasks", str(args.tasks), "--first", str(args.first), "--out", str(args.out)]
            command += ["--workers", str(args.workers), "--seconds", str(args.seconds - 15)]
            command += ["--context", str(args.short_context if group[0].startswith("short") else args.context)]
            command += ["--model", str(Path(args.model) / name)] if args.model else []
            running.append(subprocess.Popen(command, env=environment))
    while any(process.poll() is None for process in running) and time.time() < until + 5:
        time.sleep(2)
        merge(args.out)
    for process in running:
        process.kill()
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


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=("tiny-mla", "tiny-gqa"))
    parser.add_argument("--matrix", action="store_true", help="every cell of both models")
    parser.add_argument("--model", help="a Hugging Face folder instead of the bundled model (--matrix: their parent)")
    parser.add_argument(
        "--cells",
        help="LEVEL/SPLIT/ARM, by commas; with --matrix in groups, by semicolons, a model's own as MODEL:CELLS",
    )
    parser.add_argument("--tasks", type=int, default=200, help="tasks a cell")
    parser.add_argument("--first", type=int, default=0, help="seed of the first task")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2, help="processes in which the episodes run")
    parser.add_argument("--context", type=int, default=8192, help="tokens of prompt and answer, at most")
    parser.add_argument("--short-context", type=int, default=8192, help="with --matrix: the same for short tasks")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so many; finished cells are kept")
    parser.add_argument("--device")
    args = parser.parse_args(argv)
    if not args.matrix and not (args.name and args.cells):
        parser.error("give a model and --cells, or --matrix")
    args.command = list(argv)
    return args


def main() -> None:
    args = parse(sys.argv[1:])
    if args.matrix:
        matrix(args)
    else:
        evaluate(args)


if __name__ == "__main__":
    main()
