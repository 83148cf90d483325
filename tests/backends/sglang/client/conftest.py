"""One real server for these tests, started as a user starts it: `leyline serve tiny-mla` on the CPU."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

START_TIMEOUT = 240.0
OPTIONS = [
    "--enable-metrics",
    "--tool-call-parser",
    "llama3",
    "--chunked-prefill-size",
    "512",
    "--log-level",
    "warning",
]
"""Small chunks, so that one replacement is computed in a chunk of its own as on a busy server."""


@dataclass(frozen=True)
class Served:
    """A running server. `folder` holds its log."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests that use the server run in one process, so that there is one server."""
    for item in items:
        if "served" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.sglang)
            item.add_marker(pytest.mark.xdist_group("sglang-client"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(log: Path, *args: str) -> subprocess.Popen[bytes]:
    """`leyline serve` with `args`, in a process group of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-c", "from leyline.cli import main; main()", "serve", *args],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def stop(process: subprocess.Popen[bytes]) -> bool:
    """End the server with the signal that a terminal or a service manager sends; whether that was enough."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(60)
        return True
    except subprocess.TimeoutExpired:
        return False
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            if httpx.get(url + "/health", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.3)
    shown = "\n".join(log.read_text(errors="replace").splitlines()[-40:])
    raise RuntimeError(f"the server did not start (exit code {process.poll()}):\n{shown}")


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The shared server."""
    for name in ("sglang", "leyline_torch_cpu"):
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed: run `make sglang-cpu`")
    port, log = free_port(), tmp_path_factory.mktemp("server") / "log"
    pool = ("--max-total-tokens", "32768")
    process = start(log, "tiny-mla", "--port", str(port), "--host", "127.0.0.1", *pool, *OPTIONS)
    try:
        wait_until_ready(f"http://127.0.0.1:{port}", process, log)
        yield Served(f"http://127.0.0.1:{port}", process, log)
    finally:
        ended = stop(process)
    assert ended, "the server did not end on SIGTERM"
