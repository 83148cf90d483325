"""Run a test file without pytest: its unittest cases and its plain `test_` functions. Standard library only.

    python plain_runner.py test.py

Prints a report in pytest's shape; exit code 0 when at least one test ran and all passed. Fixtures are not supported:
a function that takes arguments is an error of its own.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
import unittest
from collections.abc import Callable, Iterator
from types import ModuleType

BAR = "=" * 20


def cases(module: ModuleType) -> Iterator[tuple[str, Callable[[], unittest.TestResult | None]]]:
    """Name and call of every test of `module`, in the order they stand there."""
    for name, value in list(vars(module).items()):
        if isinstance(value, type) and issubclass(value, unittest.TestCase) and value.__module__ == module.__name__:
            for case in unittest.defaultTestLoader.loadTestsFromTestCase(value):
                assert isinstance(case, unittest.TestCase)
                yield f"{name}::{case.id().rpartition('.')[2]}", case.run
        elif name.startswith("test") and callable(value) and not isinstance(value, type):
            yield name, value


def outcome(call: Callable[[], unittest.TestResult | None]) -> str | None:
    """The traceback of a test, or None when it passed or was skipped."""
    try:
        result = call()
    except unittest.SkipTest:
        return None
    except Exception:
        return traceback.format_exc()
    failures = [*result.failures, *result.errors] if isinstance(result, unittest.TestResult) else []
    return "\n".join(text for _, text in failures) or None


def main(path: str) -> int:
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - no import that the code under test could replace
    print(f"{BAR} test session starts {BAR}")
    try:
        module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    except Exception:
        print(f"collected 0 items / 1 error\n\n{BAR} ERRORS {BAR}\n{traceback.format_exc()}{BAR} 1 error {BAR}")
        return 2
    found = [(name, outcome(call)) for name, call in cases(module)]
    failed = [(name, text) for name, text in found if text is not None]
    print(f"collected {len(found)} items\n\n{path} {''.join('.' if text is None else 'F' for _, text in found)}\n")
    if failed:
        print(f"{BAR} FAILURES {BAR}")
        for name, text in failed:
            print(f"{'_' * 12} {name} {'_' * 12}\n{text}")
        print(f"{BAR} short test summary info {BAR}")
        for name, text in failed:
            print(f"FAILED {path}::{name} - {text.strip().splitlines()[-1]}")
    passed = len(found) - len(failed)
    counts = [f"{n} {word}" for n, word in ((len(failed), "failed"), (passed, "passed")) if n]
    print(f"{BAR} {', '.join(counts) or 'no tests ran'} {BAR}")
    return 0 if found and not failed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
