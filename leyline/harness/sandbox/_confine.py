"""Confine this process and become a command. Run as a script, by path, with the standard library only.

    python -I -S _confine.py SPEC COMMAND...

SPEC is JSON: `limits` (name of a resource limit -> value), `user`, `net`, `pid`, `mounts` (which Linux namespaces to
enter), `group` (a file of the control group that bounds the processes, to be entered) and, for `mounts`, a file system
of its own: `root` and `home` (folders that stay writable), `system` and `visible` (folders to be read), `files` (files
to be read), `hidden` (what is covered of these). A step that fails ends the process with status 125 and the reason on
standard error, before the command starts. `report` is a file descriptor on which "confined" is written once all steps
are done, and then why the command could not be started, if so; the command does not get it.
"""

# ruff: noqa: PTH112, PTH114, PTH115, PTH123

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import signal
import socket
import stat
import struct
import sys

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = (
    0x20000,
    0x8000000,
    0x10000000,
    0x20000000,
    1 << 30,
)
MS_BIND, MS_REC, MS_PRIVATE, MS_NOSUID, MS_NODEV, MS_NOEXEC = 4096, 16384, 1 << 18, 2, 4, 8
MOUNT_ATTR_RDONLY, AT_EMPTY_PATH, AT_RECURSIVE, SYS_MOUNT_SETATTR = 1, 0x1000, 0x8000, 442
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
SIOCSIFFLAGS, IFF_UP, IFF_RUNNING = 0x8914, 1, 64
ANY = getattr(os, "O_PATH", 0) | os.O_CLOEXEC
FOLDER = ANY | os.O_DIRECTORY
DEVICES = tuple(f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty"))
DEVPTS = b"newinstance,ptmxmode=0666,mode=620"
MNT_DETACH = 2
FAILED = 125


def main() -> None:
    spec = json.loads(sys.argv[1])
    command = sys.argv[2:]
    if "report" in spec:
        os.set_inheritable(spec["report"], False)
    try:
        if sys.platform == "linux":
            call(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
            if spec.get("group"):
                write(spec["group"], str(os.getpid()))
            enter(spec)
        if spec.get("pid"):
            become_init(spec)
        for name, value in spec["limits"].items():
            limit(getattr(resource, name, None), value)
        if spec.get("pid") or spec.get("net") or spec.get("mounts"):
            drop_privileges()
        tell(spec, "confined")
        os.execvp(command[0], command)
    except OSError as error:
        name = command[0] if isinstance(error, FileNotFoundError) else "confine"
        reason = f"{name}: {error.strerror or error}"
        tell(spec, reason)
        sys.stderr.write(f"{reason}\n")
        sys.stderr.flush()
        os._exit(127 if isinstance(error, FileNotFoundError) else FAILED)


def tell(spec: dict, text: str) -> None:  # type: ignore[type-arg]
    if "report" in spec:
        os.write(spec["report"], os.fsencode(text))


def enter(spec: dict) -> None:  # type: ignore[type-arg]
    """Enter the namespaces, and set up what only their owner may set up."""
    flags = 0
    for key, flag in (("user", CLONE_NEWUSER), ("net", CLONE_NEWNET), ("pid", CLONE_NEWPID | CLONE_NEWIPC)):
        flags |= flag if spec.get(key) else 0
    flags |= CLONE_NEWNS if spec.get("mounts") or spec.get("pid") else 0
    if not flags:
        return
    uid, gid = os.getuid(), os.getgid()
    call(libc.unshare(flags))
    if spec.get("user"):
        write("/proc/self/setgroups", "deny")
        write("/proc/self/uid_map", f"{uid} {uid} 1")
        write("/proc/self/gid_map", f"{gid} {gid} 1")
    if spec.get("net"):
        # A fresh network has its loopback down; tests that serve to themselves need it.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
            fcntl.ioctl(handle, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP | IFF_RUNNING))
    if flags & CLONE_NEWNS:
        mount(None, "/", None, MS_REC | MS_PRIVATE)


def mounts(spec: dict) -> None:  # type: ignore[type-arg]
    """Become a file system that holds what a command needs and nothing else; only the workspace and its home are kept.

    It is built over /dev, where none of it lies. Everything is read-only but these two and what is private: in memory,
    or in the home folder for /tmp.
    """
    shown = [*spec["system"], *spec["visible"], spec["root"], spec["home"]]
    handles = {path: os.open(path, FOLDER) for path in shown if not os.path.islink(path)}
    handles |= {path: os.open(path, ANY) for path in (*spec["files"], *DEVICES)}
    temporary = below(handles[spec["home"]], "tmp")
    base = "/dev"
    mount("tmpfs", base, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    top = os.open(base, FOLDER)
    writable = []

    def show(path: str, handle: int) -> None:
        folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        bind(handle, reach(top, path, folder))
        if handle != temporary:  # at once: nothing is made in it on the way
            set_readonly(reach(top, path, folder), True, AT_RECURSIVE)

    for path in spec["system"]:
        if os.path.islink(path):
            os.symlink(os.readlink(path), path[1:], dir_fd=top)
        else:
            show(path, handles.pop(path))
    for path in spec["hidden"]:
        kept = handles.get(path)
        folder = os.path.isdir(path) if kept is None else stat.S_ISDIR(os.fstat(kept).st_mode)
        show(path, reach(top, "/run/hidden" if folder else "/run/hidden.file", folder))
    for path in ("/tmp", "/var/tmp"):
        show(path, temporary)
        writable.append(path)
    os.symlink("../run", "var/run", dir_fd=top)
    memory = spec["limits"].get("RLIMIT_AS")
    reach(top, "/dev/shm", True)  # what lies there is memory that no process is charged for
    mount(
        "tmpfs", f"{base}/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, f"mode=1777,size={memory}" if memory else "mode=1777"
    )
    writable.append("/dev/shm")
    reach(top, "/dev/pts", True)
    if not libc.mount(b"devpts", os.fsencode(f"{base}/dev/pts"), b"devpts", MS_NOSUID | MS_NOEXEC, DEVPTS):
        os.symlink("pts/ptmx", "dev/ptmx", dir_fd=top)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink(f"/proc/self/fd/{number}", f"dev/{name}", dir_fd=top)
    os.symlink("/proc/self/fd", "dev/fd", dir_fd=top)
    for path, handle in handles.items():
        show(path, handle)
    writable += [spec["root"], spec["home"]]
    reach(top, "/proc", True)
    mount("proc", f"{base}/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    set_readonly(os.open(base, FOLDER), True, AT_RECURSIVE)
    for path in writable:
        set_readonly(os.open(f"{base}{path}", FOLDER), False, 0)
    os.chdir(base)
    call(libc.pivot_root(b".", b"."))
    call(libc.umount2(b".", MNT_DETACH))
    os.chdir("/")
    os.chdir(spec["root"])


def reach(top: int, path: str, folder: bool) -> int:
    """A handle of `path` below `top`, an empty folder or file where there is none."""
    *above, name = path.strip("/").split("/")
    handle = top
    for each in above:
        handle = below(handle, each)
    if folder:
        return below(handle, name)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444, dir_fd=handle))
    return os.open(name, ANY | os.O_NOFOLLOW, dir_fd=handle)


def below(folder: int, name: str) -> int:
    """A handle of the folder `name` in `folder`, made if need be. A link that a command left there is not followed."""
    try:
        os.mkdir(name, dir_fd=folder)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=folder)
            os.mkdir(name, dir_fd=folder)
    return os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=folder)


def become_init(spec: dict) -> None:  # type: ignore[type-arg]
    """Return in a process of a new pid namespace. When it ends, the kernel ends all that it left behind."""
    init = os.fork()
    if init:
        _, status = os.waitpid(init, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    call(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    if spec.get("mounts"):
        mounts(spec)
    else:
        libc.mount(b"proc", b"/proc", b"proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, None)
    # A second fork: the first process of a namespace ignores signals, which a command must not.
    child = os.fork()
    if not child:
        return
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def drop_privileges() -> None:
    """No capability survives the exec, and no set-uid program gives one back."""
    capability = 0
    while libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
        capability += 1
    call(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def limit(which: int | None, value: int) -> None:
    """Lower a resource limit, as far as this system knows and allows it."""
    if which is None:
        return
    _, hard = resource.getrlimit(which)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    try:
        resource.setrlimit(which, (value, value))
    except (ValueError, OSError):  # macOS refuses some
        return


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    *names, options = (None if text is None else os.fsencode(text) for text in (source, target, kind, data))
    call(libc.mount(*names, flags, options))


def bind(source: int, target: int) -> None:
    """Show a folder or a file in the place of another."""
    mount(f"/proc/self/fd/{source}", f"/proc/self/fd/{target}", None, MS_BIND | MS_REC)


def set_readonly(folder: int, readonly: bool, flags: int) -> None:
    """Switch the mount whose top `folder` is; AT_RECURSIVE: and those below it."""
    attributes = (MOUNT_ATTR_RDONLY, 0) if readonly else (0, MOUNT_ATTR_RDONLY)
    packed = struct.pack("QQQQ", *attributes, 0, 0)
    call(libc.syscall(SYS_MOUNT_SETATTR, folder, b"", flags | AT_EMPTY_PATH, packed, len(packed)))


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def call(status: int) -> None:
    if status < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


if __name__ == "__main__":
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "linux":
        libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_void_p]
        libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
        libc.syscall.argtypes = [
            ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint, ctypes.c_char_p, ctypes.c_size_t
        ]  # fmt: skip
    main()
