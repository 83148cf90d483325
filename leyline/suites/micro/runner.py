"""Run a task's tests and print a pytest-like report. Standard library only, and `outcome` beside it.

A sandbox runs the text of the two as a subprocess in a task's folder; training calls `evaluate` in process. Both give
the same text. Code under test runs with few builtins, imports only its own modules, and is stopped after a CPU-time
limit.
"""

# ruff: noqa: SIM905

from __future__ import annotations

import argparse
import base64
import builtins
import functools
import gc
import signal
import sys
import warnings
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import CodeType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from leyline.suites.micro.outcome import LOG_COUNTS, CaseResult, TestRun, TimeUp, render

if TYPE_CHECKING:  # in a sandbox there is no leyline, only the text of this module and of `outcome`
    from leyline.directives import JsonObject

TIME_LIMIT = 0.25
_ALLOWED = (
    "abs all any bool chr dict divmod enumerate filter float frozenset int isinstance iter len list map max min "
    "next ord pow range repr reversed round set sorted str sum tuple zip type hasattr getattr setattr print True "
    "False None Exception ValueError TypeError KeyError IndexError AttributeError ZeroDivisionError StopIteration "
    "AssertionError NameError RuntimeError object property staticmethod classmethod super __build_class__"
).split()


@functools.lru_cache(maxsize=4096)
def compiled(text: str, path: str) -> CodeType:
    """The code of a module; warnings about odd code stay silent."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        return compile(text, path, "exec")


def limited(call: Callable[[], object], seconds: float = TIME_LIMIT) -> Any:
    """Call with a limit on CPU time; raises `TimeUp`. Main thread only. Garbage collection would swallow the stop."""

    def stop(*_: object) -> None:
        raise TimeUp

    collects = gc.isenabled()
    gc.disable()
    old = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        return call()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, old)
        if collects:
            gc.enable()


def load(files: Mapping[str, str]) -> tuple[dict[str, JsonObject], JsonObject]:
    """Execute every module outside `tests/`; returns namespaces by module name, and the builtins they saw."""
    modules: dict[str, dict[str, object]] = {}
    sources = {p[:-3].replace("/", "."): p for p in sorted(files) if not p.startswith("tests/")}

    def execute(name: str) -> None:
        modules[name] = {"__builtins__": allowed, "__name__": name}
        exec(compiled(files[sources[name]], sources[name]), modules[name])

    def import_(name: str, *_: object, **__: object) -> Any:
        if name not in sources:
            raise ImportError(f"No module named {name!r}")
        if name not in modules:
            execute(name)
        return SimpleNamespace(**modules[name])

    allowed: dict[str, object] = {k: getattr(builtins, k) for k in _ALLOWED}
    allowed["__import__"] = import_
    for name in sources:
        if name not in modules:
            execute(name)
    return modules, allowed


def run(files: Mapping[str, str], test_path: str, seconds: float = TIME_LIMIT) -> TestRun:
    """Execute the tests of `files[test_path]` on the modules in `files`."""
    report = TestRun()

    def go() -> None:
        try:
            _, allowed = load(files)
            names: JsonObject = {"__builtins__": allowed, "__name__": "t"}
            exec(compiled(files[test_path], test_path), names)
        except TimeUp as error:
            report.outcomes.append(CaseResult("test_import", error))
            raise
        except BaseException as error:
            report.collect_error = error
            return
        for name, function in [item for item in names.items() if item[0].startswith("test_")]:
            try:
                function()
            except TimeUp as error:
                report.outcomes.append(CaseResult(name, error))
                raise
            except BaseException as error:
                report.outcomes.append(CaseResult(name, error, error.__traceback__))
            else:
                report.outcomes.append(CaseResult(name))

    try:
        limited(go, seconds)
    except TimeUp:
        if not report.failed:
            report.outcomes.append(CaseResult("test_import", TimeUp()))
    if report.collect_error is not None:
        _locate(report, files)
    return report


def passes(files: Mapping[str, str], test_path: str, *tests: str) -> bool:
    """Whether every given test file passes on the modules in `files`."""
    return all(run({**files, test_path: text}, test_path).ok for text in tests)


def _locate(report: TestRun, files: Mapping[str, str]) -> None:
    error = report.collect_error
    report.error_file = getattr(error, "filename", None)
    report.error_line = getattr(error, "lineno", None)
    step = error.__traceback__ if error is not None and report.error_file is None else None
    while step is not None:
        if step.tb_frame.f_code.co_filename in files:
            report.error_file, report.error_line = step.tb_frame.f_code.co_filename, step.tb_lineno
        step = step.tb_next


def evaluate(
    files: Mapping[str, str], test_path: str, task_id: str, run_number: int, noise: int
) -> tuple[str, TestRun]:
    """Run the visible tests and render the report an agent reads."""
    report = run(files, test_path)
    return render(report, files, test_path, task_id, run_number, noise), report


def read_folder(folder: Path) -> dict[str, str]:
    """The Python files of a task's folder by relative path, in name order."""
    paths = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*.py") if p.is_file()}
    return {name: paths[name].read_text(encoding="utf-8") for name in sorted(paths)}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run a micro task's tests and print the report.")
    parser.add_argument("--folder", default=".", help="the task's folder")
    parser.add_argument("--test", required=True, help="path of the visible tests in the folder")
    parser.add_argument("--id", default="task", help="the task's id (seeds what varies between runs)")
    parser.add_argument("--run", type=int, default=1, help="number of this test run, from 1")
    parser.add_argument("--noise", type=int, default=0, choices=sorted(LOG_COUNTS))
    parser.add_argument("--mark", help="a line to print first, and last with the exit code behind it")
    parser.add_argument("--hidden", help="zlib + base64 text of tests that replace the visible ones (exit code only)")
    args = parser.parse_args(argv)
    sys.dont_write_bytecode = True
    if args.mark is None:
        return _main(args)
    print(args.mark, flush=True)
    code = _main(args)
    print(f"\n{args.mark} {code}")
    return code


def _main(args: argparse.Namespace) -> int:
    files = read_folder(Path(args.folder))
    if args.hidden is not None:
        hidden = (zlib.decompress(base64.b64decode(blob)).decode() for blob in args.hidden.split(","))
        return 0 if passes(files, args.test, *hidden) else 1
    text, report = evaluate(files, args.test, args.id, args.run, args.noise)
    sys.stdout.write(text)
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
