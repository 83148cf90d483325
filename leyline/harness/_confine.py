"""Confine this process and become a command. Run as a script, by path, with the standard library only.

    python -I -S _confine.py SPEC COMMAND...

SPEC is JSON: `limits` (name of a resource limit -> value), `root` and `home` (folders that stay writable), `user`,
`net`, `pid`, `mounts` (which Linux namespaces to enter) and `tmp` (put `home`/tmp in the place of /tmp). A step that
fails ends the process with status 125 and the reason on standard error, before the command starts.
"""

# ruff: noqa: PTH103, PTH112, PTH123

import ctypes
import fcntl
import json
import os
import resource
import signal
import socket
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
MOUNT_ATTR_RDONLY, AT_FDCWD, AT_RECURSIVE, SYS_MOUNT_SETATTR = 1, -100, 0x8000, 442
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
SIOCSIFFLAGS, IFF_UP, IFF_RUNNING = 0x8914, 1, 64
FAILED = 125


def main() -> None:
    spec = json.loads(sys.argv[1])
    command = sys.argv[2:]
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
        os.execvp(command[0], command)
    except OSError as error:
        name = command[0] if isinstance(error, FileNotFoundError) else "confine"
        sys.stderr.write(f"{name}: {error.strerror or error}\n")
        sys.stderr.flush()
        os._exit(127 if isinstance(error, FileNotFoundError) else FAILED)


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
    handles = [os.open(path, os.O_PATH | os.O_DIRECTORY) for path in writable]
    if spec["tmp"]:
        mount(spec["home"] + "/tmp", "/tmp", None, MS_BIND)
    for path, handle in zip(writable, handles, strict=True):
        os.makedirs(path, exist_ok=True)  # below /tmp it has just been covered
        mount(f"/proc/self/fd/{handle}", path, None, MS_BIND)
        os.close(handle)
    writable += ["/tmp"] if spec["tmp"] else []
    if os.path.isdir("/dev/shm"):
        # What lies there is memory that no process is charged for.
        memory = spec["limits"].get("RLIMIT_AS")
        mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, f"size={memory}" if memory else None)
        writable.append("/dev/shm")
    set_readonly("/", True, AT_RECURSIVE)
    for path in writable:
        set_readonly(path, False, 0)
    os.chdir(spec["root"])


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


def set_readonly(path: str, readonly: bool, flags: int) -> None:
    attributes = (MOUNT_ATTR_RDONLY, 0) if readonly else (0, MOUNT_ATTR_RDONLY)
    packed = struct.pack("QQQQ", *attributes, 0, 0)
    call(libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, os.fsencode(path), flags, packed, len(packed)))


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
