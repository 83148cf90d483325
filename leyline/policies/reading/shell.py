"""What a shell command does to files, by its look: the part of a file it shows, files it writes, tests it runs."""

from __future__ import annotations

import posixpath
import re
import shlex
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from leyline.policies.reading.testruns import SuiteRun, joined, runs_tests, suite_run

_HEREDOC = re.compile(r"(?<!<)<<-?[ \t]*(['\"]?)(\w+)\1")
_COMMENT = re.compile(r"^[ \t]*#.*$", re.M)
_SED_RANGE = re.compile(r"(\d{1,9})(?:,(\d{1,9}|\$))?p")
_HEAD_COUNT = re.compile(r"(?:-n|--lines=|-)(\d{1,9})")
_REDIRECTION = re.compile(r"&?>>?[&|]?")
_QUIET = {"cd", "export", "source", ".", "mkdir", "rm", "touch", "set", "true", "cp", "mv", "sed", "tee", "cat"}
_FILTERS = {"tail", "cat", "tee", "less"}
_SIEVES = {"head", "grep", "egrep", "fgrep"}  # behind these the result of a test run may be missing


@dataclass(frozen=True, slots=True)
class View:
    """Lines `start` to `end` of a file, one-based and inclusive; `end` None is the end of the file.

    known: whether that is known; a view of an unknown part covers nothing, and nothing covers it.
    reach: lines that a view to the end shows at most, None for all; it covers no view that goes further.
    """

    path: str
    start: int = 1
    end: int | None = None
    known: bool = True
    reach: int | None = None

    def covers(self, other: View) -> bool:
        """Whether this view shows at least the lines of `other`."""
        end, wanted = self._last(), other._last()
        ends = end is None or (wanted is not None and end >= wanted)
        return self.known and other.known and self.path == other.path and self.start <= other.start and ends

    def _last(self) -> int | None:
        return self.end if self.end is not None or self.reach is None else self.start + self.reach - 1


@dataclass(frozen=True, slots=True)
class Effect:
    """What one call does. `view` and `tests` are None where the output holds anything else as well.

    tested: whether it runs any tests at all, whatever else it does.
    """

    view: View | None = None
    edited: frozenset[str] = frozenset()
    tests: SuiteRun | None = None
    paths: frozenset[str] = frozenset()
    program: str = ""
    tested: bool = False


@lru_cache(maxsize=4096)
def command_effect(command: str, directory: str = ".") -> Effect:
    """Read a shell command that starts in `directory`. Of what cannot be split only the first word is known."""
    steps = _steps(command)
    if not steps:
        words_left = command.split()
        return (
            Effect(program=posixpath.basename(words_left[0]), tested=runs_tests(words_left)) if words_left else Effect()
        )
    directory, edited, words = _path("", directory), set[str](), set[str]()
    views: list[View | None] = []
    tests: list[SuiteRun] = []
    quiet, tested, program = True, False, ""
    for pipeline in steps:
        first = _strip_prefix(pipeline[0])
        name = posixpath.basename(first[0]) if first else ""
        if name == "cd" and len(first) > 1:
            directory = _path(directory, first[1])
            continue
        program = program or name
        for part in pipeline:
            edited |= {_path(directory, p) for p in _written(part)}
            words |= {_path(directory, w) for w in part[1:] if not w.startswith("-")}
            tested |= runs_tests(_plain(_strip_prefix(part)))
        hidden = any(descriptor == "1" for part in pipeline for descriptor, _ in _redirections(part))
        behind = {posixpath.basename(part[0]) for part in pipeline[1:]}
        run = suite_run(_plain(first), directory, whole=not hidden and not behind & _SIEVES)
        if run is not None:
            tests.append(run)
            quiet &= behind <= _FILTERS | _SIEVES
        else:
            views.append(None if hidden else _view([_plain(_strip_prefix(p)) for p in pipeline], directory))
            quiet &= name in _QUIET and views[-1] is None
    shown = views[0] if len(views) == 1 and not tests and not edited else None
    run_of_all = joined(tests) if quiet else None
    return Effect(shown, frozenset(edited), run_of_all, frozenset(words), program, tested or bool(tests))


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
        if token in ("|", "|&"):
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


def _redirections(words: list[str]) -> Iterator[tuple[str, str]]:
    """(descriptor, target) of each output of a simple command that goes to a file or is closed."""
    for k, (word, target) in enumerate(pairwise([*words, ""])):
        if _REDIRECTION.fullmatch(word) and not (word.endswith("&") and target.isdigit()):
            yield words[k - 1] if k and words[k - 1].isdigit() else "1", target


def _plain(words: list[str]) -> list[str]:
    """A simple command without its redirections."""
    kept, skip = [], False
    for word, following in pairwise([*words, ""]):
        if skip:
            skip = False
        elif _REDIRECTION.fullmatch(word) or word.startswith("<"):
            skip = True
        elif not (word.isdigit() and _REDIRECTION.fullmatch(following)):
            kept.append(word)
    return kept


def _operands(words: list[str]) -> list[str]:
    """What follows the name of a command and is no option."""
    return [word for word in words[1:] if not word.startswith("-")]


def _written(words: list[str]) -> set[str]:
    """Files that one simple command writes, moves or removes."""
    found = {target for _, target in _redirections(words) if target != "-" and not target.startswith("/dev/")}
    words = _plain(_strip_prefix(words))
    if not words:
        return found
    name, plain = posixpath.basename(words[0]), _operands(words)
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
    """The part of a file that a pipeline of cat, nl, head and sed -n shows; its commands have no redirections."""
    words = pipeline[0]
    name = posixpath.basename(words[0]) if words else ""
    shown = ((1, None), _operands(words)) if name in ("cat", "nl") else _window(words)
    if shown is None or len(shown[1]) != 1:
        return None
    (start, end), files = shown
    for part in pipeline[1:]:
        shown = _window(part)
        if shown is None or shown[1]:
            return None
        first, last = shown[0]
        if last is not None:
            end = start + last - 1 if end is None else min(end, start + last - 1)
        start += first - 1
    return View(_path(directory, files[0]), start, end) if end is None or end >= start else None


def _window(words: list[str]) -> tuple[tuple[int, int | None], list[str]] | None:
    """The lines that `sed -n 'a,bp'` or `head -n N` lets through, and of which files; None for anything else."""
    name = posixpath.basename(words[0]) if words else ""
    if name == "sed" and "-n" in words:
        scripts = [m for w in words[1:] if (m := _SED_RANGE.fullmatch(w))]
        if not scripts:
            return None
        first, last = scripts[0].groups()
        return (int(first), None if last == "$" else int(last or first)), _operands(words)[1:]
    return _head(words[1:]) if name == "head" else None


def _head(words: list[str]) -> tuple[tuple[int, int | None], list[str]] | None:
    """`_window` of the arguments of head. Bytes, and all but the last lines, are no known window."""
    count, files = 10, []
    rest = iter(words)
    for word in rest:
        given = _HEAD_COUNT.fullmatch("-n" + next(rest, "") if word in ("-n", "--lines") else word)
        if given is not None:
            count = int(given[1])
        elif not word.startswith("-"):
            files.append(word)
        elif word not in ("-q", "-v"):
            return None
    return (1, count), files
