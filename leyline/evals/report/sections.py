"""The tables of a report, in reading order: the same ones in HTML and in Markdown."""

from __future__ import annotations

from collections import Counter

from leyline.evals.report.arm_tables import by_turn, headline, outcomes, times, tokens_table
from leyline.evals.report.content import Report
from leyline.evals.report.pair_tables import agreement, comparisons, paired_tests, power
from leyline.evals.report.table import Table
from leyline.evals.report.text import NONE, counts, day


def tables(report: Report) -> list[Table]:
    """Every table that the data gives rows for, in reading order; the account of record lines is always there."""
    made = [headline(report), outcomes(report), tokens_table(report), times(report), comparisons(report)]
    made += [paired_tests(report), power(report), agreement(report), by_turn(report), traffic(report)]
    made += [origins(report), account(report)]
    return [table for table in made if table.rows]


def traffic(report: Report) -> Table:
    """What the requests of a harness's traffic met, by arm."""
    turns = [turn for run in report.runs for turn in run.traffic]
    rows = []
    for arm in dict.fromkeys(turn.arm for turn in turns):
        own = [turn for turn in turns if turn.arm == arm]
        told = [turn for turn in own if turn.prompt is not None]
        prompt, cached = sum(turn.prompt or 0 for turn in told), sum(turn.cached or 0 for turn in told)
        spliced = sum(turn.spliced for turn in told)
        shed = sum((turn.full or turn.prompt or 0) - (turn.prompt or 0) for turn in told)
        broke = Counter(turn.broke_by for turn in own if turn.broke_by is not None)
        again = Counter(path for turn in own for path in turn.reread)
        conversations = len({(turn.writer, turn.conversation) for turn in own})
        numbers = (conversations, len(own), len(told), prompt, cached - spliced, spliced, prompt - cached, shed)
        rows.append((arm, *(f"{n:,}" for n in numbers), counts(dict(broke)), counts(dict(again.most_common(5)))))
    caption = (
        "prompt = cached + spliced + uncached, over the requests with a usage block; shed is what the edits in force "
        "kept out of these prompts. Broken prefix: requests in which something that the server held was changed, and "
        "by whom. Read again: files that the model looked at again after an edit had taken their text away."
    )
    head = ("arm", "conversations", "requests", "with usage", "prompt", "cached", "spliced", "uncached", "shed")
    words = ("broken prefix", "read again")
    return Table("traffic", "What the requests met", caption, (*head, *words), tuple(rows), words=words)


def origins(report: Report) -> Table:
    rows = tuple(
        (
            origin.machine or "not recorded",
            ", ".join(f"{name} {release}" for name, release in origin.versions.items()) or "not recorded",
            f"{origin.trials:,}",
            day(origin.first) if origin.first > 0 else NONE,
            day(origin.last) if origin.last > 0 else NONE,
        )
        for origin in report.origins
    )
    caption = (
        "The machine that ran the agent, with the accelerator of a model in its process; a served model computes "
        "elsewhere. Times of different rows are not comparable."
    )
    head = ("machine", "releases", "trials", "first started", "last started")
    return Table("origins", "Where the trials ran", caption, head, rows, words=("releases",))


def account(report: Report) -> Table:
    rows = []
    for run in report.runs:
        lines = run.lines
        numbers = (lines.total, lines.counted, lines.superseded, lines.duplicates, lines.outdated, lines.broken)
        more = (lines.torn, lines.interrupted)
        missing = NONE if run.missing is None else f"{run.missing:,}"
        rows.append((run.label, *(f"{n:,}" for n in numbers), *(f"{n:,}" for n in more), missing))
    caption = (
        "record lines = counted + superseded (redone later) + duplicates + outdated (older configuration) + broken. "
        "Beside them: torn last lines, interrupted trials (a trajectory without a record: they run again, or still "
        "run), and trials that the configuration asks for and nobody has run yet."
    )
    head = ("run", "record lines", "counted", "superseded", "duplicates", "outdated", "broken", "torn", "interrupted")
    return Table("account", "Every record line", caption, (*head, "not run yet"), tuple(rows))
