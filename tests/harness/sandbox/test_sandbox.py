"""The sandbox: every limit holds, nothing survives a command, no secret gets in; with namespaces and without."""

from __future__ import annotations

import _thread
import os
import socket
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from leyline.harness.sandbox import disk
from leyline.harness.sandbox import sandbox as module
from leyline.harness.sandbox.cgroup import Group, above
from leyline.harness.sandbox.disk import DiskWatch, used
from leyline.harness.sandbox.isolation import SYSTEM, Isolation, _private, capabilities, isolation, visible
from leyline.harness.sandbox.process import Capture, Process, capped
from leyline.harness.sandbox.sandbox import CommandLimits, Result, Sandbox, SandboxError, run
from leyline.harness.tools import ToolBox
from leyline.harness.workspace.workspace import DiskWorkspace

FULL = isolation()
LONG = 200.0  # more than anything here takes, however busy the machine is
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


@pytest.fixture(params=["full", "plain"])
def sandbox(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """A sandbox with all this system allows, and one with no namespaces at all."""
    if request.param == "plain":
        group = "group" if above() is not None else None
        monkeypatch.setattr(module, "isolation", lambda: Isolation(processes=group, reason="switched off"))
    elif not FULL.pid:
        pytest.skip(f"no process namespaces here: {FULL.reason}")
    root = tmp_path / "work"
    root.mkdir()
    return Sandbox(root, tmp_path / "home", limits=CommandLimits(seconds=LONG))


def alive(marker: str) -> list[str]:
    """The processes with `marker` in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if marker.encode() in (entry / "cmdline").read_bytes() and " Z " not in (entry / "stat").read_text():
                    found.append(entry.name)
            except OSError:
                continue
    return found


def gone(marker: str) -> bool:
    """Whether they end."""
    deadline = time.monotonic() + LONG
    while alive(marker):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_output_and_status(sandbox: Sandbox) -> None:
    result = sandbox.run("echo out; echo err >&2; exit 3")
    assert (result.exit_code, result.output, result.killed, result.truncated) == (3, "out\nerr\n", None, False)
    assert result.report(status=True) == "out\nerr\n[exit code 3]"
    assert result.report() == "out\nerr"
    assert sandbox.run(["python", "-c", "print(6 * 7)"]).output == "42\n"
    assert sandbox.run("true").report(status=True) == "(no output)"


def test_signals_and_missing_programs(sandbox: Sandbox) -> None:
    assert sandbox.run("kill -9 $$").exit_code == 137
    assert sandbox.run("kill -TERM $$").exit_code == 143
    missing = sandbox.run(["no-such-program"])
    assert (missing.exit_code, missing.output) == (127, "no-such-program: No such file or directory\n")
    with pytest.raises(ValueError, match="null byte"):
        sandbox.run("echo \0")
    with pytest.raises(SandboxError, match="cannot start a command"):
        sandbox.run("x" * 3_000_000)


def test_stdin_is_closed(sandbox: Sandbox) -> None:
    assert sandbox.run("cat; echo done").output == "done\n"


def test_bytes_that_are_no_text(sandbox: Sandbox) -> None:
    assert sandbox.run(r"printf 'caf\351 \303\251'").output == "caf\ufffd é"


def test_an_endless_loop_is_stopped(sandbox: Sandbox) -> None:
    result = sandbox.run("echo before; while true; do :; done", seconds=0.5)
    assert result.timed_out
    assert result.exit_code == 137
    assert result.seconds > 0.4
    assert result.report() == "before\n[stopped after 0.5 s]"


@linux
def test_what_a_command_leaves_behind_is_killed(sandbox: Sandbox) -> None:
    marker = f"3{os.getpid()}.{time.monotonic_ns()}"
    result = sandbox.run(
        f"sleep {marker} & setsid sleep {marker} & (setsid sh -c 'sleep {marker} & sleep {marker}' &) ; echo up"
    )
    assert result.output == "up\n"
    assert result.killed is None
    assert gone(marker)


@linux
def test_a_time_out_kills_the_whole_tree(sandbox: Sandbox) -> None:
    marker = f"4{os.getpid()}.{time.monotonic_ns()}"
    result = sandbox.run(f"setsid sleep {marker} & sleep {marker} & wait", seconds=0.4)
    assert result.timed_out
    assert gone(marker)


@linux
def test_an_interrupt_kills_the_tree(sandbox: Sandbox) -> None:
    marker = f"5{os.getpid()}.{time.monotonic_ns()}"

    def interrupt() -> None:
        deadline = time.monotonic() + LONG
        while not alive(marker) and time.monotonic() < deadline:
            time.sleep(0.02)
        _thread.interrupt_main()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        sandbox.run(f"sleep {marker}")
    thread.join()
    assert gone(marker)


def test_much_output_keeps_head_and_tail(sandbox: Sandbox) -> None:
    sandbox.limits = CommandLimits(seconds=LONG, output=100)
    result = sandbox.run("seq 1 20000")
    assert result.truncated
    total = sum(len(str(i)) + 1 for i in range(1, 20001))
    assert f"\n[... {total - 100} characters removed ...]\n" in result.output
    assert result.output.startswith("1\n2\n3\n")
    assert result.output.endswith("19999\n20000\n")


def test_a_flood_is_stopped(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLOOD", 2_000_000)
    result = sandbox.run("yes")
    assert result.killed == "output"
    assert len(result.output) < 25_000
    assert result.report().endswith("\n[stopped: too much output]")


def test_a_memory_hog_is_refused(sandbox: Sandbox) -> None:
    sandbox.limits = CommandLimits(seconds=LONG, memory=300 << 20)
    result = sandbox.run("python -c 'x = bytearray(1 << 30)' 2>&1 | tail -1")
    assert result.output == "MemoryError\n"


@linux
def test_many_small_hogs_are_stopped_together(sandbox: Sandbox) -> None:
    sandbox.limits = CommandLimits(seconds=LONG, memory=200 << 20)
    hog = "import time; x = b'x' * (90 << 20); time.sleep(1000)"
    result = sandbox.run(f'for i in 1 2 3 4; do python -S -c "{hog}" & done; wait')
    assert result.killed == "memory"


COUNTED = """
import os, signal, sys
started = 0
try:
    for _ in range(60):
        if not os.fork():
            signal.pause()
        started += 1
except BlockingIOError:
    pass
print(started)
"""


@linux
def test_the_kernel_bounds_the_processes(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    if module.isolation().processes is None:
        pytest.skip(f"no limit of the kernel here: {FULL.reason}")
    monkeypatch.setattr(Process, "over", lambda *_: None)
    sandbox.limits = CommandLimits(seconds=LONG, processes=10)
    result = sandbox.run(["python", "-S", "-c", COUNTED])
    assert 5 <= int(result.output) < 10 + module.SLACK
    assert sandbox.run(["python", "-S", "-c", COUNTED]).output == result.output, "what ended is not counted"


@linux
def test_a_limit_does_not_count_what_others_run(sandbox: Sandbox) -> None:
    if module.isolation().processes is None:
        pytest.skip(f"no limit of the kernel here: {FULL.reason}")
    sandbox.limits = CommandLimits(seconds=LONG, processes=20)
    command = "for n in $(seq 15); do sleep 1000 & done; {}sleep 0; sleep 0; echo fine"
    waiting = sandbox.start(command.format("read line; "), stdin=True)
    try:
        other = Sandbox(sandbox.root, sandbox.home, limits=sandbox.limits)
        assert other.run(command.format("")).output == "fine\n"
        waiting.send(b"go\n")
        text = b""
        while not text.endswith(b"\n"):
            text += waiting.read(1)
        assert text == b"fine\n"
    finally:
        waiting.kill()


def test_no_limit_that_counts_what_others_run_is_set() -> None:
    limits = CommandLimits(processes=7)
    assert module.resource_limits(limits, Isolation(processes="namespace"))["RLIMIT_NPROC"] == 7 + module.SLACK
    for processes in ("group", None):
        assert "RLIMIT_NPROC" not in module.resource_limits(limits, Isolation(processes=processes))


@linux
@pytest.mark.parametrize("bomb", ["f() { f | f & }; f; sleep 1000", "for i in $(seq 60); do sleep 1000 & done; wait"])
def test_a_fork_bomb_is_stopped(sandbox: Sandbox, bomb: str) -> None:
    if module.isolation().processes is None:
        pytest.skip(f"no limit of the kernel here, and without one a bomb is the machine's end: {FULL.reason}")
    sandbox.limits = CommandLimits(seconds=LONG, processes=20)
    assert sandbox.run(bomb).killed == "processes"
    assert sandbox.run("echo fine").output == "fine\n"


@pytest.mark.skipif(above() is None, reason="no control groups that we may make here")
def test_control_groups_are_removed_those_of_killed_processes_too(sandbox: Sandbox) -> None:
    folder = above()
    assert folder is not None
    sandbox.run("sleep 0 & wait")
    assert not list(folder.glob(f"leyline-{os.getpid()}-*"))
    left = Group(folder, 8)
    old = Path(left.entrance).parent
    gone = old.rename(old.with_name("leyline-999999999-x"))
    above.cache_clear()
    assert above() == folder
    assert not gone.exists()


def test_a_large_file_is_refused(sandbox: Sandbox) -> None:
    sandbox.limits = CommandLimits(seconds=LONG, file_bytes=1 << 20)
    sandbox.run("head -c 5000000 /dev/zero > big")
    assert (sandbox.root / "big").stat().st_size == 1 << 20


FILL = "for i in $(seq {}); do head -c 1000000 /dev/zero > {}/$i; done"


@pytest.mark.parametrize("where", [".", "~", "${TMPDIR}"])
def test_many_files_that_fill_the_disk_are_stopped(sandbox: Sandbox, where: str) -> None:
    sandbox.limits = CommandLimits(seconds=LONG, disk=20 << 20)
    result = sandbox.run(FILL.format(10_000, where))
    assert result.killed == "disk"
    assert "[stopped: over 20 MiB of new files; remove some]" in result.report()


def test_a_short_command_that_leaves_too_much_says_so_until_it_is_removed(sandbox: Sandbox) -> None:
    (sandbox.root / "given").write_bytes(b"x" * (8 << 20))
    sandbox = Sandbox(sandbox.root, sandbox.home, limits=CommandLimits(seconds=LONG, disk=4 << 20))
    assert sandbox.run("cat given | wc -c").killed is None, "what was there at first is not counted"
    assert sandbox.run(FILL.format(6, ".")).killed == "disk"
    assert sandbox.run("ls").killed == "disk"
    assert sandbox.run("rm 1 && sleep 1").killed is None, "a command that makes room was stopped"
    assert sandbox.run("rm -f 2 3 4 5 6").killed is None
    assert sandbox.run("ls").output == "given\n"


def test_a_debugger_that_fills_the_disk_is_stopped() -> None:
    with DiskWorkspace.from_files({"test.py": "x = 1\n"}) as workspace:
        box = Sandbox(workspace.root, workspace.home, limits=CommandLimits(seconds=LONG, disk=20 << 20))
        with ToolBox(workspace, sandbox=box, entry=["python", "test.py"], names=("pdb",)) as tools:
            assert tools.call("pdb", {"command": "p 6 * 7"}).text.endswith("42")
            fill = "for k in range(10_000): open(str(k), 'wb').write(bytes(10**6))"
            told = tools.call("pdb", {"command": f"exec({fill!r})"}).text
    assert "[stopped: over the limit of disk]\n[the session has ended;" in told


def test_empty_files_take_room_too_and_hard_links_none(tmp_path: Path) -> None:
    for n in range(100):
        (tmp_path / str(n)).touch()
    assert used(tmp_path) == 100 * 4096
    (tmp_path / "large").write_bytes(b"x" * 1_000_000)
    size = used(tmp_path)
    assert size >= 100 * 4096 + 1_000_000
    (tmp_path / "twin").hardlink_to(tmp_path / "large")
    (tmp_path / "link").symlink_to(tmp_path / "large")
    assert used(tmp_path) == size + 4096


def test_looking_takes_a_small_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch, looks, now = DiskWatch(tmp_path), [], [100.0]

    def slow(*folders: Path) -> int:
        looks.append(now[0])
        now[0] += 0.05
        return 0

    monkeypatch.setattr(disk, "used", slow)
    monkeypatch.setattr(disk, "time", SimpleNamespace(monotonic=lambda: now[0]))
    while now[0] < 101.6:
        watch.full(1)
        now[0] += 0.01
    assert len(looks) == 2
    assert looks[1] - looks[0] >= 1


def test_no_secret_gets_in(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    names = {line.partition("=")[0] for line in sandbox.run("env").output.splitlines()}
    shell = {"PWD", "SHLVL", "_", "OLDPWD"}
    assert names - shell == {
        *("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "TERM", "COLUMNS", "NO_COLOR", "PAGER", "OMP_NUM_THREADS"),
        *("PYTHONHASHSEED", "PYTHONDONTWRITEBYTECODE", "PYTHONNOUSERSITE", "PYTHONIOENCODING", "LEYLINE_SANDBOX"),
    }
    assert "sk-secret" not in sandbox.run("cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n' | grep -a sk-").output or (
        not FULL.pid or module.isolation() != FULL
    )


def test_home_and_temporary_files_are_private_and_stay(sandbox: Sandbox) -> None:
    made = "python -c 'import tempfile; print(tempfile.mkdtemp())'"
    result = sandbox.run(f"cd ~ && echo kept > note; echo kept > $TMPDIR/note; {made}")
    assert result.exit_code == 0
    assert sandbox.run("cat ~/note $TMPDIR/note").output == "kept\nkept\n"
    assert (sandbox.home / "note").exists()
    assert (sandbox.home / "tmp" / "note").exists()


def test_paths_read_as_the_tools_take_them(sandbox: Sandbox) -> None:
    (sandbox.root / "bad.py").write_text("1 / 0\n")
    output = sandbox.run("python $PWD/bad.py; pwd").output
    assert 'File "bad.py", line 1' in output
    assert output.endswith("\n.\n")
    assert str(sandbox.root) not in output


@pytest.mark.skipif(not FULL.net, reason=f"no network namespaces here: {FULL.reason}")
def test_the_network_is_off_but_for_the_loopback(tmp_path: Path) -> None:
    box = Sandbox(tmp_path, tmp_path / "home")
    code = "import socket; print(socket.if_nameindex()); s = socket.create_server(('127.0.0.1', 0)); " \
        "socket.create_connection(s.getsockname()); print('local')"  # fmt: skip
    assert box.run(["python", "-c", code]).output == "[(1, 'lo')]\nlocal\n"
    wide = Sandbox(tmp_path, tmp_path / "home", network=True)
    names = wide.run(["python", "-c", "import socket; print(sorted(socket.if_nameindex()))"]).output
    assert names == f"{sorted(socket.if_nameindex())}\n"


@pytest.mark.skipif(not FULL.mounts, reason=f"no mount namespaces here: {FULL.reason}")
def test_the_rest_of_the_disk_is_read_only(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    root = tmp_path / "work"
    for folder in (outside, root):
        folder.mkdir()
    (outside / "file").write_text("safe")
    box = Sandbox(root, tmp_path / "home")
    result = box.run(
        f"cat {outside}/file; echo bad > {outside}/file; touch /usr/local/leyline-was-here; "
        "mount -o remount,rw,bind /; mount -o remount,rw,bind /usr; umount /tmp; echo ok > in"
    )
    assert "ok" in (root / "in").read_text()
    assert "safe" not in result.output
    assert "Read-only file system" in result.output
    assert (outside / "file").read_text() == "safe"
    assert not Path("/usr/local/leyline-was-here").exists()


@pytest.mark.skipif(not FULL.mounts, reason=f"no mount namespaces here: {FULL.reason}")
def test_only_the_workspace_the_interpreter_and_the_system_are_visible(tmp_path: Path) -> None:
    secret = tmp_path / ".ssh" / "id"
    secret.parent.mkdir()
    secret.write_text("secret")
    root = tmp_path / "work"
    root.mkdir()
    (root / "link").symlink_to(secret)
    box = Sandbox(root, tmp_path / "home")
    said = box.run(f"cat {secret} link /proc/1/root{secret} ../.ssh/id; ls -a ../; cat /proc/*/environ").output
    assert "secret" not in said
    listed = box.run("ls -A / /dev /run /var; ls -A ~root; cat /etc/shadow; head -c 3 /etc/passwd").output
    known = {path.strip("/").split("/")[0] for path in (*SYSTEM, *visible(), str(tmp_path))}
    shown = listed.partition("\n\n")[0].split()[1:]
    assert set(shown) <= known | {"dev", "proc", "run", "tmp", "var", "etc"}
    devices = {
        "fd",
        "full",
        "null",
        "ptmx",
        "pts",
        "random",
        "shm",
        "tty",
        "urandom",
        "zero",
        "stderr",
        "stdin",
        "stdout",
    }
    assert set(listed.partition("/dev:\n")[2].partition("\n\n")[0].split()) <= devices
    assert "root:" not in listed
    home = Path.home()
    if not any(str(home).startswith(top) for top in SYSTEM):
        way = {str(Path(path).relative_to(home)).split("/")[0] for path in visible() if Path(path).is_relative_to(home)}
        way |= {str(tmp_path.relative_to(home)).split("/")[0]} if tmp_path.is_relative_to(home) else set()
        assert set(box.run(f"ls -A {home} 2>/dev/null").output.split()) <= way


@pytest.mark.skipif(not FULL.mounts, reason=f"no mount namespaces here: {FULL.reason}")
def test_what_the_system_has_for_few_is_covered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, mode in (("open", 0o644), ("closed", 0o600), ("folder", 0o700), ("other", 0o755)):
        (tmp_path / name).mkdir() if mode & 0o100 else (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    (tmp_path / "folder" / "below").touch()
    (tmp_path / "other" / "closed").touch(0o600)
    found = _private(str(tmp_path))
    assert {str(Path(path).relative_to(tmp_path)) for path in found} == {"closed", "folder", "other/closed"}


def test_an_installation_in_a_home_shows_its_parts_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As with `--prefix=$HOME`: the prefix is the home itself."""
    monkeypatch.setenv("HOME", sys.prefix)
    visible.cache_clear()
    try:
        shown = visible()
    finally:
        visible.cache_clear()
    assert sys.prefix not in shown
    assert any(path.startswith(f"{sys.prefix}/lib/") for path in shown)


@pytest.mark.skipif(not FULL.mounts, reason=f"no mount namespaces here: {FULL.reason}")
@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no /dev/shm here")
def test_shared_memory_holds_no_more_than_the_memory_limit(tmp_path: Path) -> None:
    box = Sandbox(tmp_path, tmp_path / "home", limits=CommandLimits(seconds=LONG, memory=64 << 20))
    result = box.run("df -B1 --output=size /dev/shm | tail -1; head -c 80000000 /dev/zero > /dev/shm/x; ls /dev/shm")
    lines = result.output.splitlines()
    assert int(lines[0]) == 64 << 20
    assert "No space left on device" in lines[1]
    assert lines[2] == "x"


@pytest.mark.skipif(not FULL.pid, reason=f"no process namespaces here: {FULL.reason}")
def test_other_processes_are_out_of_reach(tmp_path: Path) -> None:
    box = Sandbox(tmp_path, tmp_path / "home")
    result = box.run(f"kill -0 {os.getpid()} 2>&1; grep -h CapEff /proc/self/status; ls /proc | grep -c '^[0-9]'")
    lines = result.output.splitlines()
    assert "No such process" in lines[0]
    assert lines[1].split() == ["CapEff:", "0000000000000000"]
    assert int(lines[2]) < 10


def test_run_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "here.txt").write_text("x")
    assert run("ls", tmp_path).output == "here.txt\n"
    assert run("ls", tmp_path, env={"LS_COLORS": "no"}, limits=CommandLimits(seconds=5)).exit_code == 0


def test_capabilities_name_what_is_in_force() -> None:
    found = capabilities()
    assert found["no network"] is FULL.net
    assert found["own process tree"] is FULL.pid
    assert found["hidden home"] is FULL.mounts
    assert found["process limit"] is (FULL.processes is not None)
    assert (FULL.reason is None) == all(found[name] for name in ("no network", "read-only file system"))


def test_reports_say_what_stopped_a_command() -> None:
    limits = CommandLimits(seconds=2, memory=1 << 30, processes=7)
    said = {why: Result(137, "x\n", 1.0, killed=why, limits=limits).report() for why in ("time", "memory", "processes")}
    assert said == {
        "time": "x\n[stopped after 2 s]",
        "memory": "x\n[stopped: over 1024 MiB of memory]",
        "processes": "x\n[stopped: over 7 processes]",
    }


def test_capture_is_capped_text() -> None:
    text = "".join(f"{i}é\n" for i in range(500))
    data = text.encode()
    for limit in (10, 100, 5000):
        capture = Capture(limit)
        for at in range(0, len(data), 7):
            capture.feed(data[at : at + 7])
        capture.feed(b"", final=True)
        assert capture.text() == capped(text, limit)
    assert capped("short", 5) == "short"
    assert capped("0123456789", 4) == "01\n[... 6 characters removed ...]\n89"
