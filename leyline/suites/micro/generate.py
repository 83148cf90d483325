"""The generator: from a seed to a task whose tests pass when it is correct and fail on each of its bugs."""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass
from typing import Literal

from leyline.directives import LeylineError
from leyline.suites.micro import runner
from leyline.suites.micro.catalogue import Split, draw_unit, held_out
from leyline.suites.micro.mutations import draw_bug
from leyline.suites.micro.names import NOUNS
from leyline.suites.micro.rollout import attempt, characters, solvable
from leyline.suites.micro.task import Bug, MicroTask
from leyline.suites.micro.units import Unit
from leyline.suites.micro.values import draw_case

Level = Literal["short", "long", "xlong"]
LEVELS: tuple[Level, ...] = ("short", "long", "xlong")
LENGTHS = {"short": (0, 11_000), "long": (11_000, 28_000), "xlong": (34_000, 50_000)}
"""Characters of an error-free run with nothing edited, system prompt included; a token is about 3.6 of them."""
SPLITS: tuple[Split, ...] = ("seen", "unseen", "train")
HEADERS = ("Helpers for the {} {}.", "Small {} tools for {}.", "{} and {} utilities.")
COMMENTS = ("# see the notes for {}", "# {} handling", "# used by the {} view", "# keep in sync with {}", "# {} part")
HIDDEN_CASES = 5  # of each unit
Case = tuple[Unit, list[str], str, object]


class TaskError(LeylineError, ValueError):
    """No such task: an unknown level or split, or a seed out of range."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a task is: bugs, modules, units a module, noise of the log."""

    bugs: int
    modules: int
    units: tuple[int, int]
    noise: int


def draw_shape(rng: random.Random, level: str) -> Shape:
    if level == "short":
        if rng.random() < 0.5:
            return Shape(1, 1, (3, 5), rng.choice([0, 0, 1]))
        return Shape(rng.choice([1, 1, 2]), rng.choice([1, 2, 2]), (3, 6), rng.choice([0, 1, 2]))
    if level == "long":
        return Shape(rng.choice([2, 3, 3]), rng.choice([2, 3]), (3, 6), rng.choice([2, 2, 3]))
    return Shape(rng.choice([5, 5, 6]), rng.choice([3, 4]), (4, 6), 3)


def make_task(seed: int, level: str = "short", split: str = "seen") -> MicroTask:
    """The task of a seed. Deterministic; `split="train"` draws from the seen families in a stream of its own.

    Raises `TaskError` for an unknown level or split.
    """
    if level not in LEVELS:
        raise TaskError(f"unknown level {level!r}; choose one of {', '.join(LEVELS)}")
    if split not in SPLITS:
        raise TaskError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    task_id = f"micro-{level}-{split}-{seed:06d}"
    return _make(task_id, seed, level, split)


@functools.lru_cache(maxsize=64)
def _make(task_id: str, seed: int, level: str, split: str) -> MicroTask:
    rng = random.Random(task_id)
    for _ in range(500):
        task = _attempt(rng, task_id, seed, level, split)
        if task is not None and _fits(task):
            return task
    raise TaskError(f"no task could be generated for {task_id}; use another seed")


def _fits(task: MicroTask) -> bool:
    """Whether an error-free run is as long as the level says, and the scripted agent can do the task.

    For training, whose episodes show by themselves whether they were solved, the length alone is looked at.
    """
    run = attempt(task)
    shortest, longest = LENGTHS[task.level]
    return run.solved and shortest <= characters(run) < longest and (task.split == "train" or solvable(run))


def _attempt(rng: random.Random, task_id: str, seed: int, level: str, split: str) -> MicroTask | None:
    shape = draw_shape(rng, level)
    draft = _Draft(rng, shape, split)
    good = draft.render({})
    try:
        namespaces, _ = runner.load(good)
    except Exception:
        return None
    visible, hidden = draft.cases({k: v for ns in namespaces.values() for k, v in ns.items()})
    test_path = f"tests/test_{rng.choice(draft.names)}.py"
    visible_text, hidden_text = draft.test_file(visible), draft.test_file(hidden)
    if not runner.passes(good, test_path, visible_text, hidden_text):
        return None
    bugs: dict[str, tuple[str, tuple[str, ...]]] = {}
    order = list(draft.units)
    rng.shuffle(order)
    for unit in order:
        if len(bugs) == shape.bugs:
            break
        if split == "unseen" and not held_out(unit.family):
            continue
        for _ in range(6):
            bug = draw_bug(rng, unit)
            if bug and draft.is_caught({unit.name: bug[1]}, test_path, visible_text, hidden_text):
                bugs[unit.name] = bug
                break
    if len(bugs) < shape.bugs:
        return None
    files = draft.render({name: lines for name, (_, lines) in bugs.items()})
    files[test_path] = visible_text
    return MicroTask(
        id=task_id,
        seed=seed,
        level=level,
        split=split,
        files=dict(sorted(files.items())),
        test_path=test_path,
        hidden=hidden_text,
        noise=shape.noise,
        bugs=tuple(draft.locate(files, name, *bug) for name, bug in bugs.items()),
        program=tuple(draft.units),
        where={u.name: path for path, units in draft.modules for u in units},
        reference=good,
    )


class _Draft:
    """A program being made: modules of units, their headers and comments."""

    def __init__(self, rng: random.Random, shape: Shape, split: str) -> None:
        self.rng = rng
        self.names = rng.sample(NOUNS, shape.modules)
        used: set[str] = set()
        self.modules: list[tuple[str, list[Unit]]] = []
        for name in self.names:
            units: list[Unit] = []
            count = rng.randint(*shape.units)
            earlier = [u for _, us in self.modules for u in us if u.kind == "function"]
            while len(units) < count:
                helpers = [u for u in units if u.kind == "function"]
                if earlier and (not helpers or rng.random() < 0.4):
                    helpers = earlier
                unit = draw_unit(rng, used, helpers, split)  # type: ignore[arg-type]
                if unit is not None:
                    units.append(unit)
            self.modules.append((f"{name}.py", units))
        self.units = [u for _, units in self.modules for u in units]
        self.called = {u.calls.name for u in self.units if u.calls is not None}
        self.headers = {p: rng.choice(HEADERS).format(rng.choice(NOUNS), rng.choice(NOUNS)) for p, _ in self.modules}
        self.comments = {
            u.name: rng.choice(COMMENTS).format(rng.choice(NOUNS)) for u in self.units if rng.random() < 0.2
        }

    def render(self, replaced: dict[str, tuple[str, ...]]) -> dict[str, str]:
        """The modules' text, with the lines of some units replaced."""
        files = {}
        for path, units in self.modules:
            lines = [f'"""{self.headers[path]}"""', *self._imports(path, units)]
            for index, unit in enumerate(units):
                lines += [""] * (2 if index else 1)
                if unit.name in self.comments:
                    lines.append(self.comments[unit.name])
                lines += replaced.get(unit.name, unit.lines)
            files[path] = "\n".join(lines) + "\n"
        return files

    def _imports(self, path: str, units: list[Unit]) -> list[str]:
        own = {u.name for u in units}
        wanted = [u.calls.name for u in units if u.calls is not None and u.calls.name not in own]
        lines = []
        for other, others in self.modules:
            names = [u.name for u in others if u.name in wanted and other != path]
            if names:
                lines.append(f"from {other[:-3]} import {', '.join(names)}")
        return lines

    def cases(self, names: dict[str, object]) -> tuple[list[Case], list[Case]]:
        """Visible and hidden test cases with their expected values."""
        rng = self.rng
        visible: list[Case] = []
        hidden: list[Case] = []
        for unit in self.units:
            shown = rng.choice([1, 2, 2, 3])
            if unit.name in self.called and rng.random() < 0.35:
                shown = 0
            found = self._candidates(names, unit, shown + HIDDEN_CASES + 3)
            for number, (setup, expression, value) in enumerate(found[: shown + HIDDEN_CASES]):
                (visible if number < shown else hidden).append((unit, setup, expression, value))
        return visible, hidden

    def _candidates(self, names: dict[str, object], unit: Unit, count: int) -> list[tuple[list[str], str, object]]:
        """Different cases of a unit; those whose value another one has already come last, as they tell least."""
        drawn: set[tuple[tuple[str, ...], str]] = set()
        values: set[str] = set()
        first: list[tuple[list[str], str, object]] = []
        again: list[tuple[list[str], str, object]] = []
        for _ in range(count):
            setup, expression = draw_case(self.rng, unit)
            if (tuple(setup), expression) in drawn or len(expression) > 95:
                continue
            drawn.add((tuple(setup), expression))
            try:
                value = runner.limited(functools.partial(_expected, names, setup, expression))
                text = repr(value)  # fails for a number of thousands of digits
            except BaseException:
                continue
            if len(text) <= 70:
                (again if text in values else first).append((setup, expression, value))
                values.add(text)
        return first + again

    def test_file(self, cases: list[Case]) -> str:
        lines = []
        for name, (_, units) in zip(self.names, self.modules, strict=True):
            tested = [u.name for u in units if any(c[0] is u for c in cases)]
            if tested:
                lines.append(f"from {name} import {', '.join(tested)}")
        counts: dict[str, int] = {}
        for unit, setup, expression, value in cases:
            counts[unit.name] = counts.get(unit.name, 0) + 1
            lines += ["", "", f"def test_{unit.name}_{counts[unit.name]}():"]
            lines += [*(f"    {s}" for s in setup), f"    assert {expression} == {value!r}"]
        return "\n".join(lines) + "\n"

    def is_caught(self, replaced: dict[str, tuple[str, ...]], test_path: str, visible: str, hidden: str) -> bool:
        """Whether the bug compiles, and both test files collect and fail on it."""
        files = self.render(replaced)
        try:
            for path, text in files.items():
                runner.compiled(text, path)
        except SyntaxError:
            return False
        for tests in (visible, hidden):
            report = runner.run({**files, test_path: tests}, test_path)
            if report.collect_error is not None or not report.failed or report.timed_out:
                return False
        return True

    def locate(self, files: dict[str, str], name: str, kind: str, lines: tuple[str, ...]) -> Bug:
        path = next(p for p, units in self.modules for u in units if u.name == name)
        unit = next(u for u in self.units if u.name == name)
        start = files[path].split("\n").index(lines[0])
        pairs = zip([*lines, None], [*unit.lines, None], strict=False)
        offset = next(i for i, (new, old) in enumerate(pairs) if new != old)
        return Bug(path, start + offset + 1, name, unit.family, kind)


def _expected(names: dict[str, object], setup: list[str], expression: str) -> object:
    local = dict(names)
    for statement in setup:
        exec(statement, local)
    return eval(expression, local)
