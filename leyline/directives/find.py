"""The directives that lead from the tokens a server holds to a new prompt, found from the two alone.

A client that has no tokenizer cannot say where its edits lie in tokens. A server that remembers what it last held for a
session can: what both sequences share is a run to keep or move, what lies between is an edit. Runs are found at
content-defined anchors (as in rsync and in Irminsul's content-defined chunks, arXiv 2605.05696, but over whole
sequences that are both at hand, so that every run is compared token by token and a hash decides nothing), in one pass
that is linear in the tokens.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import lt
from typing import NamedTuple

from leyline.directives.directive import Directive, Mode
from leyline.directives.script import EditScript

MIN_RUN = 16
"""A shorter run between two edits is computed anew: moving it would cost more than it saves."""

_WIDTH = 8  # bytes of a token
_LOW = 0 if sys.byteorder == "little" else _WIDTH - 1


class _Level(NamedTuple):
    """How anchors are chosen, and how small a gap may be that is searched this way.

    pattern: of the classes of neighbouring tokens, two classes of half of the ids each; none takes every token.
    However a text is distributed, a pattern of k classes with as many of either is met at most every 2**k tokens.
    window: tokens that tell anchors apart. least, most: tokens of the gap, of the shorter and the longer side.
    """

    pattern: bytes
    window: int
    least: int
    most: int


_LEVELS = (
    _Level(b"baababba", 24, MIN_RUN, 2**31),
    _Level(b"baab", 12, 2 * MIN_RUN, 2**31),
    _Level(b"", 8, 4 * MIN_RUN, 1024),
)
_CLASSES = bytes(b"ab"[(b * 167 >> 3) & 1] for b in range(256))


class _Run(NamedTuple):
    """Tokens `[held, held + length)` of the one are tokens `[prompt, prompt + length)` of the other."""

    held: int
    prompt: int
    length: int


@dataclass(frozen=True, slots=True)
class _Pair:
    """Both sequences as bytes, `_WIDTH` a token, so that comparing and hashing run at the speed of memory."""

    held: bytes
    prompt: bytes

    def forward(self, h: int, q: int, limit: int) -> int:
        """How many tokens from `held[h]` and `prompt[q]` on are the same, at most `limit`."""
        same, step = 0, 32
        while same < limit:
            step = min(step, limit - same)
            low, high = (h + same) * _WIDTH, (q + same) * _WIDTH
            if self.held[low : low + step * _WIDTH] == self.prompt[high : high + step * _WIDTH]:
                same, step = same + step, min(step * 4, 8192)
            elif step == 1:
                break
            else:
                step = max(1, step // 4)
        return same

    def backward(self, h: int, q: int, limit: int) -> int:
        """How many tokens before `held[h]` and `prompt[q]` are the same, at most `limit`."""
        same, step = 0, 32
        while same < limit:
            step = min(step, limit - same)
            low, high = (h - same) * _WIDTH, (q - same) * _WIDTH
            if self.held[low - step * _WIDTH : low] == self.prompt[high - step * _WIDTH : high]:
                same, step = same + step, min(step * 4, 8192)
            elif step == 1:
                break
            else:
                step = max(1, step // 4)
        return same


def find_script(held: Sequence[int], prompt: Sequence[int], mode: Mode) -> EditScript:
    """The directives from `held` to the beginning of `prompt`; none where the prompt continues what is held.

    held: the token ids that the server holds, `(source_len,)`; an `array('q')` is read without a copy of its items.
    prompt: the token ids of the new request, `(prompt_len,)`: the edited source and whatever was appended to it.
    mode: what the client allows. Under AMORTIZE every run of at least `MIN_RUN` tokens that both share, in the same
        order, stays; FORGET holds from the first difference on, and nothing behind it is kept.

    `find_script(...).apply(held)` is always a beginning of `prompt`. Linear in the tokens; never raises for ids.
    """
    pair = _Pair(_bytes(held), _bytes(prompt))
    ends = (len(held), len(prompt))
    shared = pair.forward(0, 0, min(ends))
    if shared == len(held):
        return EditScript(())
    if mode is Mode.FORGET:
        return EditScript((Directive(shared, len(held), (), mode),))
    runs = [run for run in _runs(pair, (shared, shared), ends, 0) if run.length >= MIN_RUN]
    directives = []
    h, q = shared, shared
    for run in runs:
        directives.append(Directive(h, run.held, tuple(prompt[q : run.prompt]), mode))
        h, q = run.held + run.length, run.prompt + run.length
    if h < len(held):  # the rest of the source has to go; what the prompt holds from here on is its tail
        directives.append(Directive(h, len(held), (), mode))
    return EditScript(tuple(directives))


def _bytes(tokens: Sequence[int]) -> bytes:
    return (tokens if isinstance(tokens, array) and tokens.typecode == "q" else array("q", tokens)).tobytes()


def _runs(pair: _Pair, start: tuple[int, int], end: tuple[int, int], depth: int) -> Iterator[_Run]:
    """What `held[start[0]:end[0]]` and `prompt[start[1]:end[1]]` share, in order; gaps are searched finer."""
    if depth == len(_LEVELS):
        return
    level = _LEVELS[depth]
    sides = (end[0] - start[0], end[1] - start[1])
    if min(sides) < level.least or max(sides) > level.most:
        return
    h, q = start
    for anchor_h, anchor_q in _anchors(pair, start, end, level):
        if anchor_h < h or anchor_q < q:  # inside of the last run, or crossed by it
            continue
        back = pair.backward(anchor_h, anchor_q, min(anchor_h - h, anchor_q - q))
        first_h, first_q = anchor_h - back, anchor_q - back
        yield from _runs(pair, (h, q), (first_h, first_q), depth + 1)
        length = back + pair.forward(anchor_h, anchor_q, min(end[0] - anchor_h, end[1] - anchor_q))
        yield _Run(first_h, first_q, length)
        h, q = first_h + length, first_q + length
    yield from _runs(pair, (h, q), end, depth + 1)


def _anchors(pair: _Pair, start: tuple[int, int], end: tuple[int, int], level: _Level) -> Sequence[tuple[int, int]]:
    """Positions in both with the same window of tokens that neither has twice, the most that ascend in both."""
    here = _windows(pair.held, start[0], end[0], level)
    there = _windows(pair.prompt, start[1], end[1], level)
    found = [(here[key], q) for key, q in there.items() if q >= 0 and here.get(key, -1) >= 0]
    places = [h for h, _ in found]
    if all(map(lt, places, places[1:])):
        return found
    return [found[index] for index in _ascending(places)]


def _windows(data: bytes, start: int, end: int, level: _Level) -> dict[bytes, int]:
    """Each window at an anchor of `[start, end)`, with its position, or -1 where it stands there twice. In order."""
    plane = data[start * _WIDTH + _LOW : max(start, end - level.window + 1) * _WIDTH : _WIDTH]
    size = level.window * _WIDTH
    classes = plane.translate(_CLASSES)
    found: dict[bytes, int] = {}
    place = classes.find(level.pattern)
    while 0 <= place < len(classes):
        position = start + place
        place = classes.find(level.pattern, place + 1)
        key = data[position * _WIDTH : position * _WIDTH + size]
        found[key] = -1 if key in found else position
    return found


def _ascending(values: Sequence[int]) -> list[int]:
    """The indices of a longest ascending subsequence (patience sorting), O(n log n)."""
    tops: list[int] = []
    indices: list[int] = []
    before: list[int] = []
    for index, value in enumerate(values):
        place = bisect_left(tops, value)
        before.append(indices[place - 1] if place else -1)
        tops[place : place + 1] = [value]
        indices[place : place + 1] = [index]
    chain = []
    index = indices[-1] if indices else -1
    while index >= 0:
        chain.append(index)
        index = before[index]
    return chain[::-1]
