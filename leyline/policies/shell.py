"""What a shell command does to files, by its look: the part of a file it shows, files it writes, tests it runs."""

from __future__ import annotations

import posixpath
import re
import shlex
from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

_HEREDOC = re.compile(r"(?<!<)<<-?[ \t]*(['\"]?)(\w+)\1")
_COMMENT = re.compile(r"^[ \t]*#.*$", re.M)
_SED_RANGE = re.compile(r"(\d+)(?:,(\d+|\$))?p")
_RUNNERS = {"pytest", "py.test", "tox", "nosetests", "nose2", "runtests.py", "unittest", "nose", "trial"}
_QUIET = {"cd", "export", "source", ".", "mkdir", "rm", "touch", "set", "true", "cp", "mv", "sed", "tee", "cat"}
_FILTERS = {"tail", "head", "grep", "cat", "tee", "less"}


@dataclass(frozen=True, slots=True)
class View:
    """Lines `start` to `end` of a file, one-based and inclusive; `end` None is the end of the file.

    known: whether that is known; a view of an unknown part covers nothing, and nothing covers it.
    """

    path: str
    start: int = 1
    end: int | None = None
    known: bool = True

    def covers(self, other: View) -> bool:
        """Whether this view shows at least the lines of `other`."""
        ends = self.end is None or (other.end is not None and self.end >= other.end)
        return self.known and other.known and self.path == other.path and self.start <= other.start and ends


@dataclass(frozen=True, slots=True)
class SuiteRun:
    """A test run: the runner, what it was pointed at, and its selecting expression."""

    runner: str
    targets: frozenset[str] = frozenset()
    select: str | None = None

    def covers(self, other: SuiteRun) -> bool:
        """Whether this run repeats at least the tests of `other`."""
        wide = not self.targets or (bool(other.targets) and self.targets >= other.targets)
        return self.runner == other.runner and wide and self.select in (None, other.select)


@dataclass(frozen=True, slots=True)
class Effect:
    """What one call does. `view` and `tests` are None where the output holds anything else as well."""

    view: View | None = None
    edited: frozenset[str] = frozenset()
    tests: SuiteRun | None = None
    paths: frozenset[str] = frozenset()
    program: str = ""


@lru_cache(maxsize=4096)
def command_effect(command: str) -> Effect:
    """Read a shell command. What cannot be read has no effect."""
    steps = _steps(command)
    if not steps:
        return Effect()
    directory, edited, words = "", set[str](), set[str]()
    views: list[View | None] = []
    tests: list[SuiteRun] = []
    quiet, program = True, ""
    for pipeline in steps:
        first = _strip_prefix(pipeline[0])
        name = posixpath.basename(first[0]) if first else ""
        if name == "cd" and len(first) > 1:
            directory = posixpath.join(directory, first[1])
            continue
        program = program or name
        for part in pipeline:
            edited |= {_path(directory, p) for p in _written(part)}
            words |= {_path(directory, w) for w in part[1:] if not w.startswith("-")}
        run = _tests(first)
        if run is not None:
            tests.append(run)
            quiet &= all(posixpath.basename(part[0]) in _FILTERS for part in pipeline[1:] if part)
        else:
            views.append(_view([_strip_prefix(p) for p in pipeline], directory))
            quiet &= name in _QUIET and views[-1] is None
    shown = views[0] if len(views) == 1 and not tests and not edited else None
    return Effect(shown, frozenset(edited), tests[-1] if tests and quiet else None, frozenset(words), program)


def _steps(command: str) -> list[list[list[str]]]:
    """The command as a list of pipelines, each a list of simple commands as words; [] if it cannot be split."""
    text = _COMMENT.sub("", _without_heredocs(command)).replace("\\\n", " ")
    lexer = shlex.shlex(text, posix=True, punctuation_chars=";&|<>()\n")
    lexer.whitespace, lexer.commenters = " \t\r", ""
    lexer.whitespace_split = True
    try:
        tokens = list(lexer)
    except ValueError:
        return []
    steps: list[list[list[str]]] = [[[]]]
    for token in tokens:
        if token == "|":
            steps[-1].append([])
        elif token in ("&&", "||", ";", "&") or not token.strip("\n;"):
            steps.append([[]])
        else:
            steps[-1][-1].append(token)
    kept = [[part for part in pipeline if part] for pipeline in steps]
    return [pipeline for pipeline in kept if pipeline]


def _without_heredocs(command: str) -> str:
    """The command without its heredocs, operator and body. One whose last line is missing stays."""
    lines = command.split("\n")
    places: dict[str, list[int]] = {}
    for number, line in enumerate(lines):
        places.setdefault(line.strip(), []).append(number)
    kept: list[str] = []
    position = 0

    def skip(operator: re.Match[str]) -> str:
        nonlocal position
        ends = places.get(operator[2], [])
        found = bisect_left(ends, position)
        if found == len(ends):
            return operator[0]
        position = ends[found] + 1
        return ""

    while position < len(lines):
        line = lines[position]
        position += 1
        kept.append(_HEREDOC.sub(skip, line))
    return "\n".join(kept)


def _strip_prefix(words: list[str]) -> list[str]:
    """Without variable assignments, `timeout N` and `env` in front."""
    k = 0
    while k < len(words):
        if re.fullmatch(r"\w+=.*", words[k], re.S) or words[k] in ("env", "time", "sudo"):
            k += 1
        elif words[k] == "timeout":
            k += 2
        else:
            break
    return words[k:]


def _path(directory: str, path: str) -> str:
    return posixpath.normpath(posixpath.join(directory, path))


def _plain(words: list[str]) -> list[str]:
    """Arguments that are neither options nor redirections."""
    kept, skip = [], False
    for word, following in pairwise([*words, ""]):
        if skip:
            skip = False
        elif word[:1] in "<>":
            skip = True
        elif not word.startswith("-") and not (word in ("1", "2") and following[:1] == ">"):
            kept.append(word)
    return kept


def _written(words: list[str]) -> set[str]:
    """Files that one simple command writes, moves or removes."""
    found = {b for a, b in pairwise(words) if a in (">", ">>") and not b.startswith(("/dev/", "&"))}
    words = _strip_prefix(words)
    if not words:
        return found
    name, plain = posixpath.basename(words[0]), _plain(words[1:])
    if name == "sed" and any(re.match(r"-[a-zA-Z]*i|--in-place", w) for w in words[1:]):
        scripts = {b for a, b in pairwise(words) if a in ("-e", "-f")}
        found.update((w for w in plain if w not in scripts) if scripts else plain[1:])
    elif name in ("tee", "rm", "mv", "touch", "patch"):
        found.update(plain)
    elif name == "cp":
        found.update(plain[-1:])
    elif name == "git" and plain[:1] in (["checkout"], ["restore"]):
        found.update(plain[1:])
    return found


def _view(pipeline: list[list[str]], directory: str) -> View | None:
    """The part of a file that a pipeline of cat, nl, head and sed -n shows."""
    words = pipeline[0]
    plain = _plain(words[1:])
    name = posixpath.basename(words[0]) if words else ""
    lines: tuple[int, int | None] = (1, None)
    if name in ("cat", "nl"):
        files = plain
    elif name in ("sed", "head"):
        files, window = (plain[1:] if name == "sed" else plain[-1:]), _window(words)
        if window is None:
            return None
        lines = window
    else:
        return None
    if len(files) != 1:
        return None
    for part in pipeline[1:]:
        window = _window(part)
        if window is None:
            return None
        offset = lines[0] - 1
        end = None if window[1] is None else window[1] + offset
        lines = (window[0] + offset, end if lines[1] is None else min(lines[1], lines[1] if end is None else end))
    return View(_path(directory, files[0]), lines[0], lines[1])


def _window(words: list[str]) -> tuple[int, int | None] | None:
    """The lines that `sed -n 'a,bp'` or `head -n N` lets through; None for anything else."""
    name = posixpath.basename(words[0]) if words else ""
    if name == "sed" and "-n" in words:
        match = next((m for w in words[1:] if (m := _SED_RANGE.fullmatch(w))), None)
        if match is None:
            return None
        last = match[2] or match[1]
        return int(match[1]), None if last == "$" else int(last)
    if name == "head":
        count = re.search(r"-(?:n ?|-lines=)?(\d+)", " ".join(words[1:]))
        return (1, int(count[1])) if count else (1, 10)
    return None


def _tests(words: list[str]) -> SuiteRun | None:
    """The test run that one simple command starts, or None."""
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
        if name in ("manage.py", "setup.py") and rest[:1] == ["test"]:
            return _run(name, rest[1:])
        if name == "test":
            return None
    elif name in ("make", "npm", "cargo", "go") and rest[:1] in (["test"], ["check"]):
        return _run(name, rest[1:])
    elif name == "test":
        # The shell's own `test` has no directory in front; a project's bin/test does.
        return _run(posixpath.normpath(words[0]), rest) if "/" in words[0] else None
    return _run(name, rest) if name in _RUNNERS else None


def _run(runner: str, words: list[str]) -> SuiteRun | None:
    if {"--version", "--help", "-h"} & set(words):
        return None
    select = next((b for a, b in pairwise(words) if a in ("-k", "-m")), None)
    return SuiteRun(runner, frozenset(w for w in _plain(words) if w != select), select)
