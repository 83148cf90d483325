"""The fidelity lab: how far a model's answers on spliced KV are from those on honest KV, and what to do about it."""

from leyline.evals.fidelity.probe import FORMAT, FidelityError, FidelityRecord, read_records
from leyline.evals.fidelity.summary import RULE, Row, Verdict, by_edits, by_margin, recommend, rows

__all__ = [
    "FORMAT",
    "RULE",
    "FidelityError",
    "FidelityRecord",
    "Row",
    "Verdict",
    "by_edits",
    "by_margin",
    "read_records",
    "recommend",
    "rows",
]
