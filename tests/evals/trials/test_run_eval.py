"""The engine's parts: budgets, what a person sees, and executors with a runner of the test's own."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from leyline.commands.eval_progress import (
    Eta,
    LiveProgress,
    PlainProgress,
    arm_table,
    make_progress,
    plain_table,
    span,
)
from leyline.evals.trials.config import Budget, ConfigError, EvalConfig
from leyline.evals.trials.pool import Control, InlineExecutor
from leyline.evals.trials.record import TrialOutcome, TrialRecord, TurnRecord
from leyline.evals.trials.run_eval import Brake, Stop, run_eval
from leyline.evals.trials.schedule import TrialSpec, planned_trials
from leyline.evals.trials.tally import tally

TURN = TurnRecord(prompt=100, prefix=50, spliced=30, prefilled=20, completion=5, full=140)


def make_config(**fields: object) -> EvalConfig:
    suite = {"name": "micro", "options": {"levels": "short"}}
    arms = [{"name": "a"}, {"name": "b", "policy": "keep_last(n=2)"}]
    return EvalConfig.model_validate({"suite": suite, "arms": arms, "n": 2, "workers": 0, **fields})


def recorded(spec: TrialSpec, outcome: TrialOutcome = TrialOutcome.SOLVED, detail: str | None = None) -> TrialRecord:
    key = dict(zip(("suite", "task", "arm", "seed", "digest"), spec.key, strict=True))
    fields = {"attempt": spec.attempt, "outcome": outcome, "detail": detail, "turns": (TURN,), "wall_s": 1.0}
    return TrialRecord.model_validate({**key, **fields})


@dataclass
class Scripted:
    """A runner whose trials end as told, in order."""

    outcomes: list[TrialOutcome]
    before: Callable[[], None] = lambda: None
    closed: bool = False
    ran: list[str] = field(default_factory=list)

    def run(self, spec: TrialSpec) -> TrialRecord:
        self.before()
        self.ran.append(spec.task.id)
        return recorded(spec, self.outcomes.pop(0), "no answer")

    def close(self) -> None:
        self.closed = True


def go(config: EvalConfig, directory: Path, runner: Scripted) -> object:
    return run_eval(
        config, directory, PlainProgress(quiet=True), make_executor=lambda config: InlineExecutor(lambda: runner)
    )


def test_errors_in_a_row_stop_the_run(tmp_path: Path) -> None:
    error, solved = TrialOutcome.ERROR, TrialOutcome.SOLVED
    runner = Scripted([error, solved, error, error, solved, solved])
    summary = go(make_config(n=4, budget={"errors": 2}), tmp_path, runner)
    assert summary.stopped == "2 trials in a row ended in an error, the last one with: no answer"  # type: ignore[attr-defined]
    assert (summary.ran, summary.missing, summary.interrupted) == (4, 4, False)  # type: ignore[attr-defined]
    assert runner.closed


def test_an_interrupt_in_this_process_leaves_what_is_recorded(tmp_path: Path) -> None:
    def interrupt() -> None:
        if len(runner.ran) == 2:
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    runner = Scripted([TrialOutcome.SOLVED] * 4, interrupt)
    summary = go(make_config(), tmp_path, runner)
    assert (summary.interrupted, summary.ran, summary.missing) == (True, 2, 2)  # type: ignore[attr-defined]
    assert runner.closed
    assert signal.getsignal(signal.SIGINT) is before


def test_no_task_left_is_an_error_that_names_the_options(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no task is left: look at --filter"):
        go(make_config(filter="nothing"), tmp_path, Scripted([]))


def test_one_arms_name_does_not_stand_for_two_things(tmp_path: Path) -> None:
    go(make_config(), tmp_path, Scripted([TrialOutcome.SOLVED] * 4))
    changed = make_config(limits={"turns": 3})
    with pytest.raises(ConfigError, match="arm 'a' is recorded for micro-short-seen-1000000 with other settings"):
        go(changed, tmp_path, Scripted([]))
    renamed = [{"name": "c"}, {"name": "d", "policy": "keep_last(n=2)"}]
    summary = go(make_config(limits={"turns": 3}, arms=renamed), tmp_path, Scripted([TrialOutcome.SOLVED] * 4))
    assert summary.ran == 4  # type: ignore[attr-defined]


def test_a_brake_knows_why() -> None:
    specs = planned_trials(make_config(), _suite(), Path("run"))
    brake = Brake(Budget(tokens=50), Stop())
    assert brake.more()
    for _ in range(2):
        brake.count(recorded(specs[0]))
    assert not brake.more()
    assert brake.reason == "the budget of 50 tokens is spent"
    brake = Brake(Budget(minutes=1e-9), Stop())
    assert not brake.more()
    assert "minutes is spent" in str(brake.reason)
    brake = Brake(Budget(tokens=1), Stop())
    brake.count(recorded(specs[0]))
    assert not brake.more()
    assert brake.reason == "the budget of 1 token is spent"
    brake = Brake(Budget(errors=1), Stop())
    brake.count(recorded(specs[0], TrialOutcome.ERROR, "no answer"))
    assert brake.reason == "1 trial in a row ended in an error, the last one with: no answer"


def test_a_stop_outside_of_the_main_thread_changes_nothing() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def work() -> None:
        with Stop() as stop:
            seen.append((stop.requested, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)]


def test_a_second_interrupt_is_raised() -> None:
    with Stop() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def _suite() -> object:
    from leyline.suites.micro.micro_suite import MicroSuite

    return MicroSuite(levels="short")


def test_a_tally_counts_what_the_records_say() -> None:
    specs = planned_trials(make_config(), _suite(), Path("run"))
    outcomes = [TrialOutcome.SOLVED, TrialOutcome.UNSCORED, TrialOutcome.LIMIT]
    records = [recorded(spec, outcome) for spec, outcome in zip(specs, outcomes, strict=False)]
    found = tally((spec.arm.name for spec in specs), records)
    arm = found["a"]
    assert (arm.planned, arm.done, arm.solved, arm.scored) == (2, 2, 1, 2)
    assert (found["b"].done, found["b"].scored) == (1, 0)
    assert (arm.prompt, arm.cached, arm.spliced, arm.prefilled, arm.shed) == (200, 100, 60, 40, 80)
    assert arm.hit_rate == 0.8
    head, row, other = plain_table(found).splitlines()
    assert head.split()[:4] == ["arm", "trials", "solved", "rate"]
    assert row.split() == ["a", "2/2", "1", "50.0%", "80.0%", "60", "40", "80", "1", "0", "0"]
    assert other.split()[3] == "-"  # no verdict, no rate


def test_the_plain_progress_prints_a_line_a_trial(capsys: pytest.CaptureFixture[str]) -> None:
    specs = planned_trials(make_config(), _suite(), Path("run"))
    progress = make_progress(plain=True)
    progress.notes(["mind the gap"])
    progress.planning()
    progress.begin(specs, [recorded(specs[0])], 3)
    progress.trial(recorded(specs[1]))
    progress.trial(recorded(specs[2], TrialOutcome.ERROR, "the server is gone"))
    progress.end()
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[:2] == ["note: mind the gap", "planning ..."]
    assert lines[2] == "4 trials: 1 recorded, 3 to run"
    assert lines[3].startswith("[1/3, ")
    assert lines[3].endswith(f"solved   b  {specs[1].task.id}  seed 0  1 turn  1.0 s")
    assert lines[4].endswith("the server is gone")


def test_the_live_progress_draws_the_arms(capsys: pytest.CaptureFixture[str]) -> None:
    specs = planned_trials(make_config(), _suite(), Path("run"))
    progress = LiveProgress()
    progress.notes([])
    progress.begin(specs, [], 4)
    for spec in specs:
        progress.trial(recorded(spec))
    drawn = progress._draw()
    progress.end()
    from rich.console import Console

    console = Console(width=120)
    with console.capture() as capture:
        console.print(drawn)
    text = capture.get()
    assert "hit rate" in text
    assert "2/2" in text
    assert "4/4" in text


def test_brackets_in_an_arms_name_are_no_markup() -> None:
    from rich.console import Console

    config = make_config(arms=[{"name": "[red]"}])
    console = Console(width=100)
    with console.capture() as capture:
        console.print(arm_table(tally((spec.arm.name for spec in planned_trials(config, _suite(), Path("run"))), [])))
    assert "[red]" in capture.get()


def test_times_for_a_person() -> None:
    assert [span(s) for s in (0.2, 89, 95, 3600, 3 * 3600 + 300)] == ["1 s", "89 s", "2 min", "60 min", "3 h 05 min"]
    eta = Eta(4)
    assert eta.seconds is None
    eta.step()
    assert eta.seconds is not None
    assert eta.seconds >= 0


def test_an_executor_stops_when_told_and_gives_out_what_is_finished() -> None:
    specs = planned_trials(make_config(), _suite(), Path("run"))

    class Told(Control):
        left = 3

        def more(self) -> bool:
            return True

        def stopped(self) -> bool:
            self.left -= 1
            return self.left < 0

    runner = Scripted([TrialOutcome.SOLVED] * 4)

    def run(specs: Sequence[TrialSpec]) -> Iterator[TrialRecord]:
        return InlineExecutor(lambda: runner).run(specs, Told())

    assert len(list(run(specs))) == 3
    assert runner.closed


def test_an_error_that_every_trial_would_meet_ends_the_run() -> None:
    specs = planned_trials(make_config(), _suite(), Path("run"))
    brake = Brake(Budget(errors=None), Stop())
    brake.count(recorded(specs[0], TrialOutcome.ERROR, "no answer"))
    assert brake.more()
    brake.count(specs[0].record(TrialOutcome.ERROR, detail="the key is refused", final=True))
    assert not brake.more()
    assert brake.reason == "the key is refused"
