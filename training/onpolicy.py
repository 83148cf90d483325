"""On-policy data (DAgger, Ross et al., arXiv 1011.0686): roll the model out, let the oracle say what it would have done
on what the model saw, and write that as training rows.

    python -m training.onpolicy tiny-mla --weights state --out onpolicy --seconds 90

Waves of episodes follow one another, each with the weights as they are then. Every turn at which model and oracle
differ becomes a document (at most MOST an episode, against endless loops), and some of the others.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from leyline.suites.micro.corpus import LEVELS, draw_policy
from training import checkpoint, evaluate
from training.data import LENGTH, TOKENIZER
from training.engine import Engine
from training.episodes import Episode, Setting, run_all
from training.models import SHAPES, TinyLM
from training.packing import Encoded, pack, write_shard

FIRST_SEED = 90_000_000
STOP = "<|im_end|>"


def draw(seed: int, row: int = 0) -> Episode:
    """A rollout: level and policy follow from the seed."""
    rng = random.Random(f"on-policy/{seed}")
    level = rng.choices([name for name, _ in LEVELS], [share for _, share in LEVELS])[0]
    x = rng.random()
    policy = evaluate.TRUNCATE if x < 0.45 else "keep_all" if x < 0.8 else draw_policy(rng) or "keep_all"
    return Episode(row, "on-policy", seed, level, "train", policy, labelled=True)


def wave(
    model: TinyLM, episodes: Sequence[Episode], workers: int, until: float
) -> tuple[list[Encoded], dict[str, int]]:
    """The documents of a batch of episodes, and counts: what ended, what was solved, turns by their labels."""
    documents: list[Encoded] = []
    counts = dict.fromkeys(("episodes", "solved", "turns", "differing", "unlabelled"), 0)

    def on_row(episode: Episode, row: dict[str, Any]) -> None:
        labels = row["labels"]
        documents.extend(labels["documents"])
        counts["episodes"] += 1
        counts["solved"] += row["solved"]
        for key in ("turns", "differing", "unlabelled"):
            counts[key] += labels[key]

    engine = Engine(model, len(episodes))
    if engine.device.type != "cpu":
        engine.reserve(model.shape.positions + 64)
    setting = Setting(TOKENIZER.parent, model.shape.positions, evaluate.MAX_TOKENS)
    stop = int(Tokenizer.from_file(str(TOKENIZER)).token_to_id(STOP))
    run_all(engine, stop, episodes, setting, workers, until=until, on_row=on_row)
    return documents, counts


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(SHAPES))
    parser.add_argument("--weights", type=Path, required=True, help="folder of the weights in pieces")
    parser.add_argument("--out", type=Path, required=True, help="folder of the shards")
    parser.add_argument("--episodes", type=int, default=320, help="episodes at once")
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--lane", type=int, default=0, help="number of this process, for seeds of its own")
    parser.add_argument("--workers", type=int, default=2, help="processes for environments")
    parser.add_argument("--waves", type=int, default=10**6, help="batches of episodes, at most")
    parser.add_argument("--first", type=int, default=FIRST_SEED, help="first seed of lane 0")
    parser.add_argument("--small", action="store_true", help="a model of two layers, to try the code")
    parser.add_argument("--device")
    args = parser.parse_args(argv)
    until = time.time() + args.seconds
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    shape = SHAPES[args.name].small() if args.small else SHAPES[args.name]
    first = args.first + args.lane * 1_000_000
    for number in range(args.waves):
        if time.time() >= until - 10:
            break
        began = time.time()
        model = TinyLM(shape)
        model.load_state_dict(checkpoint.load_pieces(args.weights, args.name))
        model = model.to(device, torch.float32 if device == "cpu" else torch.bfloat16).eval()
        episodes = [draw(first + i, i) for i in range(args.episodes)]
        documents, counts = wave(model, episodes, args.workers, until)
        rows = list(pack(documents, LENGTH))
        if rows:
            write_shard(args.out, f"{args.name}-{first}", rows)
        counts |= {"documents": len(documents), "rows": len(rows), "seconds": round(time.time() - began)}
        print(json.dumps({"model": args.name, "lane": args.lane, "wave": number, **counts}), flush=True)
        first += args.episodes
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
