"""Where the package and the interpreter lie must not matter: a private /tmp covers what is below it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import leyline
from leyline.harness.sandbox.isolation import isolation
from leyline.harness.sandbox.sandbox import CommandLimits, Sandbox, _write_program

FULL = isolation()
PACKAGE = Path(leyline.__file__).parent
DEPENDENCIES = sysconfig.get_path("purelib")
MICRO = """
from leyline.suites.micro.micro_suite import MicroSuite
suite = MicroSuite(levels="short")
name = suite.tasks()[0].id
task = suite.make(name)
with suite.open(name, 0) as attempt:
    text = attempt.call("eval", {}).text
    assert text == task.evaluate(task.files, 1)[0], text
    for path in task.modules:
        attempt.workspace.write(path, task.reference[path])
    assert attempt.solved()
    text = attempt.call("eval", {}).text
    assert " passed in " in text, text
"""
FOLDER = """
import pathlib, sys
from leyline.suites.debug_gym import gym_suite as debug_gym
folder = pathlib.Path(sys.argv[1])
folder.mkdir()
(folder / "test.py").write_text("def test_it():\\n    assert True\\n")
(task,) = debug_gym.load(folder)
with task.open() as episode:
    text = episode.call("eval", {}).text
    assert "1 passed" in text, text
    assert episode.solved() is True
"""
CONFINED = f"""
import leyline
from leyline.harness.sandbox.isolation import isolation
assert isolation().tmp is {FULL.tmp}, isolation()
print("at", leyline.__file__)
"""


def run(code: str, folder: Path, *arguments: str, python: str = sys.executable, path: str) -> str:
    """What `code` prints, with `path` as PYTHONPATH."""
    done = subprocess.run(
        [python, "-c", code, *arguments],
        cwd=folder,
        env={"PATH": os.defpath, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A folder with a copy of the package, without its model files."""
    source = tmp_path / "src"
    shutil.copytree(PACKAGE, source / "leyline", ignore=shutil.ignore_patterns("__pycache__", "*.bin"))
    return source


def test_a_package_below_tmp_runs_its_tests(copied: Path, tmp_path: Path) -> None:
    told = run(CONFINED + MICRO + FOLDER, tmp_path, str(tmp_path / "task"), path=str(copied))
    assert told == f"at {copied / 'leyline' / '__init__.py'}"


def test_an_interpreter_below_tmp_runs_them_too(copied: Path, tmp_path: Path) -> None:
    """A virtual environment behind a link, with the package and what it needs beside it."""
    venv.create(tmp_path / "real" / "venv", symlinks=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    python = str(tmp_path / "link" / "venv" / "bin" / "python")
    path = f"{copied}{os.pathsep}{DEPENDENCIES}"
    code = f"import sys; assert sys.prefix == {str(tmp_path / 'link' / 'venv')!r}, sys.prefix\n"
    run(code + CONFINED + MICRO, tmp_path, python=python, path=path)


@pytest.mark.skipif(os.getuid() != 0, reason="only the superuser reads what others keep to themselves")
def test_a_package_that_a_confined_superuser_may_not_read_runs_its_tests(copied: Path, tmp_path: Path) -> None:
    for entry in (copied, *copied.rglob("*")):
        entry.chmod(0o700 if entry.is_dir() else 0o600)
        os.chown(entry, 1000, 1000)
    run(MICRO, tmp_path, path=str(copied))


@pytest.mark.skipif(not FULL.tmp, reason=f"no private /tmp here: {FULL.reason}")
@pytest.mark.parametrize("place", ["tmp", "tmp/{}"])
def test_a_link_in_the_place_of_a_private_folder_leads_nowhere(tmp_path: Path, place: str) -> None:
    """Neither that of /tmp, nor that of a folder below it which the next command mounts the workspace in."""
    outside, root = tmp_path / "outside", tmp_path / "work"
    for folder in (outside, root):
        folder.mkdir()
    (outside / "file").write_text("safe")
    box = Sandbox(root, tmp_path / "home", limits=CommandLimits(seconds=20))
    place = place.format(tmp_path.relative_to("/tmp") if tmp_path.is_relative_to("/tmp") else "other")
    assert box.run(f"cd; mkdir -p {place}; mv {place} before && ln -s {outside} {place}").exit_code == 0
    result = box.run("echo bad > /tmp/file; cat /tmp/file; pwd")
    assert result.output == "bad\n.\n"
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"file": "safe"}


@pytest.mark.parametrize("left", ["ln -s {} bin", "mkdir bin; ln -s {}/file bin/python"])
def test_a_program_that_is_laid_in_the_home_follows_no_link(tmp_path: Path, left: str) -> None:
    """Where an installation only has python3, a script by the name of python is laid there before each command."""
    outside, home = tmp_path / "outside", tmp_path / "home"
    for folder in (outside, home):
        folder.mkdir()
    (outside / "file").write_text("safe")
    subprocess.run(["sh", "-c", left.format(outside)], cwd=home, check=True)
    _write_program(home / "bin", "python", "#!/bin/sh\n")
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"file": "safe"}
    assert (home / "bin" / "python").read_text() == "#!/bin/sh\n"
    assert os.access(home / "bin" / "python", os.X_OK)
