"""Suites by name, and the two that bring tasks of their own kind: micro and debug-gym folders."""

from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from leyline.commands.eval import app
from leyline.suites import SUITES, SuiteError, load_suite, registry, suite_names
from leyline.suites.debug_gym.folders import mini_nightmare
from leyline.suites.micro import MicroTask, make_task
from leyline.suites.micro.micro_suite import MicroSuite
from leyline.suites.spec import FIRST_SEED, SuiteSpec

SHARED = Path(__file__).parents[3] / "shared" / "mini_nightmare"
NAMES = ["config", "counter", "grader", "pandas_dataframe", "patcher"]
NAMES += ["purr", "scientific_calculator", "shopping_cart", "sum_tree", "tomorrow_date"]
CODE = "def total(items):\n    result = 1\n    for item in items:\n        result += item\n    return result\n"
TESTS = "from bag_code import total\n\n\ndef test_total():\n    assert total([1, 2]) == 3\n"


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Two tasks in mini_nightmare's format."""
    for name in ("bag", "sack"):
        task = tmp_path / "tasks" / name
        task.mkdir(parents=True)
        (task / f"{name}_code.py").write_text(CODE)
        (task / "test.py").write_text(TESTS.replace("bag", name))
        (task / ".debugignore").write_text("*.secret\n.debugignore\n.debugreadonly\n")
        (task / ".debugreadonly").write_text("*test*.py\n")
        (task / "answer.secret").write_text("result = 0\n")
    return tmp_path / "tasks"


def test_an_unknown_suite_says_which_there_are() -> None:
    with pytest.raises(SuiteError, match=r"unknown suite 'mini_nightmar'; .*did you mean mini_nightmare\?"):
        load_suite(SuiteSpec(name="mini_nightmar"))
    with pytest.raises(SuiteError, match=r"cannot be imported"):
        load_suite(SuiteSpec(name="no.such.module:Suite"))
    with pytest.raises(SuiteError, match="'os:getcwd' makes something that is no suite: it has no tasks, digest"):
        load_suite(SuiteSpec(name="os:getcwd"))
    with pytest.raises(SuiteError, match="'os:sep' is no class and no function"):
        load_suite(SuiteSpec(name="os:sep"))
    with pytest.raises(SuiteError, match="its options are levels, split, count, first"):
        load_suite(SuiteSpec(name="micro", options={"speed": 1}))
    assert set(SUITES) >= {"micro", "debug_gym", "mini_nightmare", "swebench"}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("debug_gym", {"folder": 5}, "no folder 5"),
        ("debug_gym", {"folder": None}, "missing a required argument: 'folder'; its options are folder, network"),
        ("mini_nightmare", {"folder": 5}, "no folder 5; get the ten tasks"),
        ("swebench", {"dataset": "rows.jsonl", "repos": 5}, "cannot read rows.jsonl"),
    ],
)
def test_a_folder_that_is_no_text_is_one_line(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        load_suite(SuiteSpec(name=name, options=options))


def test_a_package_offers_a_suite_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    points = EntryPoints(
        [
            EntryPoint("short_micro", "leyline.suites.micro.micro_suite:MicroSuite", registry.GROUP),
            EntryPoint("broken", "no_such_package:Suite", registry.GROUP),
            EntryPoint("exits", "suite_that_exits:Suite", registry.GROUP),
            EntryPoint("micro", "no_such_package:Suite", registry.GROUP),
        ]
    )
    monkeypatch.setattr(registry, "entry_points", lambda group: points.select(group=group))
    (tmp_path / "suite_that_exits.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    assert suite_names() == [*SUITES, "broken", "exits", "short_micro"]
    assert isinstance(load_suite(SuiteSpec(name="short_micro", options={"count": 2})), MicroSuite)
    assert isinstance(load_suite(SuiteSpec(name="micro")), MicroSuite)
    with pytest.raises(SuiteError, match=r"^unknown suite 'short_mikro'; .*short_micro; did you mean short_micro\?"):
        load_suite(SuiteSpec(name="short_mikro"))
    with pytest.raises(SuiteError, match=r"options are levels, .*; did you mean count\?"):
        load_suite(SuiteSpec(name="short_micro", options={"cuont": 2}))
    with pytest.raises(SuiteError, match=r"'broken' \(no_such_package:Suite\) cannot be imported: No module"):
        load_suite(SuiteSpec(name="broken"))
    with pytest.raises(SuiteError, match=r"'exits' \(suite_that_exits:Suite\) cannot be imported: 3"):
        load_suite(SuiteSpec(name="exits"))


def test_the_command_takes_the_suite_of_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    points = EntryPoints([EntryPoint("short_micro", "leyline.suites.micro.micro_suite:MicroSuite", registry.GROUP)])
    monkeypatch.setattr(registry, "entry_points", lambda group: points.select(group=group))
    command = get_command(app)
    assert command.get_command(None, "short_micro") is not None  # type: ignore[attr-defined, arg-type]
    assert command.get_command(None, "nothing") is None  # type: ignore[attr-defined, arg-type]


def test_micro_deals_its_levels_in_turn() -> None:
    suite = MicroSuite(levels="short, long", count=4)
    assert [task.id for task in suite.tasks()] == [
        f"micro-short-seen-{FIRST_SEED}",
        f"micro-long-seen-{FIRST_SEED}",
        f"micro-short-seen-{FIRST_SEED + 1}",
        f"micro-long-seen-{FIRST_SEED + 1}",
    ]
    assert suite.tasks()[1].tags == {"level": "long", "split": "seen"}
    assert suite.digest(suite.tasks()[0].id) == MicroSuite().digest(suite.tasks()[0].id)
    assert suite.digest(suite.tasks()[0].id) != suite.digest(suite.tasks()[2].id)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": "tiny"}, "micro has no level 'tiny'"),
        ({"levels": ""}, "micro has no level ''"),
        ({"levels": 5}, "micro has no level '5'; choose from short, long, xlong"),
        ({"levels": [5]}, "micro has no level '5'"),
        ({"levels": None}, "micro has no level 'None'"),
        ({"split": "x"}, "micro has no split 'x'"),
        ({"count": 0}, "count of at least 1"),
        ({"first": -1}, "first seed of at least 0"),
    ],
)
def test_options_of_micro_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        load_suite(SuiteSpec(name="micro", options=options))


def repaired(task: MicroTask) -> dict[str, str]:
    """The files with every buggy unit replaced by the correct one."""
    files = dict(task.files)
    units = {unit.name: unit for unit in task.program}
    clean = make_task(task.seed, task.level, task.split)
    assert clean.files == task.files
    for bug in task.bugs:
        lines, unit = files[bug.path].split("\n"), units[bug.unit]
        start = next(k for k, line in enumerate(lines) if line == unit.lines[0] or line.startswith(f"def {bug.unit}("))
        end = start + 1
        while end < len(lines) and (lines[end].startswith(" ") or not lines[end]):
            end += 1
        files[bug.path] = "\n".join([*lines[:start], *unit.lines, "", *lines[end:]])
    return files


def test_a_micro_attempt_is_judged_by_the_hidden_tests() -> None:
    suite = MicroSuite(levels="short")
    name = next(t.id for t in suite.tasks() if all(u.kind == "function" for u in suite.make(t.id).program))
    task = suite.make(name)
    with suite.open(name, 0) as attempt:
        assert attempt.turns == task.budget
        assert [tool["function"]["name"] for tool in attempt.tools] == ["view", "grep", "edit", "eval", "submit"]
        assert attempt.messages[0]["content"].startswith("You are a debugging agent.")
        assert not attempt.solved()
        assert "failed" in attempt.call("eval", {}).text
        for path, text in repaired(task).items():
            if text != task.files[path]:
                attempt.workspace.write(path, text)
        assert attempt.solved()
        assert attempt.artifacts()["model_patch"].startswith("diff --git")
        root = attempt.workspace.root
    assert not root.exists()


def test_mini_nightmare_without_a_folder_says_how_to_get_it() -> None:
    with pytest.raises(SuiteError, match=r"git clone .*microsoft/debug-gym.* --option folder="):
        load_suite(SuiteSpec(name="mini_nightmare"))
    with pytest.raises(SuiteError, match=r"no folder none; .*git clone"):
        mini_nightmare("none")


def test_folders_in_debug_gyms_format(folders: Path) -> None:
    suite = load_suite(SuiteSpec(name="mini_nightmare", options={"folder": str(folders)}))
    assert [task.id for task in suite.tasks()] == ["bag", "sack"]
    with suite.open("bag", 0) as attempt:
        request = attempt.messages[1]["content"]
        assert "bag_code.py" in request
        assert "answer.secret" not in request
        assert attempt.call("edit", {"path": "test.py", "line": 1, "new_code": ""}).error
        assert not attempt.solved()
        attempt.call("edit", {"path": "bag_code.py", "line": 2, "new_code": "    result = 0"})
        assert attempt.solved()
    before = suite.digest("bag")
    (folders / "bag" / "bag_code.py").write_text(CODE + "\n")
    assert suite.digest("bag") != before


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the mini_nightmare tasks are not beside the repository")
def test_the_ten_tasks_of_mini_nightmare() -> None:
    suite = mini_nightmare(SHARED)
    assert [task.id for task in suite.tasks()] == NAMES
    assert len({suite.digest(name) for name in NAMES}) == 10
    for name in ("config", "purr"):
        with suite.open(name, 0) as attempt:
            assert f"{name}_code.py" in attempt.messages[1]["content"]
            assert not attempt.solved()
