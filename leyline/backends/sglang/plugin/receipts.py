"""The receipt of one request, from its plan."""

from __future__ import annotations

from bisect import bisect_left

from leyline.backends.sglang.plugin.keys import Keyring, Space
from leyline.backends.sglang.plugin.runs import Plan, Run
from leyline.directives import Fallback, Mode, Outcome, Receipt


def make_receipt(plan: Plan, prompt_tokens: int, keyring: Keyring, space: Space) -> Receipt:
    """What was kept, moved and computed for the prompt, as far as is known now."""
    spliced = sum(splice.end - splice.start for splice in plan.splices)
    kept = min(sum(end - start for start, end in plan.kept), prompt_tokens - spliced)
    approximate = min(plan.marks[0].position, prompt_tokens) if plan.marks else None
    fallback, detail = plan.fallback, plan.detail
    short = next((run for run in plan.short if not _kept(run, plan)), None)
    if fallback is None and short is not None:
        fallback = Fallback.PAGE_ALIGNMENT
        detail = f"the run of directive {short.directive} that ends at {short.end} holds no whole page to move"
    return Receipt(
        prompt_tokens=prompt_tokens,
        prefix_tokens=kept,
        spliced_tokens=spliced,
        prefilled_tokens=prompt_tokens - kept - spliced,
        splices=tuple(sorted(plan.splices, key=lambda splice: splice.start)),
        approximate_from=approximate,
        lineage=keyring.seal(plan.marks, space) if plan.marks else None,
        fallback=fallback,
        detail=detail,
        directives=len(plan.script),
        acknowledged=_outcomes(plan),
        choice=plan.choice,
        held=None if plan.found is None else 0 if plan.found.held is None else len(plan.found.held.ids),
        found=() if plan.found is None or plan.told else plan.found.edits,
        purged_tokens=plan.purged,
    )


def _outcomes(plan: Plan) -> tuple[Outcome, ...]:
    """One outcome a directive, in order."""
    runs = {run.directive: run for run in (*plan.runs, *plan.short)}
    starts = sorted(splice.start for splice in plan.splices)
    outcomes = []
    forgotten = False
    for index, directive in enumerate(plan.script):
        forgotten = forgotten or directive.mode is Mode.FORGET
        run = runs.get(index)
        if forgotten:
            outcomes.append(Outcome.FORGOTTEN)
        elif run is not None and bisect_left(starts, run.start) < bisect_left(starts, run.end):
            outcomes.append(Outcome.SPLICED)
        elif run is None and plan.fallback is None and plan.name:
            # Nothing stands between this directive and the next one, or only what is always computed (a seam, the
            # prompt's last token): there was nothing to move. An honest request has no name and reuses nothing.
            outcomes.append(Outcome.CACHED)
        elif run is not None and _kept(run, plan):
            outcomes.append(Outcome.CACHED)
        else:
            outcomes.append(Outcome.PREFILLED)
    return tuple(outcomes)


def _kept(run: Run, plan: Plan) -> bool:
    """Whether some of the run was found where it stands. A run of no whole page may end before its start."""
    first = min(run.start, run.end - 1)
    return any(start < run.end and first < end for start, end in plan.kept)


def missing_donor(plan: Plan) -> tuple[Fallback, str]:
    """Why no run of the source could be moved, told by how much of the source the cache holds."""
    first = plan.script.directives[0]
    held = f"the cache holds {plan.reach} of the source's {len(plan.source)} tokens"
    if first.end > first.start and plan.reach < first.end:
        return Fallback.SOURCE_MISMATCH, f"{held}; the first edit is at {first.start} to {first.end}"
    return Fallback.DONOR_MISSING, f"{held}: nothing behind the first edit, unless that is all new text"
