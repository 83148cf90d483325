import os
import sys
from pathlib import Path
from typing import Any

import pytest

from leyline.suites import load_suite
from leyline.suites.spec import SuiteSpec
from leyline.suites.suite import SuiteError
from leyline.suites.swebench.container import image_of
from leyline.suites.swebench.grade import scoring_problems
from leyline.suites.swebench.repos import Repositories
from leyline.suites.swebench.swebench_suite import SwebenchSuite

# A stand-in for the docker command that keeps "containers" as folders: the requests are what is tested here.
# It never runs anything but a command behind `timeout`, in the mounted folder.
DOCKER = """#!{python}
import os, pathlib, shutil, subprocess, sys
home = pathlib.Path({home!r})
words = sys.argv[1:]
with (home / "calls").open("a") as calls:
    print(" ".join(words), file=calls)
verb, rest = words[0], [w for w in words[1:] if not w.startswith("-")]
if verb == "info":
    print("27.0")
elif verb == "create":
    print("created-1")
elif verb == "cp":
    shutil.copytree(home / "image", rest[1], dirs_exist_ok=True)
elif verb == "run":
    mount = next(w for w in words if w.startswith("--volume="))
    (home / "mount").write_text(mount.removeprefix("--volume=").removesuffix(":/testbed"))
    print("running-1")
elif verb == "exec" and rest[1] == "timeout":
    command = words[words.index("bash"):]
    sys.exit(subprocess.run(command, cwd=(home / "mount").read_text()).returncode)
"""


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the stand-in was asked for in `calls`, and the image's repository in `image`."""
    home = tmp_path / "docker"
    (home / "bin").mkdir(parents=True)
    program = home / "bin" / "docker"
    program.write_text(DOCKER.format(python=sys.executable, home=str(home)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{home / 'bin'}:{os.environ['PATH']}")
    (home / "image").mkdir()
    (home / "image" / "stats.py").write_text("def median(values):\n    return values[0]\n")
    (home / "image" / "built.so").write_bytes(b"\0\1")
    return home


@pytest.fixture
def no_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


def test_in_a_container_files_are_here_and_commands_there(rows_file: Path, docker: Path) -> None:
    suite = SwebenchSuite(str(rows_file), score="none")
    assert suite.in_container
    assert suite.preflight() == ["agents run in the rows' images"]
    with suite.open("acme__stats-1", 0) as episode:
        assert "return values[0]" in episode.call("view", {"path": "stats.py", "start": 1, "end": 2}).text
        assert episode.call("bash", {"command": "echo $((6 * 7)) > new.txt; cat new.txt"}).text == "42"
        episode.call("edit", {"path": "stats.py", "line": 2, "new_code": "    return sorted(values)[0]"})
        assert episode.solved() is None, "there is no verdict before the patch is scored"
        patch = episode.artifacts()["model_patch"]
    assert "+    return sorted(values)[0]\n" in patch
    assert "new.txt" in patch
    assert "built.so" not in patch
    calls = (docker / "calls").read_text().splitlines()
    started = next(call for call in calls if call.startswith("run "))
    assert "--network=none" in started
    assert f"--user={os.getuid()}:{os.getgid()}" in started
    assert "--cap-drop=ALL" in started
    assert "example.org/acme-stats:1 sleep" in started
    asked = next(call for call in calls if "running-1 timeout -k 5 300 bash -c" in call)
    mark = asked.split("--env=")[1].split()[0]
    ended = calls[calls.index(asked) + 1]  # what a command leaves running is ended by its mark, and nothing else
    assert ended.startswith("exec running-1 sh -c")
    assert ended.endswith(mark)
    assert not any("kill -9 -1" in call for call in calls)
    assert "rm -f created-1" in calls
    assert calls[-1] == "rm -f running-1"


def test_the_published_image_is_taken_where_a_row_names_none(row: dict[str, Any]) -> None:
    assert image_of(row) == "example.org/acme-stats:1"
    assert image_of({"instance_id": "A__b-1"}) == "swebench/sweb.eval.x86_64.a_1776_b-1:latest"


@pytest.mark.usefixtures("no_docker")
def test_scoring_that_cannot_work_is_said_before_anything_runs(rows_file: Path) -> None:
    suite = SwebenchSuite(str(rows_file))
    assert not suite.in_container
    with pytest.raises(SuiteError, match=r"Docker is not installed; .*--option score=none"):
        suite.preflight()


@pytest.mark.usefixtures("no_docker")
def test_a_container_that_is_asked_for_is_not_replaced(rows_file: Path) -> None:
    with pytest.raises(SuiteError, match="environment=container: Docker is not installed"):
        SwebenchSuite(str(rows_file), environment="container").preflight()


def test_rows_without_the_fields_of_release_5_are_named(row: dict[str, Any]) -> None:
    pytest.importorskip("swebench", reason="the fields depend on the release")
    old = {key: value for key, value in row.items() if key not in ("eval_script", "log_parser")}
    problems, _ = scoring_problems([old], "here")
    assert problems == ["row acme__stats-1 has no log_parser, eval_script"]


def test_repositories_are_found_and_the_rest_is_announced(repositories: Path, rows_file: Path, tmp_path: Path) -> None:
    found = Repositories(repositories)
    assert found.find("acme/stats") == repositories / "acme__stats"
    assert found.find("acme/other") is None
    with pytest.raises(SuiteError, match="has no repository acme__other"):
        found.get("acme/other")
    with pytest.raises(SuiteError, match="no folder"):
        Repositories(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    suite = SwebenchSuite(str(rows_file), repos=str(tmp_path / "empty"), environment="checkout", score="none")
    assert "1 repository is cloned from github.com when a task needs it: acme/stats" in suite.preflight()


def test_a_commit_that_is_not_there_is_one_line(repositories: Path, row: dict[str, Any]) -> None:
    missing = {**row, "base_commit": "0" * 40}
    with (
        pytest.raises(SuiteError, match="acme__stats-1: cannot check out 000000000000"),
        Repositories(repositories).checkout(missing),
    ):
        pass


def test_a_checkout_has_no_history_and_a_clone_has_it(repositories: Path, row: dict[str, Any]) -> None:
    found = Repositories(repositories)
    with found.checkout(row) as tree:
        assert "ordered = values\n" in (tree / "stats.py").read_text()
        assert not (tree / ".git").exists()
    assert not tree.exists()
    with found.checkout(row, history=True) as tree:
        assert (tree / ".git").is_dir()


def test_options_are_checked(rows_file: Path) -> None:
    with pytest.raises(SuiteError, match="score 'later' is not one of docker, here, none"):
        load_suite(SuiteSpec(name="swebench", options={"dataset": str(rows_file), "score": "later"}))
    with pytest.raises(SuiteError, match="missing a required argument: 'dataset'"):
        load_suite(SuiteSpec(name="swebench"))
