"""Train one tiny agent from shards, for a number of seconds; run it again to go on.

    python -m training.train tiny-mla --shards shards --state state --seconds 540 --total 900
    python -m torch.distributed.run --standalone --nproc-per-node 2 -m training.train tiny-mla ...

The schedule is one of time: `--total` is the training time of all calls together, without start-up. The state folder
holds the checkpoint, the loss curve (NAME.csv) and the bf16 weights in pieces.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from training import checkpoint
from training.data import LENGTH
from training.feed import Feed, document_mask, targets
from training.models import SHAPES, Shape, TinyLM, parameters, sdpa
from training.optimise import Optimiser
from training.packing import ANSWER, TEXT
from training.ranks import Ranks

FLAT = 0.35  # share of the schedule at the full rate; then linear to FLOOR
FLOOR = 0.02
WARM_UP = 100  # steps
TEXT_WEIGHT, LATE_TEXT_WEIGHT = 0.15, 0.04  # loss weight of tool text in the first and the second half
SAVE_EVERY = 60.0  # seconds
REPORT_STEPS = 100
CHECK_STEP, CHECK_TOKENS = 150, 1024


@dataclass
class Progress:
    """What a checkpoint knows of the run so far; seconds of training alone."""

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0


def rate(step: int, share: float) -> float:
    """Learning-rate factor at a share (0 to 1) of the schedule."""
    decayed = 1.0 if share < FLAT else max(FLOOR, (1 - share) / (1 - FLAT))
    return min(1.0, (step + 1) / WARM_UP) * decayed


Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def build_loss(model: TinyLM, *, flex: bool, compiled: bool) -> Loss:
    """A function of tokens, positions, targets and documents (rows, length) to the losses (rows, length)."""
    if not flex:
        return lambda tokens, places, wanted, documents: model.losses(
            tokens, places, wanted, sdpa(document_mask(documents))
        )
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    grouped = model.shape.kind == "gqa"

    def make_mask(documents: Tensor):  # type: ignore[no-untyped-def]
        def visible(b, h, q, k):  # type: ignore[no-untyped-def]
            return (q >= k) & (documents[b, q] == documents[b, k])

        rows, length = documents.shape
        return create_block_mask(visible, rows, None, length, length, device=documents.device)

    def loss(tokens: Tensor, places: Tensor, wanted: Tensor, mask) -> Tensor:  # type: ignore[no-untyped-def]
        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            k, v = k.contiguous(), v.contiguous()  # MLA's values are a strided view, which one compiled kernel misread
            return flex_attention(q, k, v, block_mask=mask, enable_gqa=grouped)  # type: ignore[return-value]

        return model.losses(tokens, places, wanted, attend)

    if compiled:
        make_mask, loss = torch.compile(make_mask), torch.compile(loss)
    return lambda tokens, places, wanted, documents: loss(tokens, places, wanted, make_mask(documents))


class Curve:
    """The loss curve as CSV, kept across calls."""

    FIELDS = (
        "step",
        "seconds",
        "tokens",
        "rate",
        "answer_loss",
        "text_loss",
        "tokens_per_second",
        "fresh",
        "repeated",
        "on_policy",
    )

    def __init__(self, path: Path) -> None:
        new = not path.exists()
        self._file = path.open("a", newline="", buffering=1)
        self._writer = csv.writer(self._file)
        if new:
            self._writer.writerow(self.FIELDS)

    def add(self, *values: float) -> None:
        self._writer.writerow(round(v, 5) if isinstance(v, float) else v for v in values)
        print(
            "  ".join(
                f"{n} {v:.4f}" if isinstance(v, float) else f"{n} {v}" for n, v in zip(self.FIELDS, values, strict=True)
            ),
            flush=True,
        )


@torch.no_grad()
def check(model: TinyLM, each: Tensor, tokens: Tensor, places: Tensor, wanted: Tensor, documents: Tensor) -> None:
    """Hold the compiled losses of the first row's start against plain attention; raises when they differ."""
    part = [t[:1, :CHECK_TOKENS] for t in (tokens, places, wanted, documents)]
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=each.is_cuda):
        plain = build_loss(model, flex=False, compiled=False)(*part)
    error = (each[:1, :CHECK_TOKENS] - plain).abs().mean().item()
    print(f"compiled and plain losses differ by {error:.4f} on average", flush=True)
    if error > 0.05:
        raise RuntimeError(f"the compiled attention is wrong: its losses are off by {error:.3f} on average")


def train(args: argparse.Namespace, shape: Shape) -> Progress:
    began = time.time()
    ranks = Ranks(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    device = ranks.device
    gpu = device != "cpu"
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    args.state.mkdir(parents=True, exist_ok=True)
    model = TinyLM(shape).to(device)
    optimiser = Optimiser(model)
    saved = args.state / f"{args.name}.pt"
    progress = Progress()
    if saved.exists():
        progress = Progress(**checkpoint.load(saved, model, optimiser))
    elif args.weights is not None and (args.weights / f"{args.name}.json").exists():
        model.load_state_dict(checkpoint.load_pieces(args.weights, args.name))
        progress = Progress(**json.loads((args.weights / f"{args.name}.json").read_text(encoding="utf-8")))
    print(f"{args.name}: {parameters(shape):,} parameters, from step {progress.steps}", flush=True)
    feed = Feed(
        args.shards,
        args.rows,
        on_policy=args.on_policy,
        share=args.share,
        seed=progress.steps,
        device=device,
        part=(ranks.rank, ranks.count),
    )
    loss = build_loss(model, flex=gpu and not args.plain, compiled=not args.plain)
    curve = Curve(args.state / f"{args.name}.csv") if ranks.first else None
    sums = torch.zeros(4, device=device)
    start, mark = replace(progress), time.time()
    clock: float | None = None  # starts behind the first step, so that compilation is not counted
    kept = time.time()

    def save() -> None:
        if not ranks.first:
            return
        checkpoint.save(saved, model, optimiser, asdict(progress))
        checkpoint.save_pieces(args.state, args.name, model.state_dict())
        (args.state / f"{args.name}.json").write_text(json.dumps(asdict(progress)), encoding="utf-8")

    while True:
        if clock is not None:
            progress.seconds = start.seconds + time.time() - clock
        over = time.time() - began >= args.seconds or progress.steps - start.steps >= args.steps
        progress.seconds, out_of_time = ranks.agree(progress.seconds, over)
        share = progress.seconds / args.total
        if share >= 1 or out_of_time:
            break
        tokens, places, codes, documents = feed.batch()
        wanted, code = targets(tokens, codes, documents)
        text = args.text_weight if share < 0.5 else LATE_TEXT_WEIGHT
        weights = (code == ANSWER).float() + text * (code == TEXT).float()
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=gpu):
            each = loss(tokens, places, wanted, documents)
        if progress.steps - start.steps == CHECK_STEP:
            check(model, each, tokens, places, wanted, documents)
        ((each * weights).sum() / weights.sum().clamp_min(1)).backward()
        ranks.average(model.parameters())
        optimiser.step(args.peak * rate(progress.steps, share))
        with torch.no_grad():
            for place, kind in enumerate((ANSWER, TEXT)):
                sums[2 * place] += (each * (code == kind)).sum()
                sums[2 * place + 1] += (code == kind).sum()
        progress.steps += 1
        progress.tokens += tokens.numel() * ranks.count
        if clock is None:
            if gpu:
                torch.cuda.synchronize()
            clock = mark = time.time()
            print(f"first step after {clock - began:.1f} s", flush=True)
        done = progress.steps - start.steps
        if curve is not None and (done in (2, 10, 30) or progress.steps % REPORT_STEPS == 0):
            a, n, b, m = sums.tolist()
            sums.zero_()
            speed = (progress.tokens - start.tokens) / max(1e-9, time.time() - clock)
            counts = feed.counts
            curve.add(
                progress.steps,
                progress.seconds,
                progress.tokens,
                args.peak * rate(progress.steps, share),
                a / max(1.0, n),
                b / max(1.0, m),
                speed,
                counts.fresh,
                counts.repeated,
                counts.on_policy,
            )
        if time.time() - kept >= SAVE_EVERY:
            save()
            kept = time.time()
    save()
    ranks.close()
    if ranks.first:
        print(json.dumps({"model": args.name, **asdict(progress), **asdict(feed.counts), "wall": time.time() - mark}))
    return progress


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(SHAPES))
    parser.add_argument("--shards", type=Path, required=True, help="folder of training shards")
    parser.add_argument("--state", type=Path, required=True, help="folder of checkpoint, curve and weights")
    parser.add_argument("--on-policy", type=Path, help="folder of on-policy shards, mixed in as they appear")
    parser.add_argument("--share", type=float, default=0.1, help="share of on-policy rows")
    parser.add_argument(
        "--weights", type=Path, help="folder of weight pieces to start from where there is no checkpoint"
    )
    parser.add_argument("--seconds", type=float, default=540.0, help="wall time of this call")
    parser.add_argument("--total", type=float, default=900.0, help="training time of all calls together")
    parser.add_argument("--steps", type=int, default=10**9, help="steps of this call, at most")
    parser.add_argument("--peak", type=float, default=1.0, help="highest learning rate, as a factor of the usual one")
    parser.add_argument("--text-weight", type=float, default=TEXT_WEIGHT, help="loss weight of tool text, first half")
    parser.add_argument("--rows", type=int, default=16, help=f"rows of {LENGTH} tokens a step and GPU")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device")
    parser.add_argument("--plain", action="store_true", help="no compilation, masks as tensors (for a CPU)")
    parser.add_argument("--small", action="store_true", help="a model of two layers, to try the code")
    args = parser.parse_args(argv)
    shape = SHAPES[args.name]
    train(args, shape.small() if args.small else shape)
    os._exit(0)  # the feed's thread may be waiting on a queue


if __name__ == "__main__":
    raise SystemExit(main())
