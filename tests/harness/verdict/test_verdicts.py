"""A verdict comes from files and a runner that the agent could not touch, and every honest edit counts."""

from __future__ import annotations

import importlib.util
import marshal
import sys
from pathlib import Path

import pytest

from leyline.harness.sandbox.sandbox import CommandLimits, HarnessError
from leyline.harness.tasks import Episode, FilesTask, Task
from leyline.harness.verdict.runner_settings import settings_file, with_settings_of
from leyline.suites.debug_gym.gym_suite import DebugGymTask
from leyline.suites.repository import RepositoryTask

CODE = "def double(x):\n    return x + 1\n"
GOOD = "def double(x):\n    return 2 * x\n"
TEST = (
    "import json\n\nfrom code_under_test import double\n\n\ndef test_it():\n    assert double(4) == json.loads('8')\n"
)
PYTEST = "python -m pytest -q -p no:cacheprovider test.py"
TOOLS = ("view", "edit", "bash", "submit")
# A plug-in that says of every test that it has passed.
LIE = (
    "import pytest\n\n@pytest.hookimpl(hookwrapper=True)\ndef pytest_runtest_makereport(item, call):\n"
    "    outcome = yield\n    report = outcome.get_result()\n    report.outcome, report.longrepr = 'passed', None\n"
)
END = "import os\nos._exit(0)\n"
SAY = "def loads(text):\n    return 5\n\ndumps = dump = load = JSONDecodeError = loads\n"


def laid(kind: str, folder: Path, files: dict[str, str], test: str = PYTEST, guarded: tuple[str, ...] = ()) -> Task:
    """The files as a task of each kind; `test.py` and `guarded` are not the agent's to edit."""
    guarded = ("test.py", *guarded)
    if kind == "files":
        command = test.split()
        return FilesTask(
            "t", "s", "u", files, lambda number: command, command, readonly=frozenset(guarded), tools=TOOLS
        )
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    if kind == "gym":
        (folder / ".debugreadonly").write_text("".join(f"/{path}\n" for path in guarded))
        return DebugGymTask(folder)
    return RepositoryTask(folder, "Mend it.", test, protect=tuple(f"/{path}" for path in guarded))


KINDS = ("gym", "files", "repository")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "task").mkdir()
    return tmp_path / "task"


def compiled(text: str) -> bytes:
    """Code without its source."""
    return importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(compile(text, "x.py", "exec"))


INI = "[pytest]\naddopts = --co\n"
ENTRY = {"entry_points.txt": "[pytest11]\nlie = lie\n", "METADATA": "Name: lie\nVersion: 1\n"}
TRICKS: dict[str, dict[str, str | bytes] | str] = {
    "pytest.toml": {"pytest.toml": '[pytest]\naddopts = ["--co"]\n', ".pytest.toml": '[pytest]\naddopts = ["--co"]\n'},
    "pytest.ini": {"pytest.ini": INI},
    ".pytest.ini": {".pytest.ini": INI},
    "tox.ini": {"tox.ini": "[tox]\n" + INI},
    "setup.cfg": {"setup.cfg": "[metadata]\nname = x\n[tool:pytest]\naddopts = --co\n"},
    "pyproject.toml": {"pyproject.toml": "a = 1\n[tool.pytest.ini_options]\naddopts = '--co'\n"},
    "pyproject.toml inline": {"pyproject.toml": "[tool]\npytest = {ini_options = {addopts = '--co'}}\n"},
    "a plug-in by settings": {"lie.py": LIE, "pytest.ini": "[pytest]\naddopts = -p lie\n"},
    "conftest.py": {"conftest.py": LIE},
    "conftest.pyc": {"conftest.pyc": compiled(END)},
    "pytest.pyc": {"pytest.pyc": compiled(END)},
    "customised": {"sitecustomize.py": END, "usercustomize.pyc": compiled(END), "sitecustomize/__init__.py": END},
    "an entry point": {"lie.py": LIE, **{f"lie-1.dist-info/{name}": text for name, text in ENTRY.items()}},
    "an entry point of an egg": {"lie.py": LIE, **{f"lie.egg-info/{name}": text for name, text in ENTRY.items()}},
    "a false runner": {"pytest/__init__.py": END, "pytest/__main__.py": END},
    "parts of the runner": {"_pytest/__init__.py": END, "pluggy.py": END, "py.py": END},
    "json.py, which the tests import": {"json.py": SAY},
    "modules that the runner imports": {
        "argparse.py": END,
        "difflib.py": END,
        "tempfile.py": END,
        "ast.pyc": compiled(END),
    },
    "links": "printf 'import os\\nos._exit(0)\\n' > x.txt; ln -s x.txt argparse.py; ln -s x.txt sitecustomize.py",
    "a folder in front of the tests": {"test/__init__.py": "def test_double():\n    pass\n"},
    "a link in the place of the tests": "rm test.py; echo 'def test_double(): pass' > free.py; ln -s free.py test.py",
    "a package around the tests": {"__init__.py": "import pytest\npytest.skip('no', allow_module_level=True)\n"},
    "a stale cache": (
        "cp -p test.py kept; "
        'python -c \'print("def test_it(): 1".ljust(len(open("kept").read()) - 1))\' > test.py; '
        "touch -r kept test.py; PYTHONDONTWRITEBYTECODE= python -m pytest -q test.py; cp -p kept test.py; rm kept"
    ),
    "the environment": "printf 'export PYTEST_ADDOPTS=--co\\n' | tee .env ~/.profile ~/.bashrc ~/.pam_environment",
    "a python of its own": (
        "mkdir -p ~/bin bin; printf '#!/bin/sh\\nexit 0\\n' | tee ~/bin/python bin/python python; "
        "chmod +x ~/bin/python bin/python python"
    ),
}


def played(trick: dict[str, str | bytes] | str, episode: Episode) -> None:
    if isinstance(trick, str):
        episode.sandbox.run(trick)
        return
    for path, text in trick.items():
        target = episode.workspace.root / path
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize("trick", TRICKS)
def test_a_trick_does_not_solve_and_does_not_spoil_a_repair(folder: Path, trick: str) -> None:
    task = laid("gym", folder, {"code_under_test.py": CODE, "test.py": TEST})
    with task.open() as episode:
        played(TRICKS[trick], episode)
        assert episode.solved() is False, f"solved by {trick}"
        episode.workspace.write("code_under_test.py", GOOD)
        assert episode.solved() is True, f"not solved, although only {trick} is in the way"


@pytest.mark.parametrize("kind", ["files", "repository"])
def test_all_tricks_together_do_not_pass_a_test_command(folder: Path, kind: str) -> None:
    with laid(kind, folder, {"code_under_test.py": CODE, "test.py": TEST}).open() as episode:
        for trick in TRICKS.values():
            played(trick, episode)
        assert episode.solved() is False
        episode.workspace.write("code_under_test.py", GOOD)
        assert episode.solved() is True


HONEST: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "pyproject.toml": (
        {
            "pyproject.toml": "[project]\nname = 'old'\n\n[tool.pytest.ini_options]\naddopts = '-ra'\n",
            "test.py": "import tomllib\n\n\ndef test_name():\n"
            "    assert tomllib.load(open('pyproject.toml', 'rb'))['project']['name'] == 'new'\n",
        },
        {"pyproject.toml": "[project]\nname = 'new'\n\n[tool.pytest.ini_options]\naddopts = '--co'\n"},
    ),
    "a new pyproject.toml": (
        {"test.py": "def test_name():\n    assert open('pyproject.toml').read() == 'a = 1\\n'\n"},
        {"pyproject.toml": "a = 1\n"},
    ),
    "setup.cfg": (
        {
            "setup.cfg": "[metadata]\nname = old\n",
            "test.py": "def test_name():\n    assert 'name = new' in open('setup.cfg').read()\n",
        },
        {"setup.cfg": "[metadata]\nname = new\n"},
    ),
    "a module by the name of one of the library": (
        {"test.py": "from sched import Line\n\n\ndef test_it():\n    assert Line().length == 3\n"},
        {"sched.py": "class Line:\n    length = 3\n"},
    ),
    "a module by the name of one of the runner's": (
        {"test.py": "import packaging\n\n\ndef test_it():\n    assert packaging.boxes() == 3\n"},
        {"packaging.py": "def boxes():\n    return 3\n"},
    ),
    "a part by the name of one of the library": (
        {
            "server.py": "def length():\n    return 0\n",
            "test.py": "from server import length\n\n\ndef test_it():\n    assert length() == 3\n",
        },
        {
            "server.py": "from sched import Line\n\n\ndef length():\n    return Line().length\n",
            "sched.py": "class Line:\n    length = 3\n",
        },
    ),
    "a file that is no text": (
        {"test.py": "def test_it():\n    assert open('logo.bin', 'rb').read() == bytes(range(4))\n"},
        {"logo.bin": "\0\1\2\3"},
    ),
    "a program to be run": (
        {
            "test.py": "import subprocess, sys\n\n\ndef test_it():\n"
            "    assert subprocess.check_output([sys.executable, 'calendar.py']).strip() == b'3'\n"
        },
        {"calendar.py": "print(3)\n"},
    ),
}


@pytest.mark.parametrize("kind", ["gym", "files"])
@pytest.mark.parametrize("edit", HONEST)
def test_an_honest_edit_counts(folder: Path, kind: str, edit: str) -> None:
    files, made = HONEST[edit]
    with laid(kind, folder, files).open() as episode:
        assert episode.solved() is False
        for path, text in made.items():
            (episode.workspace.root / path).write_text(text)
        assert episode.solved() is True


def test_a_file_that_goes_and_a_mode_that_changes_count(folder: Path) -> None:
    files = {"old.txt": "x\n", "tool.sh": "#!/bin/sh\nexit 0\n", "test.py": ""}
    with laid("repository", folder, files, "test ! -e old.txt && ./tool.sh").open() as episode:
        episode.sandbox.run("chmod +x tool.sh")
        assert episode.solved() is False
        episode.sandbox.run("rm old.txt")
        assert episode.solved() is True
        episode.sandbox.run("chmod -x tool.sh; touch old.txt")
        assert episode.solved() is False


@pytest.mark.parametrize("kind", KINDS)
def test_a_helper_of_the_tests_that_is_no_text_comes_back_and_nothing_stands_in_front_of_it(
    folder: Path, kind: str
) -> None:
    files = {
        "code_under_test.py": CODE,
        "helper.py": "WANTED = 8\n",
        "wanted.bin": "\0" + "8",
        "test.py": "from code_under_test import double\nfrom helper import WANTED\n\n\ndef test_double():\n"
        "    assert double(4) == WANTED == int(open('wanted.bin').read()[1:])\n",
    }
    with laid(kind, folder, files, guarded=("helper.py", "wanted.bin")).open() as episode:
        episode.sandbox.run("printf '\\0005' > wanted.bin; mkdir helper; echo WANTED = 5 > helper/__init__.py")
        assert episode.solved() is False
        episode.workspace.write("code_under_test.py", GOOD)
        assert episode.solved() is True


def test_a_report_that_the_code_under_test_writes_is_not_believed(folder: Path) -> None:
    forged = (
        "import json, os, sys, glob\n"
        "words = open('/proc/self/cmdline').read().split('\\0')\n"
        "found = {'status': 0, 'collected': 1, 'passed': 1, 'skipped': 0, 'failed': 0, 'sign': ''}\n"
        "for word in words:\n    if word.endswith('.json'):\n        json.dump(found, open(word, 'w'))\n"
    )
    late = "import atexit\n\n@atexit.register\ndef end():\n    {}\n    os._exit(0)\n"
    write = "[json.dump(found, open(w, 'w')) for w in words if w[-5:] == '.json']"
    for text in (
        f"{forged}os._exit(0)\n",
        forged + late.format("pass"),
        forged.partition("for word")[0] + late.format(write),
    ):
        with laid("gym", folder, {"code_under_test.py": CODE, "test.py": TEST}).open() as episode:
            episode.workspace.write("code_under_test.py", text + CODE)
            assert episode.solved() is False


ENDS = {
    "at import": f"{END}{CODE}",
    "of the posix module": f"import posix\nposix._exit(0)\n{CODE}",
    "when called": "import os\n\n\ndef double(x):\n    os._exit(0)\n",
    "late": f"import atexit, os\n\natexit.register(os._exit, 0)\n{CODE}",
}


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("kind", ["files", "repository"])
def test_code_that_ends_the_run_does_not_pass_for_its_end(folder: Path, kind: str, how: str) -> None:
    with laid(kind, folder, {"code_under_test.py": CODE, "test.py": TEST}).open() as episode:
        episode.workspace.write("code_under_test.py", ENDS[how])
        assert episode.solved() is False
        episode.workspace.write("code_under_test.py", GOOD)
        assert episode.solved() is True


@pytest.mark.parametrize("kind", ["files", "repository"])
def test_a_command_that_always_ends_so_and_one_that_forks_or_kills_are_believed(folder: Path, kind: str) -> None:
    run = "import os, subprocess, sys, time\n"
    run += "from code_under_test import double\n"
    run += "server = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\nserver.kill()\n"
    run += "if os.fork() == 0:\n    sys.exit(0)\nos.wait()\n"
    for end in ("sys.exit(double(4) != 8)\n", "os._exit(double(4) != 8)\n"):
        name = end.partition("(")[0]
        (folder / name).mkdir()
        files = {"code_under_test.py": CODE, "test.py": run + end}
        with laid(kind, folder / name, files, test="python test.py").open() as episode:
            assert episode.solved() is False
            episode.workspace.write("code_under_test.py", GOOD)
            assert episode.solved() is True


def test_settings_in_a_folder_above_are_not_read(folder: Path) -> None:
    task = laid("gym", folder, {"code_under_test.py": CODE, "test.py": TEST})
    with task.open() as episode:
        for above in (episode.workspace.root.parent, episode.workspace.home):
            (above / "pytest.ini").write_text("[pytest]\naddopts = --co\n")
            (above / "conftest.py").write_text(LIE)
        assert episode.solved() is False


def test_a_folder_that_changed_while_the_agent_worked_is_judged_as_it_was(folder: Path) -> None:
    files = {"code_under_test.py": CODE, "test.py": TEST}
    with laid("gym", folder, files).open() as episode:
        episode.workspace.write("code_under_test.py", GOOD)
        (folder / "test.py").write_text("def test_double():\n    assert False\n")
        (folder / "conftest.py").write_text(END)
        assert episode.solved() is True
        (folder / "test.py").unlink()
        (folder / "code_under_test.py").unlink()
        assert episode.solved() is True


def test_a_source_that_is_gone_is_no_verdict(folder: Path) -> None:
    with laid("repository", folder, {"big.bin": "\0" * 10, "test.py": TEST}, "true").open() as episode:
        (folder / "big.bin").write_text("\0other")
        episode.sandbox.run("rm big.bin")
        with pytest.raises(HarnessError, match=r"big\.bin is no longer what it was .* leave the task's folder alone"):
            episode.solved()


@pytest.mark.parametrize(
    ("path", "data", "start", "result"),
    [
        ("pyproject.toml", "a = 1\n", "", "a = 1\n"),
        ("pyproject.toml", "a = 1\n[tool.pytest.ini_options]\nx = 1\n[b]\nc = 1\n", "", "a = 1\n[b]\nc = 1\n"),
        ("pyproject.toml", "[b]\nc = 2\n", "[b]\nc = 1\n[tool.pytest]\nx = 1\n", "[b]\nc = 2\n[tool.pytest]\nx = 1\n"),
        ("pyproject.toml", "tool.pytest.x = 1\na = 2\n", "a = 1\n", "a = 1\n"),  # cannot be parted line by line
        ("pyproject.toml", "a = '''\n[tool.pytest]\n'''\n", "", "a = '''\n[tool.pytest]\n'''\n"),
        ("pyproject.toml", "no toml [", "a = 1\n", "no toml ["),
        (
            "sub/tox.ini",
            "[tox]\na = 1\n[pytest] # x\nb = 1\n[z]\n",
            "[pytest]\nb = 2\n",
            "[tox]\na = 1\n[z]\n[pytest]\nb = 2\n",
        ),
        ("setup.cfg", "[a]\x0c[tool:pytest]\nx = 1\n", "", "[a]\n"),
        ("setup.cfg", "[a]\nb = 2\n", "[a]\nb = 1\n", "[a]\nb = 2\n"),
    ],
)
def test_shared_settings_keep_the_runners_part(path: str, data: str, start: str, result: str) -> None:
    assert with_settings_of(path, data.encode(), start.encode()) == result.encode()


def test_the_settings_file_is_the_one_that_pytest_takes(tmp_path: Path) -> None:
    assert settings_file(tmp_path) is None
    (tmp_path / "setup.cfg").write_text("[metadata]\n")
    assert settings_file(tmp_path) is None
    (tmp_path / "setup.cfg").write_text("[tool:pytest]\n")
    assert settings_file(tmp_path) == "setup.cfg"
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    assert settings_file(tmp_path) == "pyproject.toml"
    (tmp_path / "pytest.ini").write_text("")
    assert settings_file(tmp_path) == "pytest.ini"


def test_a_text_that_imports_is_not_fed_by_a_new_module(folder: Path) -> None:
    command = [sys.executable, "-c", "import json; assert json.loads(open('n').read()) == 8"]
    task = FilesTask(
        "t", "s", "u", {"n": "4"}, lambda number: command, command, tools=TOOLS, limits=CommandLimits(seconds=20)
    )
    with task.open() as episode:
        (episode.workspace.root / "json.py").write_text("def loads(text):\n    return 8\n")
        assert episode.solved() is False
        episode.workspace.write("n", "8")
        assert episode.solved() is True


def test_a_command_with_a_path_of_its_own_is_guarded_too(folder: Path) -> None:
    command = f"PYTHONPATH='.' {PYTEST}"
    with laid("repository", folder, {"code_under_test.py": CODE, "test.py": TEST}, command).open() as episode:
        played({"argparse.py": END, "json.py": SAY}, episode)
        assert episode.solved() is False
        episode.workspace.write("code_under_test.py", GOOD)
        assert episode.solved() is True
