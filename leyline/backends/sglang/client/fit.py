"""From measured requests to the constants of `Costs`: least squares with coefficients of at least 0."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from leyline.directives import Costs

Block = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Sample:
    """One request, alone on the server. kind: `prefill` or `edit`.

    seconds: to the first token. length: of the prompt. blocks: what was computed; moved: tokens.
    """

    kind: str
    seconds: float
    length: int
    blocks: tuple[Block, ...]
    moved: int = 0

    @property
    def tokens(self) -> int:
        """Computed tokens."""
        return sum(end - start for start, end in self.blocks)


def fit(samples: Sequence[Sample], start: Costs) -> Costs:
    """The constants that explain the samples best, relative to each sample's time.

    A prompt's length also costs by itself (its text is sent and read), which no choice can save: that part is fitted
    and left out. start: gives what the samples do not tell: `token_bytes`, `chunk`, `queue`, and all of the move's
    constants where nothing was moved.
    """
    honest = [sample for sample in samples if sample.kind == "prefill"]
    rows = [
        (max(1.0, -(-s.tokens // start.chunk)), s.tokens, sum(b * b - a * a for a, b in s.blocks) / 2, s.length)
        for s in honest
    ]
    forward, token, pair, carried = nonnegative(rows, [s.seconds for s in honest])
    costs = replace(start, forward=forward, token=token, pair=pair)
    edits = [sample for sample in samples if sample.kind == "edit"]
    if not edits:
        return costs
    left = [
        s.seconds - carried * s.length - replace(costs, hole=0.0, move=0.0, byte=0.0).turn(s.blocks, s.moved)
        for s in edits
    ]
    weights = [1 / s.seconds for s in edits]
    moves = [(1.0, s.moved * start.token_bytes, max(0, len(s.blocks) - 1)) for s in edits]
    move, byte, hole = nonnegative(moves, left, weights)
    return replace(costs, move=move, byte=byte, hole=hole)


def nonnegative(
    rows: Sequence[Sequence[float]], values: Sequence[float], weights: Sequence[float] | None = None
) -> list[float]:
    """The `x >= 0` of least `sum(weight² (row · x - value)²)`. weights: one over the value where none are given.

    Exact: with a handful of columns every set of them can be tried.
    """
    scale = list(weights) if weights is not None else [1 / value for value in values]
    columns = len(rows[0])
    best: tuple[float, list[float]] | None = None
    for size in range(columns + 1):
        for kept in itertools.combinations(range(columns), size):
            found = _solve([[row[k] * w for k in kept] for row, w in zip(rows, scale, strict=True)], values, scale)
            if found is None or any(x < 0 for x in found):
                continue
            full = [0.0] * columns
            for place, x in zip(kept, found, strict=True):
                full[place] = x
            error = sum(
                (w * (sum(a * b for a, b in zip(row, full, strict=True)) - value)) ** 2
                for row, value, w in zip(rows, values, scale, strict=True)
            )
            if best is None or error < best[0] * (1 - 1e-9):
                best = (error, full)
    assert best is not None
    return best[1]


def _solve(matrix: list[list[float]], values: Sequence[float], scale: Sequence[float]) -> list[float] | None:
    """Plain least squares by normal equations, in columns of length one; None where they do not determine it."""
    size = len(matrix[0])
    norms = [sum(row[k] ** 2 for row in matrix) ** 0.5 for k in range(size)]
    if not all(norms):
        return None
    unit = [[x / norm for x, norm in zip(row, norms, strict=True)] for row in matrix]
    aim = [value * w for value, w in zip(values, scale, strict=True)]
    table = [
        [sum(row[i] * row[j] for row in unit) for j in range(size)]
        + [sum(row[i] * y for row, y in zip(unit, aim, strict=True))]
        for i in range(size)
    ]
    for i in range(size):
        pivot = max(range(i, size), key=lambda k: abs(table[k][i]))
        if abs(table[pivot][i]) < 1e-9:
            return None
        table[i], table[pivot] = table[pivot], table[i]
        for k in range(size):
            if k != i:
                factor = table[k][i] / table[i][i]
                table[k] = [a - factor * b for a, b in zip(table[k], table[i], strict=True)]
    return [table[i][size] / table[i][i] / norms[i] for i in range(size)]


def spread(samples: Sequence[Sample], costs: Costs) -> float:
    """How far a sample's time lies from what is expected, as a share: the median over the samples."""
    return statistics.median(abs(costs.turn(s.blocks, s.moved) / s.seconds - 1) for s in samples)
