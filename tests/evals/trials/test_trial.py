"""Trials with the bundled model: what the arms of one task record, and how failures end."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leyline.backends.plain import plain
from leyline.directives import Mode
from leyline.evals.trials.arms import TRUNCATE, Arm
from leyline.evals.trials.config import SamplingSpec, SuiteSpec, TrialLimits
from leyline.evals.trials.energy import EnergyMeter
from leyline.evals.trials.record import TrialOutcome, TrialRecord, TurnRecord
from leyline.evals.trials.schedule import TrialSpec
from leyline.evals.trials.serving import make_backend
from leyline.evals.trials.trial import TrialRunner, setup_of
from leyline.evals.trials.turns import with_full
from leyline.harness.trajectory import read_trajectory
from leyline.suites.suite import TaskInfo

TASK = "micro-short-seen-1000000"
SMALL = "truncate_older_than(n=1, max_chars=60)"


def spec(arm: Arm, directory: Path, *, turns: int = 3, task: str = TASK) -> TrialSpec:
    return TrialSpec(
        suite=SuiteSpec(name="micro", options={"levels": "short"}),
        task=TaskInfo(task, {"level": "short"}),
        arm=arm,
        seed=0,
        limits=TrialLimits(turns=turns),
        sampling=SamplingSpec(),
        digest=arm.digest(),
        trajectory=f"{arm.name}.jsonl",
        directory=str(directory),
    )


@pytest.fixture
def script(tmp_path: Path) -> dict[str, Any]:
    call = {"id": "", "type": "function", "function": {"name": "eval", "arguments": "{}"}}
    path = tmp_path / "script.json"
    path.write_text(json.dumps([{"role": "assistant", "content": None, "tool_calls": [call]}]))
    return {"backend": "mock", "model": "mock", "options": {"script": str(path)}}


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As in a worker process."""
    torch = pytest.importorskip("torch", reason="the local backend needs torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("one_thread")
def test_arms_of_one_task_with_the_bundled_model(tmp_path: Path) -> None:
    arms = [Arm(name="plain", policy=SMALL), Arm(name="amortize", policy=SMALL, mode="amortize")]
    runner = TrialRunner()
    records = {arm.name: runner.run(spec(arm, tmp_path)) for arm in arms}
    runner.close()
    for record in records.values():
        assert record.outcome is TrialOutcome.LIMIT, record.detail
        assert record.detail == "turns: 3"
        assert all(turn.balanced for turn in record.turns)
        assert [turn.edits for turn in record.turns] == [0, 0, 1]
        assert record.turns[0].prefix == 0  # no trial starts on what another one left in the cache
        assert [turn.full == turn.prompt for turn in record.turns] == [True, True, False]
        assert record.turns[2].shed > 0
        assert record.tags == {"level": "short"}
    plain, amortize = records["plain"], records["amortize"]
    assert [turn.prompt for turn in plain.turns] == [turn.prompt for turn in amortize.turns]
    assert (plain.total("spliced"), plain.total("directives"), plain.approximate) == (0, 0, False)
    assert amortize.turns[2].spliced > 0
    assert amortize.turns[2].directives > 0
    assert amortize.approximate
    assert amortize.turns[2].prefix == plain.turns[2].prefix  # what an ordinary cache reuses: the part before the edit
    trajectory = read_trajectory(tmp_path / "amortize.jsonl")
    assert trajectory.header["arm"]["policy"] == SMALL
    assert [len(turn["input"]["ids"]) for turn in trajectory.turns] == [turn.prompt for turn in amortize.turns]


def test_the_control_moves_keys_without_turning_them() -> None:
    torch = pytest.importorskip("torch", reason="the local backend needs torch")
    old, new = torch.tensor([3, 9]), torch.tensor([1, 7])
    turned = make_backend(Arm(name="a", mode="amortize"))
    still = make_backend(Arm(name="b", mode="amortize", options={"rotate": False}))
    cos, sin = still._runner.table.between(old, new)  # type: ignore[attr-defined]
    assert torch.allclose(cos, torch.ones_like(cos))
    assert torch.allclose(sin, torch.zeros_like(sin), atol=1e-6)
    cos, sin = turned._runner.table.between(old, new)  # type: ignore[attr-defined]
    assert float(sin.abs().max()) > 0.5


def test_failures_are_records(tmp_path: Path, script: dict[str, Any]) -> None:
    broken = tmp_path / "rules.py"
    broken.write_text(
        "from leyline.policies import rule\n\n@rule(roles='tool')\n"
        "def bad(message, ctx):\n    return message['nothing']\n"
    )
    runner = TrialRunner()
    cases = {
        "policy": (Arm(name="p", policy=f"{broken}:bad", **script), TASK, "bad"),
        "task": (Arm(name="t", **script), "micro-none", "micro has no task 'micro-none'"),
        "model": (Arm(name="m", model="no-such"), TASK, "no model 'no-such'; give a model folder"),
        "script": (Arm(name="s", **{**script, "options": {"script": "none.json"}}), TASK, "cannot read the script"),
        "options": (Arm(name="o", **{**script, "options": {**script["options"], "speed": 1}}), TASK, "do not fit"),
    }
    for arm, task, message in cases.values():
        record = runner.run(spec(arm, tmp_path, task=task))
        assert record.outcome is TrialOutcome.ERROR
        assert message in str(record.detail)
        assert "\n" not in str(record.detail)
    runner.close()
    assert TrialRecord.model_validate_json(record.model_dump_json()) == record


def test_a_scripted_trial_ends_at_its_limit(tmp_path: Path, script: dict[str, Any]) -> None:
    runner = TrialRunner()
    record = runner.run(spec(Arm(name="m", **script), tmp_path, turns=2))
    runner.close()
    assert (record.outcome, len(record.turns)) == (TrialOutcome.LIMIT, 2)
    assert all(turn.tool_s for turn in record.turns)
    assert record.trajectory == "m.jsonl"
    assert record.energy_j is None


def test_a_trial_that_runs_again_has_a_cache_of_its_own(tmp_path: Path, script: dict[str, Any]) -> None:
    runner, again = TrialRunner(), spec(Arm(name="m", **script), tmp_path, turns=2)
    first, second = runner.run(again), runner.run(again)
    runner.close()
    assert first.turns[0].prefix == second.turns[0].prefix == 0 < first.turns[1].prefix


def test_full_lengths_begin_with_the_first_edit() -> None:
    turns = [TurnRecord(prompt=p, prefix=0, spliced=0, prefilled=p, edits=e) for p, e in ((10, 0), (20, 1), (25, 0))]
    assert [turn.full for turn in with_full(turns, [11, 40, 60])] == [10, 40, 60]
    assert [turn.full for turn in with_full(turns, [])] == [None, None, None]


def test_a_plain_request_carries_no_directive() -> None:
    from leyline.backends.contract import TurnInput
    from leyline.directives import Directive, EditScript, Mode

    script = EditScript((Directive(1, 2, (), Mode.AMORTIZE),))
    told = TurnInput("s", source=(1, 2, 3), script=script, lineage="x", lineage_start=1, seam=4, edits=2)
    bare = plain(told)
    assert (bare.source, len(bare.script), bare.lineage, bare.lineage_start, bare.seam) == (None, 0, None, None, 0)
    assert (bare.session_id, bare.edits) == ("s", 2)


def test_energy_is_a_rising_count_or_nothing() -> None:
    meter = EnergyMeter()
    first, second = meter.read(), meter.read()
    assert first is None or (second is not None and second >= first > 0)


def test_the_default_policy_is_the_one_of_the_readme() -> None:
    from leyline.policies import load_policy

    assert load_policy(TRUNCATE).name.startswith("truncate_older_than")


def test_an_arm_of_auto_works_under_auto(tmp_path: Path) -> None:
    """AUTO was run as FORGET, and its trials said AUTO."""
    modes = {mode: setup_of(spec(Arm(name=mode, mode=mode), tmp_path)).mode for mode in ("amortize", "forget", "auto")}
    assert modes == {"amortize": Mode.AMORTIZE, "forget": Mode.FORGET, "auto": Mode.AUTO}
