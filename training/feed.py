"""What a trainer reads: fresh shards as they appear, old rows again when those run short, on-policy rows mixed in."""

from __future__ import annotations

import queue
import random
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.packing import PAD, Shard, ShardFolder, read_shard, unpack

KEPT = 120_000  # rows kept for repetition
WAIT = 0.05
ENOUGH = 2000  # rows seen before any is repeated


@dataclass
class Counts:
    """Rows handed out."""

    fresh: int = 0
    repeated: int = 0
    on_policy: int = 0


class Feed:
    """Batches from shard folders, made by a thread ahead of the trainer.

    on_policy: a folder whose rows, once there are any, make up `share` of every batch and are drawn with repetition.
    part: (rank, ranks): ranks share the shards among them, but not the on-policy rows.
    """

    def __init__(
        self,
        shards: Path,
        rows: int,
        *,
        on_policy: Path | None = None,
        share: float = 0.25,
        seed: int = 0,
        device: str = "cpu",
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self.counts = Counts()
        self._rows, self._share, self._device = rows, share, device
        self._rng = random.Random(f"{seed}/{part[0]}")
        self._main = ShardFolder(shards, part)
        self._extra = ShardFolder(on_policy) if on_policy else None
        self._waiting: list[Shard] = []
        self._old: list[Shard] = []
        self._special: list[Shard] = []
        self._looked = 0.0
        self._batches: queue.Queue[tuple[Tensor, ...]] = queue.Queue(maxsize=4)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Tokens, positions, loss codes and document numbers (rows, length), int64, on the device."""
        batch = self._batches.get()
        return batch[0], batch[1], batch[2], batch[3]

    def _run(self) -> None:
        while True:
            picked = [self._pick() for _ in range(self._rows)]
            planes = [torch.from_numpy(p.astype(np.int64)) for p in unpack(np.stack(picked))]
            if self._device != "cpu":
                planes = [p.pin_memory().to(self._device, non_blocking=True) for p in planes]
            tokens, codes, documents = planes
            self._batches.put((tokens, positions(documents), codes, documents))

    def _pick(self) -> Shard:
        self._look()
        if self._special and self._rng.random() < self._share:
            self.counts.on_policy += 1
            return self._rng.choice(self._special)
        while not self._waiting:
            if len(self._old) >= ENOUGH:
                self.counts.repeated += 1
                return self._rng.choice(self._old)
            time.sleep(WAIT)
            self._look()
        row = self._waiting.pop()
        self.counts.fresh += 1
        if len(self._old) < KEPT:
            self._old.append(row)
        else:
            self._old[self._rng.randrange(KEPT)] = row
        return row

    def _look(self) -> None:
        """Take up new shards, at most a few times a second; rows of one look come out in random order."""
        now = time.monotonic()
        if now - self._looked < (0.5 if self._waiting or len(self._old) >= ENOUGH else WAIT):
            return
        self._looked = now
        found = [row for path in self._main.fresh() for row in read_shard(path)]
        if found:
            self._waiting = found + self._waiting
            if len(found) > len(self._waiting) // 2:
                self._rng.shuffle(self._waiting)
        if self._extra is not None:
            self._special += [row for path in self._extra.fresh() for row in read_shard(path)]


def positions(documents: Tensor) -> Tensor:
    """Positions (rows, length) that restart with every document; padding counts as one document."""
    index = torch.arange(documents.shape[-1], device=documents.device).expand_as(documents)
    starts = torch.ones_like(documents, dtype=torch.bool)
    starts[..., 1:] = documents[..., 1:] != documents[..., :-1]
    return index - torch.where(starts, index, 0).cummax(-1).values


def document_mask(documents: Tensor) -> Tensor:
    """True (rows, 1, length, length) where a token may look: at earlier tokens of its own document, and at itself."""
    length = documents.shape[-1]
    causal = torch.ones(length, length, dtype=torch.bool, device=documents.device).tril_()
    same = documents[:, :, None] == documents[:, None, :]
    return (causal & same)[:, None]


def targets(tokens: Tensor, codes: Tensor, documents: Tensor) -> tuple[Tensor, Tensor]:
    """What each token is to predict (rows, length), and the loss code of that; 0 at the end of a document."""
    following, code = tokens.roll(-1, -1), codes.roll(-1, -1)
    inside = (documents == documents.roll(-1, -1)) & (documents != PAD)
    inside[..., -1] = False
    return following, torch.where(inside, code, 0)
