"""An eval on a real server: what its records say of splices, and that no trial hits what another one left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from leyline.commands.eval_progress import PlainProgress
from leyline.evals.trials.assemble import assemble
from leyline.evals.trials.config import EvalConfig
from leyline.evals.trials.run_eval import run_eval

CUT = "truncate_older_than(n=2, max_chars=200)"


def config(served: Any, arms: list[str], **settings: Any) -> EvalConfig:
    return assemble(
        "micro",
        {"n": 1, "workers": 0, "limits.turns": 4, **settings},  # the first edit comes with the fourth turn
        arms=arms,
        arm_fields={"backend": "sglang", "url": served.url},
        options=["levels=short"],
    )


def test_arms_differ_in_what_they_splice_only_and_every_trial_starts_cold(served: Any, tmp_path: Path) -> None:
    quiet = PlainProgress(quiet=True)
    arms = [f"plain={CUT}", f"moved={CUT}@amortize"]
    plain, moved = run_eval(config(served, arms), tmp_path, quiet).records
    (again,) = run_eval(config(served, arms[1:], redo="all"), tmp_path, quiet).records
    for record in (plain, moved, again):
        assert record.model == "tiny-mla"
        assert [turn.edits for turn in record.turns] == [0, 0, 0, 1], record.detail
        assert record.turns[0].prefix == 0
        assert all(turn.balanced and turn.fallback is None for turn in record.turns)
    assert again.attempt == 1
    assert plain.total("spliced") == 0 < moved.total("spliced")
    assert moved.total("spliced") + moved.total("prefilled") == plain.total("prefilled")
    for field in ("prompt", "prefix"):
        counts = [[getattr(turn, field) for turn in record.turns] for record in (plain, moved, again)]
        assert counts[0] == counts[1] == counts[2]
    assert [turn.spliced for turn in again.turns] == [turn.spliced for turn in moved.turns]
