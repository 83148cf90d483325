"""Confine this process and become a command. Run as a script, by path, with the standard library only.

    python -I -S _confine.py SPEC COMMAND...

SPEC is JSON: `limits` (name of a resource limit -> value), `root` and `home` (folders that stay writable), `visible`
(folders that stay visible), `user`, `net`, `pid`, `mounts` (which Linux namespaces to enter) and `tmp` (put `home`/tmp
in the place of /tmp). A step that fails ends the process with status 125 and the reason on standard error, before the
command starts. `report` is a file descriptor on which "confined" is written once all steps are done, and then why the
command could not be started, if so; the command does not get it.
"""

# ruff: noqa: PTH112, PTH123

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
FOLDER = getattr(os, "O_PATH", 0) | os.O_DIRECTORY | os.O_CLOEXEC
FAILED = 125


def main() -> None:
    spec = json.loads(sys.argv[1])
    command = sys.argv[2:]
    if "report" in spec:
        os.set_inheritable(spec["report"], False)
    try:
        if sys.platform == "linux":
            call(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
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
    if spec.get("mounts"):
        mounts(spec)


def mounts(spec: dict) -> None:  # type: ignore[type-arg]
    """Make every file system read-only but the workspace, its home, /tmp and /dev/shm, which are private."""
    writable = [spec["root"], spec["home"]]
    handles = {path: os.open(path, FOLDER) for path in (*spec["visible"], *writable)}
    private = []
    if spec["tmp"]:
        private.append(os.path.realpath("/tmp"))
        bind(below(handles[spec["home"]], "tmp"), os.open("/tmp", FOLDER))
    if os.path.isdir("/dev/shm"):
        # What lies there is memory that no process is charged for.
        private.append(os.path.realpath("/dev/shm"))
        memory = spec["limits"].get("RLIMIT_AS")
        mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, f"size={memory}" if memory else None)
    for path, handle in handles.items():
        bind(handle, reach(path, private))
    set_readonly(reach("/", private), True, AT_RECURSIVE)
    for path in (*writable, *private):
        set_readonly(reach(path, private), False, 0)
    os.chdir(spec["root"])


def reach(path: str, private: list) -> int:  # type: ignore[type-arg]
    """A handle of a folder. Below the `private` ones it is made: what was there is covered."""
    top = next((top for top in private if path.startswith(f"{top}/")), None)
    handle = os.open(top or path, FOLDER)
    for name in path[len(top) + 1 :].split("/") if top else ():
        handle = below(handle, name)
    return handle


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
    if libc.mount(b"proc", b"/proc", b"proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, None) and spec.get("mounts"):
        raise OSError(ctypes.get_errno(), "cannot mount /proc")
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
    """Show one folder in the place of another."""
    mount(f"/proc/self/fd/{source}", f"/proc/self/fd/{target}", None, MS_BIND)


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
