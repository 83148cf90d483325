"""Folders and repositories as tasks: what the agent sees, and verdicts that its hand on the tests does not move."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import leyline
from leyline.harness.sandbox.isolation import isolation
from leyline.harness.sandbox.sandbox import CommandLimits, HarnessError
from leyline.harness.tasks import Episode
from leyline.suites import repository
from leyline.suites.debug_gym import gym_suite as debug_gym
from leyline.suites.debug_gym import judge as debug_gym_judge
from leyline.suites.debug_gym import plain_runner
from leyline.suites.shell_test import programs
from leyline.suites.suite import SuiteError

CODE = "def double(x):\n    return x + 1\n"
TEST = "from code_under_test import double\n\n\ndef test_double():\n    assert double(4) == 8\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "doubling"
    path.mkdir()
    files = {
        "code_under_test.py": CODE,
        "test.py": TEST,
        "notes.txt": "read me\n",
        "secret.txt": "the answer\n",
        ".debugignore": "secret.txt\n",
        ".debugreadonly": "notes.txt\n",
    }
    for name, text in files.items():
        (path / name).write_text(text)
    return path


def bash(episode: Episode, command: str) -> str:
    return episode.call("bash", {"command": command}).text


def test_the_agent_sees_what_the_marks_allow(folder: Path) -> None:
    (task,) = debug_gym.load(folder)
    assert task.id == "doubling"
    assert "code_under_test.py (2 lines)" in task.user
    assert "test.py (5 lines, read-only)" in task.user
    assert "notes.txt (1 lines, read-only)" in task.user
    assert "secret" not in task.user
    with task.open() as episode:
        assert "no file" in episode.call("view", {"path": "secret.txt", "start": 1, "end": 2}).text.lower()
        assert bash(episode, "cat secret.txt") == "the answer", "code that runs needs the hidden files"
        for path in ("test.py", "notes.txt", ".debugignore"):
            assert episode.call("edit", {"path": path, "line": 1, "new_code": "x"}).error
        assert "1 failed" in episode.call("eval", {}).text


def test_a_repair_is_solved_and_its_patch_applies(folder: Path) -> None:
    (task,) = debug_gym.load(folder)
    with task.open() as episode:
        assert episode.solved() is False
        episode.call("edit", {"path": "code_under_test.py", "line": 2, "new_code": "    return 2 * x"})
        assert "1 passed" in episode.call("eval", {}).text
        assert episode.solved()
        patch = episode.artifacts()["model_patch"]
    done = subprocess.run(["git", "apply", "-"], cwd=folder, input=patch, text=True, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "2 * x" in (folder / "code_under_test.py").read_text()


CHEATS = {
    "the tests are rewritten": "echo 'def test_double(): pass' > test.py",
    "the tests are removed": "rm test.py",
    "a conftest skips them": "printf 'def pytest_collection_modifyitems(items):\\n    items.clear()\\n' > conftest.py",
    "settings deselect them": "printf '[pytest]\\naddopts = --co\\n' > pytest.ini",
    "a false runner": "mkdir pytest && cd pytest && touch __init__.py && echo 'print(\"1 passed\")' > __main__.py",
    "the code ends the run": "printf 'import os\\nos._exit(0)\\n' > code_under_test.py",
    "the interpreter is customised": "printf 'import os\\nos._exit(0)\\n' > sitecustomize.py",
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_hand_on_the_tests_does_not_solve(folder: Path, cheat: str) -> None:
    (task,) = debug_gym.load(folder)
    with task.open() as episode:
        bash(episode, CHEATS[cheat])
        assert episode.solved() is False, f"solved although {cheat}"


ENDINGS = {
    "the import ends the process": "print('3 passed')\nos._exit(0)\n",
    "a call ends the process": "def double(x):\n    print('\\n3 passed in 0.01s', flush=True)\n    os._exit(0)\n",
    "the end of the process is another": (
        "import atexit\n\ndef end():\n    print('\\n3 passed in 0.01s', flush=True)\n    os._exit(0)\n\n"
        "atexit.register(end)\n\ndef double(x):\n    return 0\n"
    ),
    "the import leaves": "import sys\nprint('3 passed')\nsys.exit(0)\n",
    "the run is called off": "import pytest\n\ndef double(x):\n    pytest.exit('3 passed', returncode=0)\n",
    "the call is skipped": "import unittest\n\ndef double(x):\n    raise unittest.SkipTest('later')\n",
    "the call expects to fail": "import pytest\n\ndef double(x):\n    pytest.xfail('later')\n",
}


@pytest.mark.parametrize("how", ENDINGS)
def test_code_that_ends_the_run_with_a_summary_of_its_own_does_not_solve(folder: Path, how: str) -> None:
    (folder / "test.py").write_text(
        "def test_first():\n    pass\n\n\ndef test_double():\n    from code_under_test import double\n\n"
        "    assert double(4) == 8\n"
    )
    (task,) = debug_gym.load(folder)
    with task.open() as episode:
        episode.workspace.write("code_under_test.py", f"import os\n\n{ENDINGS[how]}")
        assert episode.solved() is False, f"solved although {how}"


CRASHES = {
    "the import crashes": "os.abort()\n",
    "the import is killed": "import signal\nos.kill(os.getpid(), signal.SIGKILL)\n",
    "the import ends with 3": "os._exit(3)\n",
    "the import takes for ever": "while True:\n    pass\n",
    "the import takes all memory": "x = []\nwhile True:\n    x.append('x' * (1 << 27))\n",
    "the import floods the output": "while True:\n    print('x' * 100_000)\n",
    "the home is emptied": "import shutil\nshutil.rmtree(os.environ['HOME'], ignore_errors=True)\nos._exit(0)\n",
    "the folder is locked": "os.chmod('.', 0)\nos._exit(0)\n",
}


@pytest.mark.parametrize("how", CRASHES)
def test_what_the_code_under_test_does_to_the_run_is_the_agents_failure(folder: Path, how: str) -> None:
    task = debug_gym.DebugGymTask(folder, limits=CommandLimits(seconds=15, memory=1 << 30))
    with task.open() as episode:
        episode.workspace.write("code_under_test.py", f"import os\n\n{CRASHES[how]}")
        assert episode.solved() is False


def test_a_judge_that_does_not_start_is_the_harnesss_failure(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (task,) = debug_gym.load(folder)
    with task.open() as episode:
        episode.call("edit", {"path": "code_under_test.py", "line": 2, "new_code": "    return 2 * x"})
        monkeypatch.setattr(debug_gym_judge, "__file__", "/no/judge.py")
        with pytest.raises(HarnessError, match=r"does not start: .*can't open file '/no/judge\.py'.*; look at where"):
            episode.solved()
        with pytest.raises(HarnessError, match=r"/no/judge\.py"):
            debug_gym.DebugGymSuite(folder).preflight()
        monkeypatch.undo()
        monkeypatch.setattr(sys, "executable", "/no/python")
        with pytest.raises(HarnessError, match="/no/python"):
            episode.solved()
        monkeypatch.undo()
        assert episode.solved() is True


def test_a_judge_with_no_time_to_start_is_the_harnesss_failure(folder: Path) -> None:
    task = debug_gym.DebugGymTask(folder, limits=CommandLimits(seconds=0.01))
    with task.open() as episode, pytest.raises(HarnessError, match=r"does not start: \[stopped after 0\.01 s\]"):
        episode.solved()


TRIED = """
import sys
from leyline.suites.debug_gym.gym_suite import DebugGymSuite

suite = DebugGymSuite(sys.argv[1])
try:
    print(*suite.preflight())
except Exception as error:
    raise SystemExit(f"{type(error).__name__} {error}")
with suite.open("doubling", 0) as episode:
    print(episode.call("eval", {}).meta["passed"], episode.solved())
    episode.workspace.write("code_under_test.py", "def double(x):\\n    return 2 * x\\n")
    print(episode.call("eval", {}).meta["passed"], episode.solved())
"""


@pytest.fixture
def bare(tmp_path: Path) -> tuple[Path, Path]:
    """An interpreter without packages, and the folder for its own."""
    venv.create(tmp_path / "bare", symlinks=True)
    python = tmp_path / "bare" / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return python, Path(subprocess.check_output([python, "-c", where], text=True).strip())


def tried(python: Path, folder: Path) -> tuple[int, str]:
    """What the suite says and does when all it imports comes from PYTHONPATH."""
    path = os.pathsep.join([str(Path(leyline.__file__).parents[1]), sysconfig.get_path("purelib")])
    env = {"PATH": os.defpath, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [python, "-c", TRIED, folder], cwd=folder.parent, env=env, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_a_pytest_that_the_sandbox_does_not_see_is_told_before_any_trial(folder: Path, bare: tuple[Path, Path]) -> None:
    code, text = tried(bare[0], folder)
    assert (code, text.splitlines()[1:]) == (0, ["False False", "True True"]), text
    assert text.startswith("pytest lies where the sandbox does not look (PYTHONPATH, --user): tests run on a plain")


def test_a_pytest_that_breaks_is_told_before_any_trial(folder: Path, bare: tuple[Path, Path]) -> None:
    (bare[1] / "pytest.py").write_text("raise RuntimeError('no luck')\n")
    code, text = tried(bare[0], folder)
    assert code == 1
    assert text.startswith("HarnessError the runner of the tests does not start: RuntimeError: no luck; look at where")


def test_a_hidden_file_is_as_it_was_for_the_verdict(folder: Path) -> None:
    (folder / "test.py").write_text(
        "from code_under_test import double\n\n\ndef test_double():\n"
        "    assert double(4) == int(open('secret.txt').read())\n"
    )
    (folder / "secret.txt").write_text("8\n")
    (task,) = debug_gym.load(folder)
    with task.open() as episode:
        bash(episode, "echo 5 > secret.txt")
        assert "1 passed" in bash(episode, "python -m pytest -q -p no:cacheprovider test.py")
        assert episode.solved() is False
        episode.call("edit", {"path": "code_under_test.py", "line": 2, "new_code": "    return 2 * x"})
        assert episode.solved() is True


@pytest.mark.parametrize("instead", ["touch data", "ln -s notes.txt data", "mkdir -p data/given.txt/x"])
def test_a_protected_file_comes_back_whatever_lies_in_its_way(folder: Path, instead: str) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "given.txt").write_text("4 8\n")
    (folder / ".debugreadonly").write_text("data/\n")
    (folder / "test.py").write_text(
        "from code_under_test import double\n\n\ndef test_double():\n"
        "    given, wanted = map(int, open('data/given.txt').read().split())\n    assert double(given) == wanted\n"
    )
    (task,) = debug_gym.load(folder)
    with task.open() as episode:
        bash(episode, f"rm -r data; {instead}")
        assert episode.solved() is False
        episode.call("edit", {"path": "code_under_test.py", "line": 2, "new_code": "    return 2 * x"})
        assert episode.solved() is True


LOUD = """import sys
import unittest

import pytest
from code_under_test import double


def test_double():
    print("1 failed")
    sys.stderr.write("x" * 50_000)
    assert double(4) == 8


@pytest.mark.skip
def test_later():
    assert double(4) == 9


@pytest.mark.xfail
def test_that_waits():
    assert double(4) == 9


class Case(unittest.TestCase):
    @unittest.skip("later")
    def test_later(self):
        self.fail()

    @unittest.expectedFailure
    def test_that_waits(self):
        self.assertEqual(double(4), 9)

    def test_sums(self):
        for n in range(3):
            with self.subTest(n=n):
                self.assertEqual(double(n), n + n)
"""


def test_tests_may_skip_expect_failures_and_write_what_they_like(folder: Path) -> None:
    (folder / "test.py").write_text(LOUD)
    (task,) = debug_gym.load(folder)
    with task.open() as episode:
        assert episode.solved() is False
        bash(episode, "printf 'def double(x):\\n    return 2 * x\\n' > code_under_test.py")
        assert episode.solved() is True
        bash(episode, "printf 'def double(x):\\n    return 2 * x if x else 1\\n' > code_under_test.py")
        assert episode.solved() is False


@pytest.mark.parametrize(
    ("code", "solved"),
    [("def double(x):\n    return 2 * x\n", True), (CODE, False), ("print('1 passed')\nraise SystemExit(0)\n", False)],
)
def test_without_pytest_the_plain_runner_judges(folder: Path, tmp_path: Path, code: str, solved: bool) -> None:
    (folder / "code_under_test.py").write_text(code)
    report = tmp_path / "report.json"
    command = [sys.executable, "-S", debug_gym_judge.__file__, str(report), "test.py"]  # -S: no installed package
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    assert "rootdir" not in done.stdout
    assert debug_gym.all_passed(report) is solved
    assert (done.returncode == 0) is (solved or "SystemExit" in code)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"status": 0, "collected": 2, "passed": 1, "skipped": 0, "failed": 0}']
)
def test_an_incomplete_report_is_no_pass(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.json").write_text(text)
    assert not debug_gym.all_passed(tmp_path / "report.json")


def test_times_are_left_out_so_that_equal_runs_read_equal() -> None:
    assert debug_gym.without_times("1 passed in 0.12s") == "1 passed"
    assert debug_gym.without_times("2 failed, 1 passed in 61.20s (0:01:01)") == "2 failed, 1 passed"


def test_what_is_no_task_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"no test\.py"):
        debug_gym.load(tmp_path)
    with pytest.raises(SuiteError, match="no folder"):
        debug_gym.load(tmp_path / "nowhere")


def run_plain(tmp_path: Path, text: str) -> tuple[int, str]:
    (tmp_path / "test.py").write_text(text)
    done = subprocess.run(
        [sys.executable, plain_runner.__file__, "test.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("def test_a():\n    pass\n", 0, "1 passed"),
        ("def test_a():\n    assert 1 == 2\n\ndef test_b():\n    pass\n", 1, "1 failed, 1 passed"),
        (
            "import unittest\nclass T(unittest.TestCase):\n    def test_a(self):\n        self.assertTrue(False)\n",
            1,
            "1 failed",
        ),
        ("import unittest\nclass T(unittest.TestCase):\n    def test_a(self):\n        pass\n", 0, "1 passed"),
        ("import nowhere\n", 2, "1 error"),
        ("x = 1\n", 1, "no tests ran"),
        ("def test_a(tmp_path):\n    pass\n", 1, "TypeError"),
    ],
)
def test_the_plain_runner_reads_like_pytest(tmp_path: Path, text: str, code: int, says: str) -> None:
    status, output = run_plain(tmp_path, text)
    assert (status, says in output) == (code, True), output


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    path = tmp_path / "project"
    (path / "src").mkdir(parents=True)
    (path / "src" / "a.py").write_text(CODE)
    (path / "check.sh").write_text('test "$(cat done.txt)" = yes\n')
    (path / ".gitignore").write_text("build/\n")
    (path / "build").mkdir()
    (path / "build" / "out.bin").write_bytes(b"\0")
    return path


def test_a_repository_with_a_test_is_judged(repo: Path) -> None:
    task = repository.RepositoryTask(repo, "Write yes into done.txt.", "sh check.sh", protect=("check.sh",))
    assert "src/a.py" in task.user
    assert "build" not in task.user
    with task.open() as episode:
        assert "eval" in {tool["function"]["name"] for tool in episode.tools}
        assert "start" in bash(episode, "git log --oneline")
        bash(episode, "echo true > check.sh")
        assert episode.solved() is False, "the protected test must be restored"
        bash(episode, "echo yes > done.txt; mkdir -p build; echo x > build/new")
        assert episode.solved()
        patch = episode.artifacts()["model_patch"]
    assert "+yes" in patch
    assert "build" not in patch
    assert not (repo / "done.txt").exists(), "the user's own folder was changed"


def test_without_a_test_there_is_a_patch_and_no_verdict(repo: Path) -> None:
    task = repository.RepositoryTask(repo, "Say hello.")
    with task.open() as episode:
        assert "eval" not in {tool["function"]["name"] for tool in episode.tools}
        assert episode.solved() is None
        assert episode.solved() is None


@pytest.mark.parametrize(
    "command",
    [
        "sh check.sh",
        "./not-yet.sh",
        "cd src && nosuchcmd",
        "$RUNNER check.sh",
        "'no such' program",
        "A=1 B=x/y true; nosuchcmd",
        "PATH=bin nosuchcmd",
        "check () { true; }; check",
        "if true; then nosuchcmd; fi",
        "! nosuchcmd",
        "(nosuchcmd)",
        "# first\ntrue",
        "2>&1 nosuchcmd",
    ],
)
def test_a_command_that_may_start_is_not_refused(repo: Path, command: str) -> None:
    repository.RepositoryTask(repo, "Do it.", command).check_test()


@pytest.mark.parametrize("command", ["nosuchcmd -q", "nosuchcmd|cat", "A=1 nosuchcmd", "\nnosuchcmd\n"])
def test_a_command_that_never_starts_is_refused(repo: Path, command: str) -> None:
    with pytest.raises(SuiteError, match="the sandbox has no 'nosuchcmd'"):
        repository.RepositoryTask(repo, "Do it.", command).check_test()


@pytest.mark.skipif(not isolation().mounts, reason="no mount namespaces here: a path elsewhere is seen")
def test_a_program_that_the_sandbox_does_not_see_is_refused(repo: Path, tmp_path: Path) -> None:
    program = tmp_path / "tool"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    with pytest.raises(SuiteError, match=r"the sandbox has no '/.*/tool'; .* sees no others"):
        repository.RepositoryTask(repo, "Do it.", f"{program} -q").check_test()


def test_a_test_command_that_does_not_start_is_no_verdict(repo: Path) -> None:
    (repo / "run.sh").write_text("#!/bin/sh\nsh check.sh\n")
    for command in ("true && nosuchcmd", "./run.sh"):  # not there, and there without the right to run it
        with (
            repository.RepositoryTask(repo, "Do it.", command).open() as episode,
            pytest.raises(HarnessError, match=r"the test command does not start, .*(not found|ermission denied)"),
        ):
            episode.solved()


def test_a_test_command_that_the_agent_broke_is_not_passed(repo: Path) -> None:
    (repo / "run.sh").write_text("#!/bin/sh\nsh check.sh\n")
    (repo / "run.sh").chmod(0o755)
    with repository.RepositoryTask(repo, "Do it.", "./run.sh").open() as episode:
        bash(episode, "rm run.sh")
        assert episode.solved() is False
    with repository.RepositoryTask(repo, "Do it.", "sh check.sh").open() as episode:
        bash(episode, "echo 'exit 127' > check.sh")
        assert episode.solved() is False


@pytest.mark.parametrize(
    "command",
    ["! nosuchcmd", "! ./nosuch.sh", "if ! nosuchcmd; then true; fi", "(! nosuchcmd -q)", "true\n!  nosuchcmd a | cat"],
)
def test_a_program_that_is_not_there_is_no_pass_when_its_status_is_turned_round(repo: Path, command: str) -> None:
    with (
        repository.RepositoryTask(repo, "Do it.", command).open() as episode,
        pytest.raises(HarnessError, match="does not start, with the files as they were at first either"),
    ):
        episode.solved()


@pytest.mark.parametrize(
    "command", ["if nosuchcmd; then false; fi", "nosuchcmd 2>/dev/null || true", "true; nosuchcmd; :"]
)
def test_a_pass_without_a_program_tells_nothing_where_the_first_files_pass_too(repo: Path, command: str) -> None:
    with (
        repository.RepositoryTask(repo, "Do it.", command).open() as episode,
        pytest.raises(HarnessError, match="passes on the files as they were at first, without 'nosuchcmd'"),
    ):
        episode.solved()


def test_a_status_that_is_turned_round_is_a_verdict_where_it_is_an_answer(repo: Path) -> None:
    (repo / "notes.txt").write_text("TODO\n")
    task = repository.RepositoryTask(repo, "Do it.", "nosuchcmd 2>/dev/null || ! grep -q TODO notes.txt")
    with task.open() as episode:
        assert episode.solved() is False
        bash(episode, "rm notes.txt")
        assert episode.solved() is False, "grep that finds no file is no answer, and the agent's doing"
        bash(episode, "echo done > notes.txt")
        assert episode.solved() is True


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("a -x; b|c && ! d", "a b c d"),
        ("A=1 if a; then b > c; fi 2>&1 d", "a b"),
        ("'no such' \"$x\" && ./e; for f in g; do h $f; done", "h"),
        ("f () { a; }; f # b", "a"),
        ("a 'unfinished", ""),
    ],
)
def test_the_programs_of_a_shell_command(command: str, names: str) -> None:
    assert list(programs(command)) == names.split()


def test_requests_are_texts_or_files(repo: Path, tmp_path: Path) -> None:
    file = tmp_path / "request.md"
    file.write_text("Do it.\n")
    assert repository.request_of(str(file)) == "Do it.\n"
    assert repository.request_of("Do that. " * 500) == "Do that. " * 500
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SuiteError, match="not UTF-8"):
        repository.request_of(str(file))
    with pytest.raises(SuiteError, match="the request is empty"):
        repository.RepositoryTask(repo, "  ")
    with pytest.raises(SuiteError, match="no folder"):
        repository.RepositoryTask(repo / "nowhere", "x")
