"""What a test run came to, and the pytest-like report of it. Standard library only.

It goes into a sandbox as text, beside `runner` (see `task`). What varies between turns (durations, captured log lines)
is drawn from the task's id and the number of the test run.
"""

# ruff: noqa: SIM905

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType

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


class TimeUp(BaseException):
    """The code under test ran past its limit."""


@dataclass
class CaseResult:
    """One test: its error and traceback, or neither when it passed; `error` is a `TimeUp` for a time-out."""

    name: str
    error: BaseException | None = None
    traceback: TracebackType | None = None


@dataclass
class TestRun:
    """Results in order, or the error that kept the tests from being collected."""

    outcomes: list[CaseResult] = field(default_factory=list)
    collect_error: BaseException | None = None
    error_file: str | None = None
    error_line: int | None = None

    @property
    def failed(self) -> list[str]:
        return [o.name for o in self.outcomes if o.error is not None]

    @property
    def timed_out(self) -> bool:
        return any(isinstance(o.error, TimeUp) for o in self.outcomes)

    @property
    def ok(self) -> bool:
        return self.collect_error is None and not self.failed


def _line(files: Mapping[str, str], path: str, number: int) -> str | None:
    lines = files.get(path, "").split("\n")[:-1]
    return lines[number - 1].strip() if 0 < number <= len(lines) else None


def _collect_text(report: TestRun, files: Mapping[str, str], test_path: str, rng: random.Random) -> list[str]:
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


def _failure_text(item: CaseResult, files: Mapping[str, str], test_path: str) -> tuple[list[str], str]:
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
    if isinstance(error, TimeUp):
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


def render(report: TestRun, files: Mapping[str, str], test_path: str, task_id: str, run_number: int, noise: int) -> str:
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
