"""Evals: suites under several arms as trials; statistics, replays, fidelity measurements and reports of them.

Here is what starts an eval and what it writes; `replay`, `fidelity`, `report` and `stats` are packages with names of
their own: `from leyline.evals import replay`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leyline._lazy import lazily

if TYPE_CHECKING:
    from leyline.evals.report import Report, Written, write_report
    from leyline.evals.report.sources import ReportError
    from leyline.evals.trials.arms import Arm, ArmError
    from leyline.evals.trials.assemble import assemble
    from leyline.evals.trials.config import ConfigError, EvalConfig
    from leyline.evals.trials.journal import Journal, JournalError
    from leyline.evals.trials.journal import load as load_records
    from leyline.evals.trials.record import TrialKey, TrialOutcome, TrialRecord, TurnRecord
    from leyline.evals.trials.run_eval import Summary, run_eval
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "leyline.evals.report": "Report Written write_report",
            "leyline.evals.report.sources": "ReportError",
            "leyline.evals.trials.arms": "Arm ArmError",
            "leyline.evals.trials.assemble": "assemble",
            "leyline.evals.trials.config": "ConfigError EvalConfig",
            "leyline.evals.trials.journal": "Journal JournalError load:load_records",
            "leyline.evals.trials.record": "TrialOutcome TrialKey TrialRecord TurnRecord",
            "leyline.evals.trials.run_eval": "Summary run_eval",
        },
        renamed={"Outcome": "TrialOutcome"},
    )

__all__ = [
    "Arm",
    "ArmError",
    "ConfigError",
    "EvalConfig",
    "Journal",
    "JournalError",
    "Report",
    "ReportError",
    "Summary",
    "TrialKey",
    "TrialOutcome",
    "TrialRecord",
    "TurnRecord",
    "Written",
    "assemble",
    "load_records",
    "run_eval",
    "write_report",
]
