"""The tables of docs/evidence.md, from the records in results/fidelity/.

    python benchmarks/evidence.py

Prints each table as Markdown. A test compares them with the page.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from leyline.evals.fidelity import FidelityRecord, by_edits, recommend, rows
from leyline.evals.fidelity.poison import PoisonRecord
from leyline.evals.fidelity.summary import bounds
from leyline.evals.stats.clustered import ClusterBootstrap, Ratio, wilson_share

RESULTS = Path(__file__).parents[1] / "results" / "fidelity"
MODELS = ("smollm2", "tiny-gqa", "tiny-mla")
WAYS = ("full", "honest", "forget", "seam 0", "seam 8", "seam 32", "seam 128")


def runs() -> list[dict[str, Any]]:
    """Machine, date and command of each run that the records are of."""
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(RESULTS.glob("run*.json"))]


@cache
def records(model: str) -> list[FidelityRecord]:
    """The probes of a model, one a seam."""
    with gzip.open(RESULTS / f"{model}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [FidelityRecord.model_validate_json(line) for line in lines]


@cache
def poison(model: str) -> list[PoisonRecord]:
    """The poison probes of a model, one a way of serving."""
    with gzip.open(RESULTS / f"poison-{model}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [PoisonRecord.model_validate_json(line) for line in lines]


def table(head: Sequence[str], body: Iterable[Sequence[object]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def fidelity() -> str:
    """By model and seam: agreement and KL, with the lower ends that the gate's rule looks at."""
    body = []
    for model in MODELS:
        for row in rows(records(model)):
            first, rest = bounds([r for r in records(model) if r.seam == row.seam])
            shares = [row.agree_full, row.agree_honest, row.either, first, row.followed, rest]
            kls = [f"{kl:.4f}" for kl in (row.kl_full, row.kl_honest, row.kl_references)]
            counts = [row.probes, row.trajectories]
            body.append([model, row.seam, *counts, *(f"{share:.1%}" for share in shares), *kls])
    head = ["model", "seam", "probes", "trajectories", "first = full", "first = honest", "either", "its bound"]
    return table([*head, "followed", "its bound", "KL full", "KL honest", "KL of the edit"], body)


def depth() -> str:
    """By model and number of edits so far, at every seam."""
    body = []
    for model in MODELS:
        parts = {seam: {row.label: row for row in by_edits(records(model), seam)} for seam in (0, 8, 32, 128)}
        for label, row in parts[0].items():
            kls = [f"{part[label].kl_honest:.4f}" if label in part else "-" for part in parts.values()]
            body.append([model, label, row.probes, f"{row.either:.1%}", *kls, f"{row.kl_references:.4f}"])
    head = ["model", "edits so far", "probes", "either, seam 0"]
    return table([*head, *(f"KL honest, seam {seam}" for seam in (0, 8, 32, 128)), "KL of the edit"], body)


def seams() -> str:
    """What a seam costs and buys: tokens recomputed a probe, KL to the honest prefill, KL bought a thousand tokens."""
    body = []
    for model in MODELS:
        paired = pairs(model)
        for seam in (0, 8, 32, 128):
            mean, low, high = kl_interval(model, seam)
            cost = sum(moved(p, 0) - moved(p, seam) for p in paired) / len(paired)
            bought = "-"
            if cost > 0:
                gain = sum(p[0].kl_honest - p[seam].kl_honest for p in paired) / len(paired)
                bought = f"{1000 * gain / cost:.3f}"
            body.append([model, seam, len(paired), f"{cost:.0f}", f"{mean:.4f} ({low:.4f} to {high:.4f})", bought])
    return table(["model", "seam", "probes", "tokens recomputed", "KL honest", "KL bought a 1,000 tokens"], body)


def moved(pair: dict[int, FidelityRecord], seam: int) -> int:
    """Tokens moved in a probe's turn."""
    return pair[seam].spliced


def pairs(model: str) -> list[dict[int, FidelityRecord]]:
    """Probes that were answered at every seam, by seam, where the turn itself moved a run at seam 0."""
    found: dict[tuple[str, str, int], dict[int, FidelityRecord]] = {}
    for record in records(model):
        found.setdefault((record.trajectory, record.policy, record.turn), {})[record.seam] = record
    return [pair for pair in found.values() if set(pair) == {0, 8, 32, 128} and pair[0].spliced]


def kl_interval(model: str, seam: int) -> tuple[float, float, float]:
    """Mean KL to the honest prefill over `pairs`, and its 95 % interval by the bootstrap over trajectories."""
    groups: dict[str, list[float]] = {}
    for pair in pairs(model):
        groups.setdefault(pair[0].trajectory, []).append(pair[seam].kl_honest)
    found = ClusterBootstrap(len(groups)).ratio([Ratio(sum(g), len(g)) for g in groups.values()])
    return found.estimate, found.low, found.high


def gates() -> str:
    """What the gate's rule says of each model, over all its policies."""
    verdicts = [(model, recommend(records(model))) for model in MODELS]
    return table(["model", "recommendation", "because"], [[m, v.text, v.reason] for m, v in verdicts])


def leaks(model: str) -> tuple[int, int, float]:
    """Probes served with AMORTIZE at seam 0, how many answers said the removed value, and the share's upper end."""
    own = [r for r in poison(model) if r.way == "seam 0"]
    said = sum(r.says_removed for r in own)
    return len(own), said, wilson_share(said / len(own), len(own)).high


def asked(model: str, kind: str) -> dict[str, list[tuple[PoisonRecord, PoisonRecord]]]:
    """By way of serving: each probe's record, and that of its honest prefill."""
    honest = {r.probe: r for r in poison(model) if r.kind == kind and r.way == "honest"}
    own = [r for r in poison(model) if r.kind == kind]
    return {way: [(r, honest[r.probe]) for r in own if r.way == way] for way in WAYS}


def poisons() -> str:
    """By model, kind and way of serving: what the answers said, and how many are not the honest prefill's."""
    body = []
    for model in MODELS:
        for kind in ("corrected", "cut"):
            for way, found in asked(model, kind).items():
                removed = sum(r.says_removed for r, _ in found)
                right = sum(r.says_right for r, _ in found) if kind == "corrected" else "-"
                other = sum(r.answer != honest.answer for r, honest in found)
                kl = sum(r.kl_honest for r, _ in found) / len(found)
                body.append([model, kind, way, len(found), removed, right, other, f"{kl:.4f}"])
    head = ["model", "the value was", "served", "probes", "says the removed", "says the new", "not the honest answer"]
    return table([*head, "KL honest"], body)


TABLES = (fidelity, depth, seams, gates, poisons)


if __name__ == "__main__":
    for make in TABLES:
        print(f"{make.__doc__}\n\n{make()}\n")
