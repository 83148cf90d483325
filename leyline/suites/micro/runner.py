"""Run a task's tests and print a pytest-like report. One file, standard library only.

A sandbox runs this text alone as a subprocess in a task's folder; training calls `evaluate` in process. Both give the
same text. Code under test runs with few builtins, imports only its own modules, and is stopped after a CPU-time limit.
What varies between turns (durations, captured log lines) is drawn from the task's id and the number of the test run.
"""

# ruff: noqa: SIM905

from __future__ import annotations

import argparse
import base64
import builtins
import functools
import gc
import random
import signal
import sys
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, SimpleNamespace, TracebackType
from typing import Any

TIME_LIMIT = 0.25
BAR = "=" * 20
NOUNS = (
    "river stone cloud maple tiger lemon ember cedar delta pearl coral amber raven ocean canal tower bridge garden "
    "meadow valley desert island forest harbor market castle temple engine rocket planet comet galaxy orbit signal "
    "packet buffer ledger budget salary invoice parcel cargo ticket voucher token badge medal crown sword shield "
    "arrow hammer anvil basket bottle candle carpet curtain drawer ladder mirror pillow saddle wagon barrel copper "
    "silver nickel cobalt carbon oxygen iron steel glass paper cotton velvet linen leather marble granite pebble "
    "gravel sand clay chalk brick timber rope chain wheel gear lever spring valve piston rotor sensor lamp fuse "
    "cable socket switch panel screen camera lens prism laser radar sonar antenna falcon eagle heron sparrow robin "
    "otter badger rabbit beaver walrus salmon trout turtle lizard spider beetle hornet cricket apple banana cherry "
    "grape mango melon olive onion pepper potato radish spinach tomato walnut almond barley millet wheat honey "
    "sugar pastry noodle cookie muffin waffle"
).split()
VERBS = (
    "get make find load scan pick read fold pack trim rank plan mark join slice gauge tally check merge build split "
    "shift count score blend align parse weigh guess order probe route audit chart clean craft draft fetch frame "
    "group index label level match model move note price prune quote lift reduce refine render reset scale select "
    "solve sort store sweep trace track update verify wrap"
).split()
LOG_LINES = (
    "loaded {} from {};cache miss for {} in {};{} took {} ms;retry {} for {};opened {} with {};{} queue length {};"
    "flush {} to {};skipped {} of {}"
).split(";")
LOG_COUNTS = {0: (0, 0), 1: (2, 5), 2: (4, 9), 3: (7, 13)}
_COMPREHENSIONS = ("<listcomp>", "<dictcomp>", "<setcomp>")
_ALLOWED = (
    "abs all any bool chr dict divmod enumerate filter float frozenset int isinstance iter len list map max min "
    "next ord pow range repr reversed round set sorted str sum tuple zip type hasattr getattr setattr print True "
    "False None Exception ValueError TypeError KeyError IndexError AttributeError ZeroDivisionError StopIteration "
    "AssertionError NameError RuntimeError object property staticmethod classmethod super __build_class__"
).split()


class _TimeUp(BaseException):
    """The code under test ran past its limit."""


@dataclass
class Outcome:
    """One test: its error and traceback, or neither when it passed; `error` is a `_TimeUp` for a time-out."""

    name: str
    error: BaseException | None = None
    traceback: TracebackType | None = None


@dataclass
class Report:
    """A test run: outcomes in order, or the error that kept the tests from being collected."""

    outcomes: list[Outcome] = field(default_factory=list)
    collect_error: BaseException | None = None
    error_file: str | None = None
    error_line: int | None = None

    @property
    def failed(self) -> list[str]:
        return [o.name for o in self.outcomes if o.error is not None]

    @property
    def timed_out(self) -> bool:
        return any(isinstance(o.error, _TimeUp) for o in self.outcomes)

    @property
    def ok(self) -> bool:
        return self.collect_error is None and not self.failed


@functools.lru_cache(maxsize=4096)
def compiled(text: str, path: str) -> CodeType:
    """The code of a module; warnings about odd code stay silent."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        return compile(text, path, "exec")


def limited(call: Callable[[], Any], seconds: float = TIME_LIMIT) -> Any:
    """Call with a limit on CPU time; raises `_TimeUp`. Main thread only. Garbage collection would swallow the stop."""

    def stop(*_: object) -> None:
        raise _TimeUp

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


def load(files: Mapping[str, str]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Execute every module outside `tests/`; returns namespaces by module name, and the builtins they saw."""
    modules: dict[str, dict[str, Any]] = {}
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

    allowed: dict[str, Any] = {k: getattr(builtins, k) for k in _ALLOWED}
    allowed["__import__"] = import_
    for name in sources:
        if name not in modules:
            execute(name)
    return modules, allowed


def run(files: Mapping[str, str], test_path: str, seconds: float = TIME_LIMIT) -> Report:
    """Execute the tests of `files[test_path]` on the modules in `files`."""
    report = Report()

    def go() -> None:
        try:
            _, allowed = load(files)
            names: dict[str, Any] = {"__builtins__": allowed, "__name__": "t"}
            exec(compiled(files[test_path], test_path), names)
        except _TimeUp as error:
            report.outcomes.append(Outcome("test_import", error))
            raise
        except BaseException as error:
            report.collect_error = error
            return
        for name, function in [item for item in names.items() if item[0].startswith("test_")]:
            try:
                function()
            except _TimeUp as error:
                report.outcomes.append(Outcome(name, error))
                raise
            except BaseException as error:
                report.outcomes.append(Outcome(name, error, error.__traceback__))
            else:
                report.outcomes.append(Outcome(name))

    try:
        limited(go, seconds)
    except _TimeUp:
        if not report.failed:
            report.outcomes.append(Outcome("test_import", _TimeUp()))
    if report.collect_error is not None:
        _locate(report, files)
    return report


def passes(files: Mapping[str, str], test_path: str, *tests: str) -> bool:
    """Whether every given test file passes on the modules in `files`."""
    return all(run({**files, test_path: text}, test_path).ok for text in tests)


def _locate(report: Report, files: Mapping[str, str]) -> None:
    error = report.collect_error
    report.error_file = getattr(error, "filename", None)
    report.error_line = getattr(error, "lineno", None)
    step = error.__traceback__ if error is not None and report.error_file is None else None
    while step is not None:
        if step.tb_frame.f_code.co_filename in files:
            report.error_file, report.error_line = step.tb_frame.f_code.co_filename, step.tb_lineno
        step = step.tb_next


def _line(files: Mapping[str, str], path: str, number: int) -> str | None:
    lines = files.get(path, "").split("\n")[:-1]
    return lines[number - 1].strip() if 0 < number <= len(lines) else None


def _collect_text(report: Report, files: Mapping[str, str], test_path: str, rng: random.Random) -> list[str]:
    error = report.collect_error
    assert error is not None
    out = ["collected 0 items / 1 error", "", f"{BAR} ERRORS {BAR}"]
    out.append(f'E     File "{report.error_file}", line {report.error_line}')
    source = _line(files, report.error_file or "", report.error_line or 0)
    if source is not None:
        out.append(f"E       {source}")
    name = type(error).__name__
    return [
        *out,
        f"E   {name}: {getattr(error, 'msg', None) or str(error)[:80]}",
        f"{BAR} short test summary info {BAR}",
        f"ERROR {test_path} - {name}",
        f"{BAR} 1 error in 0.0{rng.randint(1, 9)}s {BAR}",
    ]


def _failure_text(item: Outcome, files: Mapping[str, str], test_path: str) -> tuple[list[str], str]:
    """The section of one failed test, and its line for the summary."""
    error, lines = item.error, files[test_path].split("\n")
    start = next((i for i, text in enumerate(lines) if text.startswith(f"def {item.name}(")), None)
    if start is None or error is None:
        return [f"E       Timeout after 1 s in {item.name}"], "Timeout"
    end = start + 1
    while end < len(lines) and lines[end].startswith("    "):
        end += 1
    body = lines[start + 1 : end]
    out = [f"{'_' * 12} {item.name} {'_' * 12}", "", f"    def {item.name}():", *(f"    {text}" for text in body[:-1])]
    out.append(f">   {body[-1]}")
    if isinstance(error, _TimeUp):
        return [*out, "E       Timeout after 1 s"], "Timeout"
    step = item.traceback.tb_next if item.traceback else None
    if step is not None and isinstance(error, AssertionError) and step.tb_next is None:
        left, right = body[-1].strip()[7:].split(" == ", 1)
        try:
            got = repr(eval(left, step.tb_frame.f_globals, step.tb_frame.f_locals))[:120]
        except BaseException:
            got = "?"
        out += [f"E       assert {got} == {right}", f"E        +  where {got} = {left}"]
        return [*out, "", f"{test_path}:{end}: AssertionError"], f"assert {got} == {right}"
    chain = []
    while step is not None:
        code = step.tb_frame.f_code
        # Comprehensions have frames of their own before Python 3.12 only; this file's own frames are nobody's business.
        if code.co_name not in _COMPREHENSIONS and code.co_filename in files:
            chain.append((code.co_filename, step.tb_lineno, code.co_name))
        step = step.tb_next
    out += ["", f"{test_path}:{chain[0][1] if chain else end}:", "_ " * 12]
    for path, number, name in chain[1:7]:
        out.append(f"{path}:{number}: in {name}")
        source = _line(files, path, number)
        if source is not None:
            out.append(f"    {source}")
    text = f"{type(error).__name__}: {str(error)[:80]}"
    return [*out, f"E   {text}"], text


def render(report: Report, files: Mapping[str, str], test_path: str, task_id: str, run_number: int, noise: int) -> str:
    """The report as text; `noise` 0 to 3 sets how much captured log each failure carries."""
    rng = random.Random(f"{task_id}#{run_number}")
    out = [f"{BAR} test session starts {BAR}", "platform linux -- Python 3.12, pytest-8.3"]
    if report.collect_error is not None:
        return "\n".join(out + _collect_text(report, files, test_path, rng))
    failed = [o for o in report.outcomes if o.error is not None]
    total = len(report.outcomes)
    dots = "".join("." if o.error is None else "F" for o in report.outcomes)
    out += [f"collected {total} items", "", f"{test_path} {dots}", ""]
    if not failed:
        return "\n".join([*out, f"{BAR} {total} passed in 0.0{rng.randint(1, 9)}s {BAR}"])
    out.append(f"{BAR} FAILURES {BAR}")
    summary = []
    for item in failed[:8]:
        section, text = _failure_text(item, files, test_path)
        out += section
        if LOG_COUNTS[noise][1]:
            out.append(f"{'-' * 10} Captured log call {'-' * 10}")
            out += [_log_line(rng) for _ in range(rng.randint(*LOG_COUNTS[noise]))]
        summary.append(f"FAILED {test_path}::{item.name} - {text[:70]}")
    if noise >= 2:
        out.append(f"{BAR} warnings summary {BAR}")
        out += [_warning_line(rng) for _ in range(rng.randint(1, 4))]
    out += [f"{BAR} short test summary info {BAR}", *summary]
    passed = total - len(failed)
    out.append(f"{BAR} {len(failed)} failed, {passed} passed in 0.0{rng.randint(1, 9)}s {BAR}")
    return "\n".join(out)


def _log_line(rng: random.Random) -> str:
    level = rng.choice(["INFO", "DEBUG", "WARNING"])
    where = f"{rng.choice(NOUNS)}:{rng.randint(1, 99)}"
    text = rng.choice(LOG_LINES)
    return f"{level:<8}{where} " + text.format(rng.choice(NOUNS), rng.choice([rng.choice(NOUNS), rng.randint(0, 999)]))


def _warning_line(rng: random.Random) -> str:
    where = f"{rng.choice(NOUNS)}.py:{rng.randint(1, 200)}"
    old, new = (f"{rng.choice(VERBS)}_{rng.choice(NOUNS)}" for _ in range(2))
    return f"{where}: DeprecationWarning: {old} is deprecated, use {new}"


def evaluate(files: Mapping[str, str], test_path: str, task_id: str, run_number: int, noise: int) -> tuple[str, Report]:
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
