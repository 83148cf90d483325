"""Training documents as tokens, and the workers that write them to shards.

python -m training.data --out shards --workers 28 --seconds 600
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from training.packing import ANSWER, NONE, Encoded, Shard, pack, write_shard

LENGTH = 8192
ROWS = 32  # rows a shard
FIRST_SEED = 10_000_000
TOKENIZER = Path(__file__).parent.parent / "leyline" / "models" / "shared" / "tokenizer.json"
CACHED = 4096


class Encoder:
    """Tokenises rendered messages. Pieces repeat over the documents of an episode, so recent ones are kept."""

    def __init__(self, tokenizer: Path = TOKENIZER) -> None:
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._kept: OrderedDict[str, list[int]] = OrderedDict()

    def __call__(self, text: str) -> list[int]:
        ids = self._kept.get(text)
        if ids is None:
            ids = self._kept[text] = list(self._tokenizer.encode(text, add_special_tokens=False).ids)
            if len(self._kept) > CACHED:
                self._kept.popitem(last=False)
        return ids

    def document(self, pieces: Iterable[tuple[str, int]], head: str) -> Encoded:
        """Tokens and loss codes of rendered messages (text, code).

        Of an assistant's turn, `head` (what opens it) and the last token (the line break behind the end) carry none.
        """
        opening = len(self(head))
        ids: list[int] = []
        codes: list[int] = []
        for text, code in pieces:
            piece = self(text)
            ids += piece
            if code == ANSWER:
                codes += [NONE] * opening + [ANSWER] * (len(piece) - opening - 1) + [NONE]
            else:
                codes += [code] * len(piece)
        return ids, codes


def encoded(seeds: Iterable[int], encoder: Encoder) -> Iterator[Encoded]:
    """The documents of training seeds."""
    from leyline.suites.micro.corpus import ASSISTANT_HEAD, documents

    for seed in seeds:
        for document in documents(seed):
            yield encoder.document(document.pieces, ASSISTANT_HEAD)


def rows(seeds: Iterable[int], length: int = LENGTH) -> Iterator[Shard]:
    """Packed rows (2, length) of training seeds; documents that would be cut before anything to learn are left out."""
    useful = (d for d in encoded(seeds, Encoder()) if ANSWER in d[1][:length])
    return pack(useful, length)


def work(folder: Path, worker: int, workers: int, first: int, length: int, until: float, limit: int | None) -> None:
    """Write shards of the seeds first + worker, + workers, ... until the time (epoch seconds) or `limit` shards."""
    os.nice(5)
    buffer: list[Shard] = []
    count = 0
    for row in rows(itertools.count(first + worker, workers), length):
        buffer.append(row)
        if len(buffer) == ROWS:
            write_shard(folder, f"s{first}-w{worker:03d}-{count:05d}", buffer)
            buffer, count = [], count + 1
        if time.time() >= until or (limit is not None and count >= limit):
            return


def start(
    folder: Path, workers: int, seconds: float, first: int = FIRST_SEED, length: int = LENGTH, limit: int | None = None
) -> list[multiprocessing.Process]:
    """Start generator processes; they end by themselves."""
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    until = time.time() + seconds
    processes = [
        context.Process(target=work, args=(folder, i, workers, first, length, until, limit), daemon=True)
        for i in range(workers)
    ]
    for process in processes:
        process.start()
    return processes  # type: ignore[return-value]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the shards")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--first", type=int, default=FIRST_SEED, help="first training seed")
    parser.add_argument("--length", type=int, default=LENGTH, help="tokens a row")
    parser.add_argument("--limit", type=int, help="shards a worker")
    args = parser.parse_args(argv)
    began = time.time()
    processes = start(args.out, args.workers, args.seconds, args.first, args.length, args.limit)
    for process in processes:
        process.join()
    count = len(list(args.out.glob("*.npy")))
    print(
        json.dumps(
            {
                "shards": count,
                "rows": count * ROWS,
                "tokens": count * ROWS * args.length,
                "seconds": round(time.time() - began, 1),
            }
        )
    )
    return 1 if any(process.exitcode for process in processes) else 0


if __name__ == "__main__":
    raise SystemExit(main())
