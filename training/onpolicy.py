"""One round of on-policy data (DAgger, Ross et al., arXiv 1011.0686): roll the model out, let the oracle say what it
would have done on what the model saw, and write that as training rows.

    python -m training.onpolicy tiny-mla --weights state --out onpolicy --seconds 90

Every turn at which model and oracle differ becomes a document (at most MOST an episode, against endless loops), and
some of the others.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from leyline.backends.render import Renderer
from leyline.evals.suites.micro.documents import ASSISTANT_HEAD, LEVELS, draw_policy, render_message
from leyline.harness.agent import Event
from training import checkpoint
from training.batch import BatchBackend
from training.data import LENGTH, Encoder
from training.environments import Attempt, Environments
from training.evaluate import SHARED, TRUNCATE, Spec, run_episodes
from training.models import SHAPES, TinyLM
from training.packing import ANSWER, NONE, Encoded, pack, write_shard

FIRST_SEED = 90_000_000
MOST = 8
AGREED = 0.1  # share of the turns on which both agree that become documents
CLOSE = "<|im_end|>\n"


class Collector:
    """Labels turns as they happen; `documents` grows from many threads."""

    def __init__(self, seed: int) -> None:
        self.documents: list[Encoded] = []
        self.turns = self.differing = self.unknown = 0
        self._rng = random.Random(seed)
        self._encoder = Encoder()
        self._counts: dict[str, int] = {}
        self._lock = threading.Lock()

    def watch(self, attempt: Attempt, event: Event) -> None:
        if event.kind != "receipt":
            return
        turn = event.data["turn"]
        view = list(turn.input_messages)
        label = attempt.relabel(view)
        with self._lock:
            self.turns += 1
            if label is None:
                self.unknown += 1
                return
            wanted = f"{ASSISTANT_HEAD}{label}{CLOSE}"
            if wanted == render_message(turn.message):
                if self._rng.random() >= AGREED:
                    return
            else:
                self.differing += 1
                self._counts[attempt.id] = self._counts.get(attempt.id, 0) + 1
                if self._counts[attempt.id] > MOST:
                    return
            pieces = [(render_message(message), NONE) for message in view]
            document = self._encoder.document([*pieces, (wanted, ANSWER)], ASSISTANT_HEAD)
            if len(document[0]) <= LENGTH:
                self.documents.append(document)


def draw(seed: int) -> tuple[Spec, str]:
    """Level and policy of a rollout."""
    rng = random.Random(f"on-policy/{seed}")
    level = rng.choices([name for name, _ in LEVELS], [share for _, share in LEVELS])[0]
    x = rng.random()
    policy = TRUNCATE if x < 0.45 else "keep_all" if x < 0.8 else draw_policy(rng) or "keep_all"
    return Spec(seed, level, "train"), policy


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(SHAPES))
    parser.add_argument("--weights", type=Path, required=True, help="folder of the weights in pieces")
    parser.add_argument("--out", type=Path, required=True, help="folder of the shards")
    parser.add_argument("--episodes", type=int, default=160, help="episodes at once")
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--lane", type=int, default=0, help="number of this process, for seeds of its own")
    parser.add_argument("--workers", type=int, default=2, help="processes for environments")
    parser.add_argument("--waves", type=int, default=10**6, help="batches of episodes, at most")
    parser.add_argument("--device")
    args = parser.parse_args(argv)
    until = time.time() + args.seconds
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = TinyLM(SHAPES[args.name])
    model.load_state_dict(checkpoint.load_pieces(args.weights, args.name))
    model = model.to(device, torch.float32 if device == "cpu" else torch.bfloat16).eval()
    environments = Environments(args.workers)
    renderer = Renderer.from_dir(SHARED)
    first, wave = FIRST_SEED + args.lane * 1_000_000, 0
    while time.time() < until - 10 and wave < args.waves:
        collector = Collector(first)
        drawn = [draw(first + i) for i in range(args.episodes)]
        backend = BatchBackend(model, renderer, args.episodes)
        solved = run_episodes(
            backend,
            environments,
            [spec for spec, _ in drawn],
            [policy for _, policy in drawn],
            until=until,
            watch=collector.watch,
        )
        packed = list(pack(collector.documents, LENGTH))
        if packed:
            write_shard(args.out, f"{args.name}-{first}", packed)
        counts = {"episodes": len(solved), "solved": sum(solved), "turns": collector.turns}
        counts |= {"differing": collector.differing, "unlabelled": collector.unknown}
        counts |= {"documents": len(collector.documents), "rows": len(packed)}
        print(json.dumps({"model": args.name, "lane": args.lane, "wave": wave, **counts}), flush=True)
        first, wave = first + args.episodes, wave + 1
    sys.stdout.flush()
    os._exit(0)  # threads of episodes that ran out of time are still waiting


if __name__ == "__main__":
    raise SystemExit(main())
