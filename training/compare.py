"""How far two forms of a model are apart, such as before and after packing: loss and top token on fresh documents.

python -m training.compare /tmp/tiny/plain/tiny-mla leyline-model-folder --documents 24
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F

from training import checkpoint
from training.data import LENGTH, Encoder, encoded
from training.models import TinyLM, sdpa
from training.packing import ANSWER

FIRST_SEED = 70_000_000


@torch.no_grad()
def logits(model: TinyLM, tokens: torch.Tensor) -> torch.Tensor:
    """Logits (1, n, vocab) of one document (1, n)."""
    return model.logits(model.hidden(tokens, torch.arange(tokens.shape[1])[None], sdpa(None)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--documents", type=int, default=24)
    args = parser.parse_args()
    models = [checkpoint.load_model(folder) for folder in (args.first, args.second)]
    losses, count, agreed = [0.0, 0.0], 0, 0
    documents = encoded(range(FIRST_SEED, FIRST_SEED + args.documents), Encoder())
    for ids, codes in (d for d, _ in zip(documents, range(args.documents), strict=False)):
        tokens = torch.tensor([list(ids[:LENGTH])])
        learned = torch.tensor(list(codes[1:LENGTH])) == ANSWER
        if not learned.any():
            continue
        scores = [logits(model, tokens)[0, :-1][learned] for model in models]
        wanted = tokens[0, 1:][learned]
        for i, score in enumerate(scores):
            losses[i] += F.cross_entropy(score, wanted, reduction="sum").item()
        agreed += int((scores[0].argmax(-1) == scores[1].argmax(-1)).sum())
        count += len(wanted)
    print(
        json.dumps(
            {
                "documents": args.documents,
                "answer_tokens": count,
                "loss": [round(x / count, 5) for x in losses],
                "same_top_token": round(agreed / count, 5),
            }
        )
    )


if __name__ == "__main__":
    main()
