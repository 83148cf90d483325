"""Run directories to report on, and a headless Chromium spoken to over its debugging pipe."""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from leyline.evals.trials.journal import Journal
from leyline.evals.trials.record import TrialOutcome, TrialRecord, TurnRecord

TRUNCATE = "truncate_older_than(n=2, max_chars=200)"
ARMS = {
    "keep_all": ("keep_all", "plain", 0.9),
    "truncate": (TRUNCATE, "plain", 0.7),
    "amortize": (TRUNCATE, "amortize", 0.75),
    "unrotated": (TRUNCATE, "amortize", 0.2),
}


def make_trial(arm: str, task: int, seed: int, rng: random.Random, /, **fields: Any) -> TrialRecord:
    """A trial whose tokens add up, with edits from the third turn on."""
    policy, mode, skill = ARMS.get(arm, ("keep_all", "plain", 0.5))
    turns = []
    held, prompt, full = 0, rng.randint(100, 300), 0
    for number in range(rng.randint(2, 7)):
        edited = policy != "keep_all" and number >= 2 and rng.random() < 0.8
        grown = rng.randint(20, 120)
        prompt, full = prompt + grown - 60 * edited, max(full, prompt) + grown
        prefix = min(held, 80 if edited else held, prompt)
        spliced = min(max(0, held - prefix - 60), prompt - prefix) if edited and mode == "amortize" else 0
        turns.append(
            TurnRecord(
                prompt=prompt,
                prefix=prefix,
                spliced=spliced,
                prefilled=prompt - prefix - spliced,
                completion=rng.randint(5, 30),
                full=full if rng.random() < 0.9 else None,
                edits=int(edited),
                directives=int(edited and mode == "amortize"),
                fallback="donor_missing" if edited and rng.random() < 0.2 else None,
                prefill_s=round(prompt / 5000, 4) if task % 4 else None,
                decode_s=0.05,
                splice_s=round(spliced / 90_000, 5) if spliced else None,
                ttft=round(rng.uniform(0.01, 0.3), 4) if rng.random() < 0.9 else None,
            )
        )
        held = prompt + turns[-1].completion
    failed = rng.choice([TrialOutcome.FAILED, TrialOutcome.LIMIT, TrialOutcome.ERROR])
    values = {
        "suite": "micro",
        "task": f"task-{task:03}",
        "arm": arm,
        "seed": seed,
        "digest": f"d-{arm}",
        "outcome": TrialOutcome.SOLVED if rng.random() < skill else failed,
        "turns": tuple(turns),
        "wall_s": round(rng.uniform(0.5, 3), 3),
        "started": 1_790_000_000 + round(rng.uniform(0, 20), 3),
        "energy_j": round(rng.uniform(5, 50), 2) if rng.random() < 0.5 else None,
        "approximate": mode == "amortize",
        "policy": policy,
        "mode": mode,
        "backend": "local",
        "model": "tiny-mla",
        "control": arm == "unrotated",
        "machine": rng.choice(["", "2 cores of Laptop", "16 cores of Server, NVIDIA H100"]),
        "versions": {"python": "3.12.3", "torch": rng.choice(["2.12", "2.13"])},
    }
    return TrialRecord.model_validate(values | fields)


@pytest.fixture(scope="session")
def trial() -> Callable[..., TrialRecord]:
    return make_trial


@pytest.fixture(scope="session")
def write_run() -> Callable[..., Path]:
    """write_run(path, records, tail=b"") -> path: a run directory; `tail` is appended to its records as it is."""

    def write(path: Path, records: list[TrialRecord], tail: bytes = b"") -> Path:
        with Journal(path) as journal:
            for record in records:
                journal.append(record)
        with (path / "records.jsonl").open("ab") as file:
            file.write(tail)
        return path

    return write


NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)


def find_browser() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One tab. `problems` collects script errors, console errors, and requests that leave the page."""

    def __init__(self, executable: str, profile: Path, timeout: float = 60) -> None:
        self._timeout = timeout
        self._number = 0
        self._buffer = b""
        self.problems: list[str] = []
        read, their_write = os.pipe()
        their_read, write = os.pipe()
        self._read, self._write = read, write

        def attach() -> None:
            # The browser reads commands from descriptor 3 and writes replies to 4.
            low, high = os.dup(their_read), os.dup(their_write)
            os.dup2(low, 3)
            os.dup2(high, 4)

        self._process = subprocess.Popen(
            [executable, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=attach,
            close_fds=False,
        )
        os.close(their_read)
        os.close(their_write)
        os.set_blocking(read, False)
        target = self._call("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = self._call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._read)
        os.close(self._write)

    def screen(self, width: int, height: int, *, dark: bool = False, mobile: bool = False) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.call("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", {"features": [scheme]})

    def open(self, page: Path, fragment: str = "") -> None:
        self.call("Page.navigate", {"url": page.resolve().as_uri() + fragment})
        deadline = time.monotonic() + self._timeout
        while self.evaluate("document.readyState + location.protocol") != "completefile:":
            assert time.monotonic() < deadline, "the page did not load"
            time.sleep(0.05)

    def evaluate(self, script: str) -> Any:
        """The JSON value of an expression; a script error is raised."""
        reply = self.call("Runtime.evaluate", {"expression": script, "returnByValue": True, "awaitPromise": True})
        assert "exceptionDetails" not in reply, reply["exceptionDetails"]
        return reply["result"].get("value")

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        reply = self.call("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": whole})
        path.write_bytes(base64.b64decode(reply["data"]))

    def call(self, method: str, parameters: dict[str, Any] | None = None) -> Any:
        return self._call(method, parameters or {}, self._session)

    def _call(self, method: str, parameters: dict[str, Any], session: str | None = None) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        deadline = time.monotonic() + self._timeout
        while True:
            reply = self._receive(deadline, method)
            if reply.get("id") == self._number:
                assert "error" not in reply, (method, reply["error"])
                return reply["result"]
            self._event(reply)

    def _receive(self, deadline: float, method: str) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            assert time.monotonic() < deadline, f"the browser did not answer {method}"
            assert self._process.poll() is None, "the browser ended"
            try:
                self._buffer += os.read(self._read, 1 << 20)
            except BlockingIOError:
                time.sleep(0.01)
        line, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(line))

    def _event(self, event: dict[str, Any]) -> None:
        method, data = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.problems.append(data["exceptionDetails"].get("exception", {}).get("description", "script error"))
        elif method == "Log.entryAdded" and data["entry"]["level"] == "error":
            self.problems.append(data["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            url = data["request"]["url"]
            if not url.startswith(("file:", "about:", "data:")):
                self.problems.append(f"request to {url}")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    executable = find_browser()
    if executable is None:
        pytest.skip("no Chromium is installed (apt-get install chromium)")
    with Browser(executable, tmp_path_factory.mktemp("profile")) as tab:
        yield tab
