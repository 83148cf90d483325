import importlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from leyline.evals.trials.arms import ArmError
from leyline.evals.trials.assemble import assemble, parse_seeds
from leyline.evals.trials.config import ConfigError, EvalConfig, TrialLimits
from leyline.evals.trials.journal import Journal
from leyline.evals.trials.pool import ProcessExecutor
from leyline.evals.trials.record import TrialOutcome, TrialRecord
from leyline.evals.trials.rundir import default_directory, read_run_config, scratch_space, write_config
from leyline.evals.trials.schedule import TrialSpec, outstanding, planned_trials, safe_name, select
from leyline.suites.suite import TaskInfo

YAML = """
suite: {name: micro, options: {levels: long}}
models: [first, second]
arms: [default, "extra=keep_last(n=2)@forget"]
arm_defaults: {seam: 4}
seeds: [1, 2]
limits: {turns: 7}
workers: 1
"""


class Suite:
    name, default_n, score = "s", None, None

    def __init__(self, digests: dict[str, str] | None = None) -> None:
        self.digests = digests or {}

    def tasks(self) -> list[TaskInfo]:
        return [TaskInfo(f"t{k}", {"k": str(k)}) for k in range(5)]

    def digest(self, task: str) -> str:
        return self.digests.get(task, task)


def config(**fields: Any) -> EvalConfig:
    return EvalConfig.model_validate(
        {"suite": {"name": "s"}, "arms": [{"name": "a"}, {"name": "b", "seam": 2}], **fields}
    )


def specs(given: EvalConfig, suite: Suite | None = None) -> list[TrialSpec]:
    return planned_trials(given, suite or Suite(), Path("run"))  # type: ignore[arg-type]


def record(spec: TrialSpec, outcome: TrialOutcome) -> TrialRecord:
    key = dict(zip(("suite", "task", "arm", "seed", "digest"), spec.key, strict=True))
    return TrialRecord.model_validate({**key, "attempt": spec.attempt, "outcome": outcome})


def test_a_file_and_the_command_line_over_it(tmp_path: Path) -> None:
    pytest.importorskip("yaml", reason="YAML needs PyYAML")
    (tmp_path / "eval.yaml").write_text(YAML)
    name = str(tmp_path / "eval.yaml")
    found = assemble(name, {})
    assert [arm.model for arm in found.arms] == ["first"] * 7 + ["second"] * 7 + ["first"]
    assert {arm.seam for arm in found.arms} == {4}
    assert (found.seeds, found.limits.turns, found.workers) == ((1, 2), 7, 1)
    assert found.suite.options == {"levels": "long"}
    changed = assemble(
        name,
        {"workers": 3, "limits.turns": None},
        arms=["keep_all"],
        models=["third"],
        arm_fields={"seam": 9, "url": None},
        options=["levels=short", "count=4"],
        overrides=["limits.seconds=5", "arms.0.name=mine"],
    )
    assert [(arm.name, arm.model, arm.seam) for arm in changed.arms] == [("mine", "third", 9)]
    assert (changed.workers, changed.limits.turns, changed.limits.seconds) == (3, 7, 5)
    assert changed.suite.options == {"levels": "short", "count": 4}


def test_every_bundled_model_is_the_default() -> None:
    from leyline.models import names

    found = assemble("micro", {})
    assert sorted({arm.model for arm in found.arms}) == names()
    assert len(found.arms) == 7 * len(names())
    assert found.workers >= 1


def test_a_folder_is_a_debug_gym_suite(tmp_path: Path) -> None:
    found = assemble(str(tmp_path), {}, models=["m"])
    assert (found.suite.name, found.suite.options) == ("debug_gym", {"folder": str(tmp_path)})


@pytest.mark.parametrize(
    ("settings", "overrides", "message"),
    [
        ({"n": 0}, [], "n: give at least 1"),
        ({}, ["limits.turns=many"], "limits.turns: give a whole number"),
        ({}, ["colour=red"], "colour: there is no such setting"),
        ({}, ["arms.7.name=x"], "there is no '7' to set"),
        ({}, ["nothing"], "'nothing' is not key=value"),
        ({}, ["seeds=[0, 1, 0]"], "seeds: give every seed once"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        assemble("micro", settings, models=["m"], overrides=overrides)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("eval.json", "{", "is not JSON"),
        ("eval.json", "[]", "must hold a mapping"),
        ("eval.yaml", "a: [", "is not YAML"),
        ("eval.yaml", "a: 2026-13-45", "is not YAML: month must be in 1..12"),
        ("eval.yaml", b"\xff\xfea", "is not UTF-8 text .* save it as UTF-8"),
        ("eval.json", b"\xff\xfea", "is not UTF-8 text"),
        ("none.json", None, "cannot read"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, name: str, text: str | bytes | None, message: str) -> None:
    pytest.importorskip("yaml", reason="YAML needs PyYAML")
    if text is not None:
        (tmp_path / name).write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigError, match=message):
        assemble(str(tmp_path / name), {})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"arm_defaults": {"seem": 0}}, "arm_defaults: an arm has no field 'seem'; it has policy, mode, .*seam"),
        ({"arm_defaults": {"name": "x"}}, "an arm has no field 'name'"),
        ({"arm_defaults": {1: 2}}, "an arm has no field 1"),
        ({"arm_defaults": 5}, "arm_defaults: give fields of an arm, such as .*, not 5"),
        ({"arm_defaults": {"seam": "much"}}, "arm 'keep_all': seam: give a whole number"),
        ({"arm_defaults": {"options": 5}}, "arm 'keep_all': options: give settings, each as"),
        ({"models": 5}, r"models: give a name or a list of names, such as \[tiny-mla\], not 5"),
        ({"models": [5]}, "models: give a name or a list of names"),
        ({"models": {"a": 1}}, "models: give a name or a list of names"),
        ({"arms": 5}, "arms is a list of texts and mappings, not 5"),
        ({"seeds": [0, 0]}, "seeds: give every seed once"),
        ({"suite": 5}, "suite: give settings"),
    ],
)
def test_a_wrong_field_of_a_file_is_one_line(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    yaml = pytest.importorskip("yaml", reason="YAML needs PyYAML")
    (tmp_path / "eval.yaml").write_text(
        yaml.safe_dump({"suite": "micro", "arms": ["default"], "models": ["m"], **fields})
    )
    with pytest.raises((ConfigError, ArmError), match=message) as found:
        assemble(str(tmp_path / "eval.yaml"), {})
    assert "\n" not in str(found.value)


def test_empty_fields_of_a_file_are_as_if_they_were_not_there(tmp_path: Path) -> None:
    pytest.importorskip("yaml", reason="YAML needs PyYAML")
    (tmp_path / "eval.yaml").write_bytes(b"\xef\xbb\xbfsuite: micro\narms:\nmodels:\narm_defaults:\n")
    assert assemble(str(tmp_path / "eval.yaml"), {}) == assemble("micro", {})


def test_one_model_of_a_file_needs_no_list(tmp_path: Path) -> None:
    (tmp_path / "eval.json").write_text('{"suite": "micro", "models": "mine"}')
    assert {arm.model for arm in assemble(str(tmp_path / "eval.json"), {}).arms} == {"mine"}


def test_seeds() -> None:
    assert parse_seeds("3") == [0, 1, 2]
    assert parse_seeds("4,7") == [4, 7]
    assert parse_seeds("9,") == [9]
    for text in ("0", "x", "1,1", ","):
        with pytest.raises(ConfigError, match="seeds"):
            parse_seeds(text)


def test_filter_then_slice_then_n() -> None:
    tasks = Suite().tasks()
    chosen = select(tasks, pattern="t[1-4]", cut="::2", n=None)
    assert [task.id for task in chosen] == ["t1", "t3"]
    assert [task.id for task in select(tasks, pattern=None, cut="1:", n=2)] == ["t1", "t2"]
    assert [task.id for task in select(tasks, pattern=None, cut="-1", n=None)] == ["t4"]
    with pytest.raises(ConfigError, match="not a regular expression"):
        select(tasks, pattern="(", cut=None, n=None)
    for cut in ("a:b", "9", "::0"):
        with pytest.raises(ConfigError, match="slice"):
            select(tasks, pattern=None, cut=cut, n=None)
    with pytest.raises(ConfigError, match=r"within 1 task$"):
        select(tasks[:1], pattern=None, cut="9", n=None)


def test_arms_are_paired_task_by_task() -> None:
    found = specs(config(seeds=[3, 4], n=2))
    assert [(spec.task.id, spec.seed, spec.arm.name) for spec in found] == [
        (task, seed, arm) for task in ("t0", "t1") for seed in (3, 4) for arm in ("a", "b")
    ]
    assert len({spec.key for spec in found}) == 8
    assert all(spec.trajectory for spec in found)
    assert len({spec.trajectory for spec in found}) == 8


def test_what_changes_a_digest_and_what_does_not() -> None:
    base = {spec.key for spec in specs(config())}
    assert base == {spec.key for spec in specs(config(workers=7, trajectories="none", budget={"minutes": 1}))}
    assert base == {spec.key for spec in specs(config(n=5))}
    for change in ({"limits": TrialLimits(turns=3)}, {"sampling": {"temperature": 0.5}}):
        assert not base & {spec.key for spec in specs(config(**change))}
    other = {spec.key for spec in specs(config(), Suite({"t1": "another"}))}
    assert {key.task for key in base - other} == {"t1"}


def test_a_script_that_changes_is_another_model(tmp_path: Path) -> None:
    arm = {"name": "a", "backend": "mock", "options": {"script": str(tmp_path / "script.json")}}
    (tmp_path / "script.json").write_text('["one"]')
    first = specs(config(arms=[arm]))[0].digest
    (tmp_path / "script.json").write_text('["two"]')
    assert specs(config(arms=[arm]))[0].digest != first


@pytest.mark.parametrize("spec", ["rules_here.py:cut", "rules_here:cut", "then(drop_stale, 'rules_here:cut')"])
def test_a_rule_that_is_rewritten_is_another_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    digests = []
    for number in (1, 2, 1):
        text = f"from leyline.policies import rule\n@rule()\ndef cut(message, ctx):\n    return {number} and None\n"
        (tmp_path / "rules_here.py").write_text(text)
        monkeypatch.delitem(sys.modules, "rules_here", raising=False)
        digests.append(specs(config(arms=[{"name": "a", "policy": spec}]))[0].digest)
    assert digests[0] == digests[2] != digests[1]


def test_weights_trained_again_into_the_same_folder_are_another_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEYLINE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    digests, directories = [], []
    for byte in (1, 2, 1):
        (folder / "model.safetensors").write_bytes(bytes(2**21) + bytes([byte]))
        made = config(arms=[{"name": "a", "model": str(folder)}])
        digests.append(specs(made)[0].digest)
        directories.append(default_directory(made))
    assert digests[0] == digests[2] != digests[1]
    assert directories[0] == directories[2] != directories[1]


def test_a_gate_that_was_measured_again_makes_another_arm(tmp_path: Path) -> None:
    gate = tmp_path / "gate.json"
    arm = {"name": "a", "options": {"gate": str(gate), "page_size": 16}}
    digests = [specs(config(arms=[arm]))[0].digest]
    for text in ("one", "two", "one"):
        gate.write_text(text)
        digests.append(specs(config(arms=[arm]))[0].digest)
    assert len(set(digests)) == 3
    assert digests[1] == digests[3]


def test_outstanding_trials(tmp_path: Path) -> None:
    found = specs(config(n=1))
    with Journal(tmp_path) as journal:
        journal.append(record(found[0], TrialOutcome.ERROR))
        journal.append(record(found[1], TrialOutcome.SOLVED))
    with Journal(tmp_path) as journal:
        assert outstanding(found, journal, "none") == []
        again = outstanding(found, journal, "errors")
        assert [(spec.key, spec.attempt) for spec in again] == [(found[0].key, 1)]
        assert str(again[0].trajectory).endswith("-1.jsonl")
        assert [spec.attempt for spec in outstanding(found, journal, "all")] == [1, 1]


def test_names_of_files_differ_where_arms_do() -> None:
    names = ["a b", "a_b", "a/b", "truncate+AMORTIZE (m)", "..", "x" * 200, "x" * 201]
    made = [safe_name(name) for name in names]
    assert len(set(made)) == len(names)
    assert all("/" not in name and not name.startswith(".") and len(name) < 220 for name in made)


def test_a_run_is_found_again_by_what_decides_it(tmp_path: Path) -> None:
    base = default_directory(config())
    assert base == default_directory(config(workers=9, n=3, budget={"tokens": 5}))
    assert base != default_directory(config(seeds=[1]))
    write_config(tmp_path, config(), ["t0"], 2)
    read = read_run_config(tmp_path)
    assert EvalConfig.model_validate(read["config"]) == config(workers=read["config"]["workers"])
    assert read_run_config(tmp_path / "nothing") == {}
    json.dumps(read)


def test_temporary_folders_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    before = tempfile.gettempdir()
    with scratch_space(tmp_path) as first:
        assert tempfile.gettempdir() == before, "this process keeps its own"
        (first / "left").mkdir()
        (first / "left" / "file").write_text("")
        kept = first.with_name(first.name + "-kept")
        first.rename(kept)  # as a kill leaves it
    kept.rename(first)
    with scratch_space(tmp_path) as again:
        assert again == first
        assert list(again.iterdir()) == []
    assert not first.exists()


RUNNER = """
import tempfile
from leyline.evals.trials.record import TrialOutcome


class Runner:
    def run(self, spec):
        return spec.record(TrialOutcome.SOLVED, detail=tempfile.gettempdir())

    def close(self):
        pass
"""


@pytest.mark.parametrize("given", [True, False])
def test_workers_make_temporary_files_where_they_are_told(
    tmp_path: Path, given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "saysrunner.py").write_text(RUNNER)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("saysrunner")

    class Go:
        def more(self) -> bool:
            return True

        def stopped(self) -> bool:
            return False

    base = config()
    spec = TrialSpec(base.suite, TaskInfo("t"), base.arms[0], 0, base.limits, base.sampling, "d")
    executor = ProcessExecutor(1, module.Runner, scratch=tmp_path if given else None)
    (record,) = executor.run([spec], Go())
    assert record.detail == (str(tmp_path) if given else tempfile.gettempdir())
