"""Tool calls in text, in the Hermes form, and the thinking around them, in which a call is only a draft.

A call is `<tool_call>{json}</tool_call>`. Its end is where the JSON ends, so an argument may hold the closing tag.
Thinking is what stands between `<think>` and `</think>` (and the like), what stands before a first `</think>` that
nothing opened (a template's generation prompt opens it), and what follows a `<think>` on a line of its own that
nothing closes (the answer was cut off).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_MARK = re.compile(
    r"<tool_call>|(?:^|(?<=\n))```|<(?P<o1>/?)(?:think|thinking|thought|reasoning|seed:think)>"
    r"|\[(?P<o2>/?)THINK\]|\u25c1(?P<o3>/?)think\u25b7"
)
_SPACE = re.compile(r"\s*")
_DECODER = json.JSONDecoder()
_MAX_MISREAD = 100  # a failed look at JSON costs the length of the text; behind so many the next closing tag decides


@dataclass(frozen=True, slots=True)
class Block:
    """One `<tool_call>` with its `</tool_call>`: characters `start` to `end` of the text, `body` between the tags."""

    start: int
    end: int
    body: str


@dataclass(frozen=True, slots=True)
class Written:
    """What a text holds: calls in order, and where thinking stands, ascending (start, end) in characters."""

    blocks: tuple[Block, ...]
    thinking: tuple[tuple[int, int], ...]


@lru_cache(maxsize=4096)
def read_written(text: str) -> Written:
    """The calls and the thinking of a text. Takes time linear in its length."""
    scan = _Scan(text)
    return Written(tuple(scan.blocks), tuple(scan.thinking))


class _Scan:
    """One walk over a text, from mark to mark."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.blocks: list[Block] = []
        self.thinking: list[tuple[int, int]] = []
        self._fenced_to = self._settled = 0
        self._misread = 0
        self._found: dict[str, int] = {}
        position = 0
        while (mark := _MARK.search(text, position)) is not None:
            position = self._take(mark)

    def _take(self, mark: re.Match[str]) -> int:
        """Read one mark; where to look for the next one."""
        token, end = mark.group(), mark.end()
        if token == OPEN:
            block = self._block(mark.start(), end)
            if block is None:
                return end
            self.blocks.append(block)
            self._settled = block.end
            return block.end
        if token == "```":
            if end > self._fenced_to:
                self._fenced_to = self._find("\n```", end)
            return end
        if end <= self._fenced_to:  # a tag in a program that the model writes is no tag of its own
            return end
        if any(mark[group] for group in ("o1", "o2", "o3")):
            if not self.thinking:
                self.thinking.append((0, end))
                self.blocks.clear()
            return end
        closing = token[0] + "/" + token[1:]
        close = self._find(closing, end)
        if close >= 0:
            self.thinking.append((mark.start(), close + len(closing)))
            return close + len(closing)
        if self._begins_line(mark.start()):
            self.thinking.append((mark.start(), len(self._text)))
            return len(self._text)
        return end

    def _find(self, piece: str, start: int) -> int:
        """`text.find(piece, start)` for starts that only grow: no part of the text is looked through twice."""
        known = self._found.get(piece, 0)
        if known >= 0 and known < max(start, 1):
            known = self._found[piece] = self._text.find(piece, start)
        return known

    def _begins_line(self, at: int) -> bool:
        while at > self._settled and self._text[at - 1] in " \t":
            at -= 1
        return at <= self._settled or self._text[at - 1] == "\n"

    def _block(self, start: int, inside: int) -> Block | None:
        """The call that an opening tag begins, or None where the tag is only mentioned."""
        text, close = self._text, self._find(CLOSE, inside)
        if close < 0:
            return None
        at = _after_space(text, inside)
        if text.startswith("{", at) and self._misread < _MAX_MISREAD:
            try:
                _, end = _DECODER.raw_decode(text, at)
            except (ValueError, RecursionError):
                self._misread += 1
            else:
                end = _after_space(text, end)
                if text.startswith(CLOSE, end):
                    return Block(start, end + len(CLOSE), text[inside:end])
        if text.find(OPEN, inside, close) >= 0:
            return None
        return Block(start, close + len(CLOSE), text[inside:close])


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def spoken(text: str) -> str:
    """The text without its thinking."""
    kept, position = [], 0
    for start, end in read_written(text).thinking:
        kept.append(text[position:start])
        position = end
    return "".join([*kept, text[position:]])


def unpaired_tags(text: str, start: int) -> tuple[int, int]:
    """How many opening and closing tags stand behind `start` outside of thinking."""
    opened = closed = 0
    for piece in _outside(text, start):
        opened += piece.count(OPEN)
        closed += piece.count(CLOSE)
    return opened, closed


def _outside(text: str, start: int) -> Iterator[str]:
    position = start
    for begin, end in read_written(text).thinking:
        if end > position:
            yield text[position : max(position, begin)]
            position = end
    yield text[position:]


def block(body: str) -> str:
    """The block of a call, as models write it behind their words. body: the call as JSON."""
    return f"\n{OPEN}\n{body}\n{CLOSE}"
