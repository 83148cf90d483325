"""From a run's patches to verdicts: `preds.json` for each arm, swebench's harness or graders, and records again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from leyline.directives import LeylineError
from leyline.directives.counts import count
from leyline.evals.trials.journal import Journal, load
from leyline.evals.trials.record import TrialOutcome, TrialRecord
from leyline.evals.trials.schedule import safe_name
from leyline.suites.suite import Suite, SuiteError
from leyline.suites.swebench.grade import Verdict, grade, scoring_problems, verdict
from leyline.suites.swebench.here import run_tests
from leyline.suites.swebench.rows import dataset_name
from leyline.suites.swebench.swebench_suite import SwebenchSuite

FOLDER = "swebench"
RUN_ID = "leyline"
PREDS, OUTPUT, REPORT = "preds.json", "test_output.txt", "report.json"
_PATCHED = (
    TrialOutcome.UNSCORED,
    TrialOutcome.LIMIT,
)  # an agent at its limit leaves what it has, as the leaderboard counts it


@dataclass(frozen=True)
class Batch:
    """The trials of one arm and seed: what one `preds.json` can hold."""

    name: str
    records: tuple[TrialRecord, ...]

    def predictions(self) -> dict[str, dict[str, str]]:
        return {
            record.task: {
                "instance_id": record.task,
                "model_patch": record.artifacts.get("model_patch", ""),
                "model_name_or_path": self.name,
            }
            for record in self.records
        }


def batches(records: Sequence[TrialRecord]) -> list[Batch]:
    """By arm and seed, in order of first sight. Trials that ended in an error have no prediction."""
    grouped: dict[tuple[str, int], list[TrialRecord]] = {}
    for record in records:
        if record.outcome is not TrialOutcome.ERROR:
            grouped.setdefault((record.arm, record.seed), []).append(record)
    several = len({seed for _, seed in grouped}) > 1
    return [
        Batch(safe_name(arm) + (f"-seed{seed}" if several else ""), tuple(found))
        for (arm, seed), found in grouped.items()
    ]


def write_predictions(directory: Path, records: Sequence[TrialRecord]) -> list[Path]:
    """`swebench/ARM/preds.json` for each arm (and seed, where there are several), and for a lone one `preds.json`."""
    paths = []
    made = batches(records)
    for batch in made:
        text = json.dumps(batch.predictions(), indent=1, ensure_ascii=False) + "\n"
        targets = [directory / FOLDER / batch.name / PREDS, *([directory / PREDS] if len(made) == 1 else [])]
        for path in targets:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            paths.append(path)
    return paths


def log_folder(directory: Path, batch: str, task: str) -> Path:
    """Where swebench's harness, of either release, leaves an instance's log and report."""
    return directory / FOLDER / "logs" / "run_evaluation" / RUN_ID / batch / task


def score_suite(directory: Path, suite: Suite) -> list[str]:
    """Score a run whose trials have ended, as its suite says; lines for a person. Never raises for a failed scoring."""
    if suite.score is None or not isinstance(suite, SwebenchSuite):
        return []
    try:
        return score_run(directory, suite, how=suite.score)
    except LeylineError as error:  # the trials are recorded; what went wrong can be done again
        return [f"not scored: {error}"]


def score_run(
    directory: Path,
    suite: SwebenchSuite,
    *,
    how: str,
    logs: Path | None = None,
    workers: int = 4,
    seconds: float = 1800,
    say: Callable[[str], None] = lambda line: None,
) -> list[str]:
    """Write predictions and score them; returns lines for a person.

    how: docker (swebench's harness), here (eval scripts on this machine), logs (grade what lies below `logs`, by arm
    and instance), or none. A verdict becomes a further attempt of its trial. Raises SuiteError.
    """
    records = load(directory).records
    mine = [record for record in records if record.task in suite.rows and "model_patch" in record.artifacts]
    lines = [f"predictions: {path}" for path in write_predictions(directory, mine)]
    if how == "none" or not mine:
        return lines
    problems, notes = scoring_problems(suite.rows.values(), "logs" if how == "logs" else how)
    if problems:
        raise SuiteError(f"scoring with {how} cannot work here: {'; '.join(problems)}")
    with Journal(directory) as journal:
        scored = resolved = 0
        for record, found in _verdicts(directory, suite, batches(mine), how, logs, workers, seconds, say):
            solved = found is not None and found.resolved
            detail = found.detail if found is not None else "not resolved: the patch is empty"
            scored, resolved = scored + 1, resolved + solved
            if record.outcome is TrialOutcome.LIMIT and not solved:
                continue
            outcome = TrialOutcome.SOLVED if solved else TrialOutcome.FAILED
            attempt = journal.next_attempt(record.key)
            journal.append(record.model_copy(update={"outcome": outcome, "detail": detail, "attempt": attempt}))
    if not scored:
        return [*lines, "no patch waits for a verdict"]
    patches = count(scored, "patch resolves its issue", "patches resolve their issue")
    return [*lines, f"swebench: {resolved} of {patches}", *(notes if how == "here" else [])]


def _verdicts(
    directory: Path,
    suite: SwebenchSuite,
    made: Sequence[Batch],
    how: str,
    logs: Path | None,
    workers: int,
    seconds: float,
    say: Callable[[str], None],
) -> Iterator[tuple[TrialRecord, Verdict | None]]:
    """Every record that waits for a verdict, with it; None for an empty patch. Where swebench has none, no item."""
    for batch in made:
        waiting = [record for record in batch.records if record.outcome in _PATCHED]
        patched = [record for record in waiting if record.artifacts["model_patch"].strip()]
        if how == "docker" and patched:
            run_harness(directory, suite, batch.name, workers=workers, seconds=seconds)
        for record in waiting:
            if record not in patched:
                if record.outcome is TrialOutcome.UNSCORED:
                    yield record, None
                continue
            place = log_folder(directory, batch.name, record.task)
            log = place / OUTPUT
            prediction = batch.predictions()[record.task]
            row = suite.row(record.task)
            if how == "docker":
                if not (place / REPORT).is_file():
                    say(f"{batch.name}  {record.task}: swebench left no report; its log is in {place}")
                    continue
                yield record, verdict(json.loads((place / REPORT).read_text("utf-8"))[record.task])
                continue
            if how == "here":
                say(f"{batch.name}  {record.task}: running its tests")
                run_tests(row, prediction["model_patch"], suite.repositories, log, seconds=seconds)
            else:
                stored = _stored(logs, batch.name, record.task)
                if stored is None:
                    say(f"{batch.name}  {record.task}: no {OUTPUT} below {logs}")
                    continue
                log = stored
            found = grade(row, prediction, log)
            place.mkdir(parents=True, exist_ok=True)
            (place / REPORT).write_text(json.dumps({record.task: dict(found.report)}, indent=1), encoding="utf-8")
            yield record, found


def _stored(logs: Path | None, batch: str, task: str) -> Path | None:
    """A stored log of the instance: below a folder of the arm's name where there is one, else the only one there is."""
    if logs is None or not logs.is_dir():
        raise SuiteError(f"no folder {logs}; give --logs FOLDER with INSTANCE/{OUTPUT} in it")
    found = [path for path in logs.rglob(OUTPUT) if path.parent.name == task]
    own = [path for path in found if batch in path.parts]
    if len(own or found) > 1:
        raise SuiteError(f"{task}: {len(own or found)} logs below {logs}; name the folder of {batch}")
    return next(iter(own or found), None)


def run_harness(directory: Path, suite: SwebenchSuite, batch: str, *, workers: int, seconds: float) -> None:
    """swebench's harness over one `preds.json`; releases 4 and 5 take the same words. Raises SuiteError."""
    folder = (directory / FOLDER).resolve()
    done = subprocess.run(harness_command(suite, batch, workers=workers, seconds=seconds), cwd=folder, check=False)
    if done.returncode:
        raise SuiteError(f"swebench's harness ended with status {done.returncode}; its logs are in {folder / 'logs'}")


def harness_command(suite: SwebenchSuite, batch: str, *, workers: int, seconds: float) -> list[str]:
    options: Mapping[str, object] = {
        "-d": dataset_name(suite.dataset),
        "-s": suite.split,
        "-p": f"{batch}/{PREDS}",
        "-id": RUN_ID,
        "--max_workers": workers,
        "-t": int(seconds),
    }
    words = [str(word) for pair in options.items() for word in pair]
    return [sys.executable, "-m", "swebench.harness.run_evaluation", *words]
