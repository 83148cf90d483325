"""Commands in a real container: a SWE-format task on an image made of files of this machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leyline.harness.sandbox.sandbox import CommandLimits
from leyline.harness.workspace.workspace import DiskWorkspace
from leyline.suites.swebench import container
from leyline.suites.swebench.container import ContainerSandbox
from leyline.suites.swebench.swebench_suite import SwebenchSuite

pytestmark = [pytest.mark.container, pytest.mark.xdist_group("container")]
IMAGE = f"localhost/leyline-test-{os.getpid()}:latest"
PROGRAMS = ("bash", "sh", "env", "sleep", "timeout", "cat", "ls", "grep", "kill", "setsid", "tr", "true", "id")
LEFT_OUT = {"test", "idlelib", "lib2to3", "ensurepip", "site-packages", "dist-packages", "__pycache__", "tkinter"}


def needed(program: str) -> set[str]:
    """A program and the libraries it is linked to, under each name they go by."""
    told = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    return {program, *re.findall(r"(/\S+) \(0x", told)}


def pack(archive: Path, repo: Path) -> None:
    """A file system with a shell, a few programs, Python, and the repository at /testbed."""
    python = os.path.realpath(sys.executable)
    library = sysconfig.get_path("stdlib")
    modules = sorted(Path(library, "lib-dynload").glob("*.so")) + sorted(Path(library).parent.glob("libpython*"))
    programs = [found for name in PROGRAMS if (found := shutil.which(name, path="/usr/bin:/bin"))]
    files = set().union(*(needed(str(each)) for each in (*programs, python, *modules)))
    with tarfile.open(archive, "w") as tar:
        for path in sorted(path for path in files if not path.startswith(f"{library}/")):
            tar.add(os.path.realpath(path), path, recursive=False)
        tar.add(library, library, filter=lambda info: None if LEFT_OUT & set(info.name.split("/")) else info)
        for name, target in (("python", python), *((name, f"/usr/bin/{name}") for name in ("sh", "bash"))):
            link = tarfile.TarInfo(f"usr/local/bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
        for folder in ("tmp", "dev", "proc", "sys", "run", "etc"):
            made = tarfile.TarInfo(folder)
            made.type, made.mode = tarfile.DIRTYPE, 0o1777
            tar.addfile(made)
        tar.add(repo, "testbed")


def asked(engine: str, *words: str) -> str:
    done = subprocess.run([engine, *words], capture_output=True, text=True, check=False, timeout=280)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        pytest.skip(f"no container can run here: {engine} {words[0]}: {last}")
    return done.stdout.strip()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, repositories: Path, row: dict[str, Any]) -> Iterator[str]:
    """The engine's command, with the image in it."""
    if sys.platform != "linux":
        pytest.skip("images are made of this machine's files, which a container can run on Linux only")
    folder = tmp_path_factory.mktemp("image")
    patch = pytest.MonkeyPatch()
    runtime = 'runtime = "runc"\n' if shutil.which("runc", path=f"{os.environ['PATH']}:/usr/sbin") else ""
    (folder / "containers.conf").write_text(  # no privilege that a confined machine lacks
        '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
        f'[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n{runtime}'
    )
    patch.setenv("CONTAINERS_CONF", str(folder / "containers.conf"))
    try:
        if (missing := container.engine_missing()) is not None:
            pytest.skip(f"no container can run here: {missing}, and podman is not there or does not answer")
        name = container._engine()
        clone = ["git", "clone", "-q", str(repositories / "acme__stats"), str(folder / "repo")]
        subprocess.run(clone, check=True, capture_output=True)
        subprocess.run(["git", "checkout", "-q", row["base_commit"]], cwd=folder / "repo", check=True)
        pack(folder / "image.tar", folder / "repo")
        asked(name, "import", str(folder / "image.tar"), IMAGE)
        asked(name, "run", "--rm", "--network=none", "--init", IMAGE, "true")
        yield name
        subprocess.run([name, "rmi", "-f", IMAGE], capture_output=True, check=False)
    finally:
        patch.undo()


def test_a_task_in_swebenchs_form_is_worked_on(engine: str, row: dict[str, Any], tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({**row, "image": IMAGE}) + "\n")
    suite = SwebenchSuite(str(rows), environment="container", score="none")
    assert suite.preflight() == ["agents run in the rows' images"]
    tried = {"command": "python -c 'from stats import median; print(median([3, 1, 2]))'"}
    with suite.open("acme__stats-1", 0) as episode:
        assert episode.call("bash", tried).text == "1"
        left = episode.call("bash", {"command": "sleep 9999 & setsid sleep 9999 & setsid -f sleep 9999; echo up"})
        assert left.text == "up"
        running = "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'sleep 999[9]'"
        assert episode.call("bash", {"command": running}).text.splitlines()[0] == "0"
        line = episode.workspace.read("stats.py").splitlines().index("    ordered = values") + 1
        episode.call("edit", {"path": "stats.py", "line": line, "new_code": "    ordered = sorted(values)"})
        assert episode.call("bash", tried).text == "2", "the container ended with an earlier command"
        assert "+    ordered = sorted(values)\n" in episode.artifacts()["model_patch"]
        name = episode.sandbox._id  # type: ignore[attr-defined]
        assert name in asked(engine, "ps", "-q", "--no-trunc")
    assert name not in asked(engine, "ps", "-aq", "--no-trunc")


def test_a_command_ends_and_the_others_go_on(engine: str) -> None:
    with DiskWorkspace.from_files({"a.txt": "x\n"}) as workspace:
        sandbox = ContainerSandbox(workspace, IMAGE, limits=CommandLimits(seconds=250))
        try:
            other = sandbox.start(["cat"], stdin=True)
            slow = sandbox.run("setsid sleep 8888 & sleep 8888", seconds=2)
            assert slow.timed_out or slow.exit_code == 124
            assert sandbox.run("cat a.txt; echo y > b.txt").output == "x\n"
            assert workspace.read("b.txt") == "y\n"
            count = "n=0; for p in /proc/[0-9]*; do grep -qs 8888 $p/cmdline && n=$((n+1)); done; echo $n"
            assert int(sandbox.run(["sh", "-c", count]).output) <= 2, "only the shell that looks, and its client"
            other.send(b"still here\n")
            text = b""
            while not text.endswith(b"\n"):
                text += other.read(1)
            assert text == b"still here\n"
            other.kill()
        finally:
            sandbox.close()
