"""One slot of training: generators, and the trainers of both models side by side on the same shards.

    python -m training.run --work /tmp/tiny --out $OUT --seconds 585 --total 840
    python -m training.run --work /tmp/tiny --out $OUT --seconds 400 --total 840 --on-policy 110 --pack

Run again, it goes on where the work folder stands; on another machine, `--weights` gives the pieces that an earlier
slot left in its output folder. --pack leaves ready models under WORK/packed and WORK/plain.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from training import checkpoint
from training.models import SHAPES

EARLY = 240.0  # seconds in which a trainer's failure ends the slot
MODELS = ("tiny-mla", "tiny-gqa")
SHARED = Path(__file__).parent.parent / "leyline" / "models" / "shared"


class Fleet:
    """Child processes, each with a log of its own that is also shown."""

    def __init__(self, logs: Path) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, label: str, module: str, *arguments: object, gpus: Sequence[int] = ()) -> None:
        """Run training.MODULE: on the GPUs given, with a process for each where there are several."""
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        environment.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
        launcher: list[str] = []
        if gpus and torch.cuda.device_count() > 1:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpus))
            if len(gpus) > 1:
                launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(len(gpus))]
        command = [sys.executable, *launcher, "-m", f"training.{module}", *map(str, arguments)]
        log = (self._logs / f"{label}.log").open("ab")
        self._running[label] = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def busy(self, prefix: str) -> bool:
        return any(p.poll() is None for label, p in self._running.items() if label.startswith(prefix))

    def failed(self) -> list[str]:
        return [label for label, p in self._running.items() if p.poll() not in (None, 0)]

    def stop(self) -> None:
        for process in self._running.values():
            if process.poll() is None:
                process.kill()

    def tails(self, count: int = 3) -> str:
        lines = []
        for path in sorted(self._logs.glob("*.log")):
            text = path.read_text(encoding="utf-8", errors="replace").splitlines()
            lines += [f"== {path.stem}", *text[-count:]]
        return "\n".join(lines)


def collect(work: Path, out: Path) -> None:
    """Copy what must survive the machine: weights in pieces, progress, curves and the ends of the logs."""
    out.mkdir(parents=True, exist_ok=True)
    state = work / "state"
    for path in state.glob("*.safetensors"):
        shutil.copyfile(path, out / path.name)
    summary = {
        path.name: path.read_text(encoding="utf-8", errors="replace")[-200_000:]
        for folder in (state, work / "logs")
        for path in sorted(folder.glob("*"))
        if path.suffix in (".csv", ".json", ".log")
    }
    (out / "summary.json").write_text(json.dumps(summary), encoding="utf-8")


def layout(text: str) -> dict[str, list[int]]:
    """Which GPUs a model's trainer has, and its rollouts, from `tiny-mla=0,1 tiny-gqa=2 rollouts=3`. A model that is
    not named has the GPU of its number; rollouts run beside their trainer."""
    gpus: dict[str, list[int]] = {name: [number] for number, name in enumerate(MODELS)}
    for part in text.split():
        name, _, numbers = part.partition("=")
        gpus[name] = [int(number) for number in numbers.split(",")]
    return gpus


def restore(weights: Path, state: Path) -> None:
    """Lay pieces and progress of an earlier slot where the trainers look."""
    summary = json.loads((weights / "summary.json").read_text(encoding="utf-8"))
    state.mkdir(parents=True, exist_ok=True)
    for path in weights.glob("*.safetensors"):
        shutil.copyfile(path, state / path.name)
    for name in MODELS:
        for suffix in (".json", ".csv"):
            if name + suffix in summary:
                (state / (name + suffix)).write_text(summary[name + suffix], encoding="utf-8")


def restore_bundled(state: Path) -> None:
    """Lay the weights of the bundled models where the trainers look, for a schedule of their own."""
    from leyline.models import resolve

    for name in MODELS:
        weights = load_file(resolve(name) / "model.safetensors")
        weights.pop("lm_head.weight")
        checkpoint.save_pieces(state, name, weights)
        (state / f"{name}.json").write_text('{"steps": 0, "tokens": 0, "seconds": 0.0}', encoding="utf-8")


def pack(work: Path, name: str) -> dict[str, object]:
    """WORK/plain/NAME (bf16) and WORK/packed/NAME (expanded from the pack), and the sizes."""
    from leyline.models.pack import expand
    from training.pack_weights import pack as pack_folder

    plain, small, packed = (work / kind / name for kind in ("plain", "small", "packed"))
    weights = checkpoint.load_pieces(work / "state", name)
    checkpoint.export(plain, SHAPES[name], weights, SHARED, torch.bfloat16)
    manifest = pack_folder(plain, small)
    packed.mkdir(parents=True, exist_ok=True)
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(plain / file, packed / file)
    expand(small / "weights.bin", packed / "model.safetensors")
    return {"model": name, "bytes": (small / "weights.bin").stat().st_size, **manifest}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="local folder of shards, checkpoints and logs")
    parser.add_argument("--out", type=Path, required=True, help="folder of what must survive the machine")
    parser.add_argument("--seconds", type=float, default=585.0, help="wall time of this slot")
    parser.add_argument("--total", type=float, default=840.0, help="training seconds of all slots together")
    parser.add_argument("--workers", type=int, default=12, help="generator processes")
    parser.add_argument("--on-policy", type=float, default=0.0, help="seconds of rollouts beside the training")
    parser.add_argument("--lanes", type=int, default=2, help="rollout processes a model")
    parser.add_argument("--weights", type=Path, help="pieces of an earlier slot, for a machine without its work folder")
    parser.add_argument("--bundled", action="store_true", help="start from the bundled weights, with a new schedule")
    parser.add_argument("--pack", action="store_true", help="pack the models at the end")
    parser.add_argument("--first", type=int, default=10_000_000, help="first training seed of this slot")
    parser.add_argument("--gpus", default="", help="such as 'tiny-mla=0,1 tiny-gqa=2 rollouts=3'; one each by default")
    parser.add_argument("--rollout", default="", help="more options for the rollouts, as one string")
    parser.add_argument("--data", default="", help="more options for the generators, as one string")
    parser.add_argument("--train", default="", help="more options for the trainers, as one string")
    args = parser.parse_args(argv)
    began = time.time()
    work, state, shards = args.work, args.work / "state", args.work / "shards"
    if not any(state.glob("*.pt")):
        if args.weights:
            restore(args.weights, state)
        elif args.bundled:
            restore_bundled(state)
    shutil.rmtree(shards, ignore_errors=True)  # every slot has fresh seeds
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(work / "inductor"))
    fleet = Fleet(work / "logs")
    spare = 25.0 if args.pack else 12.0
    fleet.start("data", "data", "--out", shards, "--workers", args.workers, "--seconds", args.seconds - spare,
                "--first", args.first, *args.data.split())  # fmt: skip
    gpus = layout(args.gpus)
    for name in MODELS:
        fleet.start(f"train-{name}", "train", name, "--shards", shards, "--state", state, "--on-policy",
                    work / "on-policy" / name, "--weights", state, "--total", args.total,
                    "--seconds", args.seconds - spare, *args.train.split(), gpus=gpus[name])  # fmt: skip
        for lane in range(args.lanes if args.on_policy else 0):
            fleet.start(f"rollout-{name}-{lane}", "onpolicy", name, "--weights", state, "--out",
                        work / "on-policy" / name, "--seconds", args.on_policy, "--lane", lane,
                        *args.rollout.split(), gpus=gpus.get("rollouts", gpus[name])[:1])  # fmt: skip
    shown = collected = time.time()
    while fleet.busy("train") and time.time() < began + args.seconds - 4:
        time.sleep(1)
        if time.time() - shown > 30:
            print(f"-- {time.time() - began:.0f} s, failed: {fleet.failed()}\n{fleet.tails()}", flush=True)
            shown = time.time()
        if time.time() - began < EARLY and any(label.startswith("train") for label in fleet.failed()):
            fleet.stop()
            print(f"a trainer failed at once; the slot is given up\n{fleet.tails(40)}", flush=True)
            return 1
        if time.time() - collected > 150:
            collect(work, args.out)
            collected = time.time()
    failed = fleet.failed()
    fleet.stop()
    if args.pack:
        for name in MODELS:
            print(json.dumps(pack(work, name)), flush=True)
    collect(work, args.out)
    print(fleet.tails(), flush=True)
    print(f"slot over after {time.time() - began:.0f} s; failed: {', '.join(failed) or 'none'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
