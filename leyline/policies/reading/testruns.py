"""Test runs as commands start them: which runner, where, on what, and how much of the result is shown."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass

_RUNNERS = {"pytest", "py.test", "tox", "nosetests", "nose2", "runtests.py", "unittest", "nose", "trial"}
# Options that leave tests out by what happened before or by name, or that run none at all; some take a value.
_PARTIAL = {"--lf", "--last-failed", "--ff", "--failed-first", "--sw", "--stepwise", "--co", "--collect-only"}
_PARTIAL_VALUED = {"--deselect", "--ignore", "--ignore-glob", "--exclude-tag", "-run", "-skip"}
_LAUNCHERS = (
    "uv run|poetry run|pipenv run|pdm run|hatch run|rye run|npx|pnpm exec|yarn exec|bundle exec|xvfb-run|dotenv run"
    "|coverage run -m|python3? -m coverage run -m|conda run(?: -n \\S+)?|docker(?: compose|-compose)? exec \\S+"
)
_ANY_RUN = re.compile(
    rf"(?:(?:{_LAUNCHERS})(?: -\S+)* )*"
    r"(?:python[\d.]* (?:-\w+ )*-m (?:pytest|unittest|nose2?|tox|twisted\.trial)\b|pytest\b|py\.test\b"
    r"|python[\d.]* \S*(?:manage\.py|setup\.py|runtests\.py|run_tests\.py) ?(?:test\b)?|tox\b|nox\b|nosetests\b|trial\b"
    r"|(?:npm|pnpm|yarn|bun|deno|cargo|go|make|mvn|gradle|dotnet|mix|rake|just|bazel|hatch|swift|flutter|dart|sbt)"
    r"(?: -\S+)*(?: run)? (?:nextest|check|test)|\./(?:gradlew|mvnw) .*\b(?:test|check)|jest\b|vitest\b|mocha\b"
    r"|rspec\b|phpunit\b|ctest\b|\S+/(?:pytest|py\.test|phpunit|runtests\.py|run_tests\.sh)\b)"
)
_STOP = re.compile(r"-[lqsv]*x[lqsv]*|--exitfirst|--maxfail|--failfast|-f")


@dataclass(frozen=True, slots=True)
class SuiteRun:
    """A test run.

    runner: its name. targets: what it was pointed at; empty for everything. directory: where it ran, as given.
    select: options that narrow the run. whole: whether the output shows the result of all that was selected.
    """

    runner: str
    targets: frozenset[str] = frozenset()
    select: frozenset[str] = frozenset()
    directory: str = "."
    whole: bool = True

    def covers(self, other: SuiteRun) -> bool:
        """Whether this run repeats at least the tests of `other` and shows how they went."""
        wide = not self.targets or (bool(other.targets) and self.targets >= other.targets)
        same = (self.runner, self.directory) == (other.runner, other.directory)
        return self.whole and same and wide and self.select <= other.select


def joined(runs: Sequence[SuiteRun]) -> SuiteRun | None:
    """Several runs of one command as one, which a run that covers all of them covers; None for unlike ones or none.

    It covers nothing itself: the later ones may not have come to run.
    """
    if len(runs) < 2:
        return runs[0] if runs else None
    if len({(run.runner, run.directory) for run in runs}) > 1:
        return None
    targets = (
        frozenset[str]().union(*(run.targets for run in runs)) if all(run.targets for run in runs) else frozenset()
    )
    select = runs[0].select.intersection(*(run.select for run in runs))
    return SuiteRun(runs[0].runner, targets, select, runs[0].directory, whole=False)


def runs_tests(words: Sequence[str]) -> bool:
    """Whether one simple command starts tests, in whatever language, by its look."""
    return _ANY_RUN.match(" ".join(words)) is not None


def suite_run(words: Sequence[str], directory: str, whole: bool) -> SuiteRun | None:
    """The test run that one simple command without redirections starts in `directory`, or None."""
    if not words:
        return None
    rest = list(words)
    name = posixpath.basename(rest.pop(0))
    if re.fullmatch(r"python[\d.]*", name):
        while rest and rest[0].startswith("-") and rest[0] not in ("-m", "-c"):
            rest.pop(0)
        if rest[:1] == ["-m"]:
            rest.pop(0)
        name = posixpath.basename(rest.pop(0)) if rest else ""
        known = name in _RUNNERS
        if name in ("manage.py", "setup.py") and rest[:1] == ["test"]:
            rest, known = rest[1:], True
    elif name in ("make", "npm", "cargo", "go") and rest[:1] in (["test"], ["check"]):
        rest, known = rest[1:], True
    elif name == "test":
        # The shell's own `test` has no directory in front; a project's bin/test does.
        name, known = posixpath.normpath(words[0]), "/" in words[0]
    else:
        known = name in _RUNNERS
    if not known or {"--version", "--help", "-h"} & set(rest):
        return None
    return _run(name, rest, directory, whole)


def _run(runner: str, words: Sequence[str], directory: str, whole: bool) -> SuiteRun:
    targets: set[str] = set()
    select: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        option, equals, value = word.partition("=")
        if option in ("-k", "-m"):
            # Given twice, the last one counts.
            select[option] = f"{option} {value if equals else next(rest, '')}"
        elif word.startswith(("-k", "-m")):
            select[word[:2]] = f"{word[:2]} {word[2:]}"
        elif option in _PARTIAL | _PARTIAL_VALUED:
            whole = False
            if option in _PARTIAL_VALUED and not equals:
                next(rest, None)
        elif _STOP.fullmatch(option):
            # A run that ends at the first failure shows less than one that goes on.
            select[option] = word if option.startswith("--") or option == "-f" else "-x"
        elif not word.startswith("-"):
            targets.add(word)
    return SuiteRun(runner, frozenset(targets), frozenset(select.values()), directory, whole)
