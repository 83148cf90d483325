"""What a shell test command tells by its status, and what not: a program that did not start, made a pass of."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator

NOT_STARTED = (126, 127)  # what a shell ends with where the program is not one, or is not there
# A status that says neither yes nor no is no failure for `!` to turn round: of any program from 126 on, of those that
# compare or look for something from 2 on.
_COMPARING = ("grep", "egrep", "fgrep", "rg", "diff", "cmp", "test", "[")
_NOT = re.compile(
    r"(?P<before>(?:^|[;&|({\n]|\b(?:if|then|do|else|elif|while|until)\b)\s*)!(?P<gap>[ \t]+)(?=(?P<word>\S+))"
)
_RESERVED = frozenset(["!", "{", "}", "if", "then", "else", "elif", "fi", "while", "until", "do", "done", "time"])
_OTHER = frozenset(["for", "case", "select", "function", "in", "esac", "[[", "((", "(", "{"])
_ASSIGNED = re.compile(r"[A-Za-z_]\w*\+?=")
_BARE = re.compile(r"[A-Za-z_][\w.+-]*")
FUNCTION = "leyline_ran"
_FUNCTION = (
    FUNCTION + '() {{ "$@"; set -- $? "$1"; case "$2" in {cases}) set -- "$1" 2;; *) set -- "$1" 126;; esac; '
    '[ "$1" -lt "$2" ] || : > {note}; return "$1"; }}'
)


def watched(test: str, note: str) -> str:
    """`test`, which also makes the file `note` where `!` turns a status round that is no answer."""

    def marked(match: re.Match[str]) -> str:
        word = match["word"]
        plain = word not in _RESERVED | _OTHER and not _ASSIGNED.match(word) and word[0] not in "({!"
        return match[0] + (f"{FUNCTION} " if plain else "")

    text = _NOT.sub(marked, test)
    if text == test:
        return test
    return f"{_FUNCTION.format(cases='|'.join(_COMPARING), note=shlex.quote(note))}\n{text}"


def programs(test: str) -> Iterator[str]:
    """The bare names that stand where a shell takes a program, as far as they can be read without running it."""
    lexer = shlex.shlex(test, posix=True, punctuation_chars="();<>|&\n")
    lexer.whitespace = " \t\r"
    try:
        words = list(lexer)
    except ValueError:  # a quote without an end: the shell will say so
        return
    start, skip = True, False
    functions = {word for word, after in itertools.pairwise(words) if after.startswith("()")}
    for word in words:
        if set(word) <= set("();<>|&\n"):
            skip = word[-1] in "<>" or word.endswith(">&")
            start = start if skip else True
        elif skip:
            skip = False
        elif start and (word in _RESERVED or _ASSIGNED.match(word)):
            if word.startswith("PATH="):
                return
        elif start:
            start = False
            if _BARE.fullmatch(word) and word not in functions | _OTHER:
                yield word
