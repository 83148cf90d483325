"""Run a test file for a verdict, and leave a report that only a run which came to its end leaves.

    python judge.py REPORT test.py [options of pytest]

Run as a script, by path, in the folder of the tests, with the standard library and pytest only (without pytest: the
plain runner). REPORT is JSON: `status`, what the runner returned, how many tests were `collected`, `passed`, `skipped`
and `failed`, and a `sign` made with the key in the file beside it (REPORT with the suffix .key), which is removed
before anything of the folder is loaded. It is written once all tests have ended, and then the process ends at once:
code that ends it sooner leaves no report, one that it writes itself has no sign, and what it prints is no part of it.
A skip that neither the test file nor a conftest.py asks for is a failure, and so is an expected failure that the test
does not announce.

The first line printed is the name of REPORT. It says that the runner is there, and that no file of the folder has been
touched: a run without it is no fault of the code under test.
"""

from __future__ import annotations

import contextlib
import hmac
import importlib
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

PASSED, SKIPPED, FAILED = "passed", "skipped", "failed"


class Recorder:
    """A pytest plugin: how each test ended, the worst of its phases counting."""

    def __init__(self, path: str) -> None:
        self._path = Path(path).resolve()
        self._excused: set[str] = set()
        self.collected = 0
        self.outcomes: dict[str, str] = {}

    def pytest_collection_finish(self, session: Any) -> None:
        self.collected = len(session.items)
        self._excused = {item.nodeid for item in session.items if _fails_by_announcement(item)}

    def pytest_runtest_logreport(self, report: Any) -> None:
        known = self.outcomes.get(report.nodeid)
        if report.failed or (report.skipped and not self._may_skip(report)):
            self.outcomes[report.nodeid] = FAILED
        elif report.skipped:
            self.outcomes[report.nodeid] = known or SKIPPED
        elif report.when == "call":
            self.outcomes[report.nodeid] = known or PASSED

    def _may_skip(self, report: Any) -> bool:
        if hasattr(report, "wasxfail"):
            return report.nodeid in self._excused
        where = Path(report.longrepr[0]).resolve()
        return where == self._path or where.name == "conftest.py"


def _fails_by_announcement(item: Any) -> bool:
    marked = item.get_closest_marker("xfail") is not None
    return marked or getattr(getattr(item, "obj", None), "__unittest_expecting_failure__", False)


def with_pytest(pytest: Any, path: str, settings: Sequence[str]) -> dict[str, int]:
    recorder = Recorder(path)
    options = ["-q", "-s", "-p", "no:cacheprovider", *settings, path]
    sys.argv = ["pytest", *options]
    status = int(pytest.main(options, plugins=[recorder]))
    ended = Counter(recorder.outcomes.values())
    return {
        "status": status,
        "collected": recorder.collected,
        **{name: ended[name] for name in (PASSED, SKIPPED, FAILED)},
    }


def with_plain_runner(runner: Any, path: str, settings: Sequence[str]) -> dict[str, int]:
    """The plain runner's status stands for all of its tests."""
    status = runner.main(path)
    return {"status": status, "collected": 1, PASSED: int(status == 0), SKIPPED: 0, FAILED: int(status != 0)}


def signed(found: Mapping[str, int], key: str) -> str:
    """The sign of a report, for who knows the key."""
    text = json.dumps({name: found[name] for name in sorted(found)})
    return hmac.new(key.encode("ascii"), text.encode("ascii"), "sha256").hexdigest()


def main(report: str, path: str, *settings: str) -> int:
    here = sys.path.pop(0)
    judged: Callable[[object, str, Sequence[str]], dict[str, int]] = with_pytest
    try:
        runner = importlib.import_module("pytest")
    except ImportError:
        sys.path.insert(0, here)
        runner, judged = importlib.import_module("plain_runner"), with_plain_runner
        sys.path.remove(here)
    ticket = Path(report).with_suffix(".key")
    key = ticket.read_text("ascii") if ticket.exists() else ""
    ticket.unlink(missing_ok=True)
    print(Path(report).name, flush=True)
    if judged is with_pytest:
        sys.path.insert(0, str(Path.cwd()))  # as `python -m pytest` has it
    found = judged(runner, path, settings)
    with Path(report).open("x", encoding="utf-8") as file:
        json.dump({**found, "sign": signed(found, key)}, file)
    return found["status"]


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    with contextlib.suppress(Exception):  # the streams may be what the code under test has made of them
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
