"""What a run comes to: a row for each task, and the totals over the rows."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from leyline.directives import JsonObject
from leyline.directives.counts import count
from leyline.harness.agent import AgentResult
from leyline.harness.tasks import Task
from leyline.harness.trajectory import TrajectoryWriter

COUNTS = ("prompt_tokens", "cached_tokens", "spliced_tokens", "prefilled_tokens", "edits")


def row(
    task: Task, result: AgentResult, writer: TrajectoryWriter | None, patch: str, kept: int | None = None
) -> JsonObject:
    """One task as JSON: outcome, tokens, where its trajectory is, and what the agent changed.

    solved: null for a task without tests, however its agent ended. kept: see `kept_computed`; null where the server
    renders. ordinary_tokens: what a cache that does not splice would have computed of the same prompts.
    """
    return {
        "task": task.id,
        "solved": None if task.eval_command(1) is None else result.outcome == "solved",
        "outcome": result.outcome,
        "reason": result.reason,
        "seconds": round(result.seconds, 3),
        "trajectory": str(writer.path) if writer is not None else None,
        **result.totals.to_dict(),
        "ordinary_tokens": result.totals.prefilled_tokens + result.totals.spliced_tokens,
        "kept_tokens": kept,
        "patch": patch,
    }


def kept_computed(full: Sequence[int], completions: Sequence[int]) -> int | None:
    """Tokens that prefix caching would have computed had nothing been edited and had the answers been the same.

    full: the unedited prompt's length at each turn. completions: tokens generated at each turn. Append-only prompts
    compute each token once: the last prompt, without the answers in it, which were generated. None without turns.
    """
    if not full or len(full) != len(completions):
        return None
    return max(0, full[-1] - sum(completions[:-1]))


def summarise(rows: list[JsonObject]) -> JsonObject:
    """Totals over the rows. hit_rate is (cached + spliced) / prompt tokens over all turns of all tasks.

    unscored: how many of the tasks have no tests, and so are neither solved nor not.
    """
    sums = {name: sum(row[name] for row in rows) for name in COUNTS}
    fallbacks: Counter[str] = Counter()
    for each in rows:
        fallbacks.update(each["fallbacks"])
    prompt = sums["prompt_tokens"]
    kept = [each.get("kept_tokens") for each in rows]
    return {
        "tasks": len(rows),
        "solved": sum(each["solved"] is True for each in rows),
        "unscored": sum(each["solved"] is None for each in rows),
        "hit_rate": (sums["cached_tokens"] + sums["spliced_tokens"]) / prompt if prompt else 0.0,
        **sums,
        "ordinary_tokens": sums["prefilled_tokens"] + sums["spliced_tokens"],
        "kept_tokens": None if None in kept else sum(kept),
        "fallbacks": dict(fallbacks),
        "seconds": round(sum(each["seconds"] for each in rows), 3),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def summary_text(summary: JsonObject) -> str:
    """The totals in two lines, a third where something was edited, and a fourth where directives fell back."""
    edits = count(summary["edits"], "edit")
    judged = summary["tasks"] - summary["unscored"]
    verdicts = [f"solved {summary['solved']} of {judged}"] if judged or not summary["unscored"] else []
    if summary["unscored"]:
        verdicts.append(f"{count(summary['unscored'], 'task')} without tests, so without a verdict")
    first = f"{'; '.join(verdicts)} in {summary['seconds']:.1f} s, {edits}"
    second = (
        f"hit rate {summary['hit_rate']:.1%} of {summary['prompt_tokens']:,} prompt tokens: "
        f"{summary['cached_tokens']:,} cached, {summary['spliced_tokens']:,} spliced, "
        f"{summary['prefilled_tokens']:,} prefilled"
    )
    reasons = ", ".join(f"{name} {count}" for name, count in sorted(summary["fallbacks"].items()))
    compared = [
        comparison(
            summary.get("kept_tokens"),
            summary["prefilled_tokens"] + summary["spliced_tokens"],
            summary["prefilled_tokens"],
        )
    ]
    return "\n".join(
        [first, second, *(compared if summary["edits"] else []), *([f"fallbacks: {reasons}"] if reasons else [])]
    )


def comparison(kept: int | None, ordinary: int, spliced: int) -> str:
    """What people want to know of a policy: the tokens computed without it, with it, and with it spliced."""
    nothing = f"{kept:,} with everything kept, " if kept is not None else ""
    return f"computed tokens: {nothing}{ordinary:,} with these edits on an ordinary cache, {spliced:,} spliced"
