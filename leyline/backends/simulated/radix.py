"""A radix prefix cache over token ids, as a serving engine keeps one, without the engine.

The tree matches, splits, inserts and evicts as SGLang's `RadixCache` does (longest prefix in whole pages; least
recently used leaves go first, whole leaves at a time), so that its hit counts are the server's to the token. It holds
keys only: no KV. Keys are int64 in `bytes`, which makes comparing a long prompt a few `memcmp` calls.
"""

from __future__ import annotations

import hashlib
import heapq
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from leyline.directives import LeylineError
from leyline.directives.common import common_prefix
from leyline.directives.counts import count

WIDTH = 8  # bytes of one token in a key


class RadixError(LeylineError, ValueError):
    """A size that no cache can have. The message names it."""


def key_of(ids: Sequence[int]) -> bytes:
    """The key of a token sequence: `(len(ids),)` int64 in native byte order."""
    return array("q", ids).tobytes()


def marked_key(ids: Sequence[int], lineage: str | None, start: int | None) -> bytes:
    """The key of a sequence whose KV is approximate from token `start` on, private to `lineage` from there.

    One token of the key is replaced, so everything below it is out of reach of other requests.
    """
    return mark(key_of(ids), lineage, start)


def mark(key: bytes, lineage: str | None, start: int | None) -> bytes:
    """`marked_key` of a plain key."""
    if lineage is None or start is None or start * WIDTH >= len(key):
        return key
    place = slice(start * WIDTH, (start + 1) * WIDTH)
    token = int.from_bytes(key[place], sys.byteorder)
    digest = hashlib.blake2b(f"{lineage}/{start}/{token}".encode(), digest_size=8).digest()
    marked = 1 << 62 | int.from_bytes(digest, "little") >> 2
    return key[: place.start] + marked.to_bytes(WIDTH, sys.byteorder) + key[place.stop :]


@dataclass(eq=False)
class _Node:
    key: bytes
    parent: _Node | None
    used: int
    locks: int = 0
    children: dict[bytes, _Node] = field(default_factory=dict)


class RadixCache:
    """The tree. Sizes are in tokens.

    page_size: prefixes match in whole pages. capacity: KV slots; None never evicts.
    """

    def __init__(self, *, page_size: int = 1, capacity: int | None = None) -> None:
        if page_size < 1:
            raise RadixError(f"page_size must be at least 1, got {page_size}")
        if capacity is not None and capacity < page_size:
            raise RadixError(f"capacity ({count(capacity, 'token')}) must hold at least one page ({page_size})")
        self.page_size = page_size
        self.capacity = capacity
        self.evicted = 0
        self._page = page_size * WIDTH
        self._clock = 0
        self._size = 0
        self._root = _Node(b"", None, 0)

    @property
    def size(self) -> int:
        """Tokens held."""
        return self._size

    def match(self, key: bytes) -> int:
        """Tokens of the longest cached prefix, in whole pages. Marks the path as used and may split a node."""
        return self._walk(key)[0]

    def insert(self, key: bytes) -> int:
        """Hold `key`, cut to whole pages; returns how many of its tokens were held before. Does not evict."""
        key = key[: len(key) // self._page * self._page]
        matched, node = self._walk(key)
        rest = key[matched * WIDTH :]
        if rest:
            node.children[rest[: self._page]] = _Node(rest, node, self._tick())
            self._size += len(rest) // WIDTH
        return matched

    def make_room(self, needed: int, *, keep: bytes = b"") -> int:
        """Evict until `needed` slots are free; the cached prefix of `keep` stays. Returns the slots that are free."""
        if self.capacity is None:
            return needed
        self._free(-(-needed // self.page_size) * self.page_size, 0, keep)
        return self.capacity - self._size

    def hold(self, key: bytes, prompt: int, *, chunk: int | None = None) -> bool:
        """Hold `key` as a server does that computes the first `prompt` tokens and decodes the rest. Evicts.

        The prompt enters the tree after each `chunk` tokens of prefill (None: at once), and each time room is made for
        what comes next only; so leaves are no longer than a chunk, which decides what an eviction takes. A server with
        pages asks for one page more than it needs. False, with less held, where there is no room.
        """
        start, spare = self.match(key[: prompt * WIDTH]), self.page_size if self.page_size > 1 else 0
        while start < prompt:
            stop = prompt if chunk is None else min(prompt, start + chunk)
            if not self._free(stop - start, spare, key[: start * WIDTH]):
                return False
            self.insert(key[: stop * WIDTH])
            start = stop
        end = len(key) // WIDTH
        if end > prompt:
            begun = prompt // self.page_size * self.page_size
            if not self._free(end - begun, spare, key[: prompt * WIDTH]):
                return False
            self.insert(key)
        return True

    def purge(self, key: bytes, start: int, *, keep: bytes) -> int:
        """Drop what is held of `key` from token `start` on, and all that stands below it; the path of `keep` stays.

        A page that `start` lies within goes whole. Returns the tokens dropped.
        """
        cut = start // self.page_size * self._page
        kept = self._path(self._walk(keep)[1])
        matched, node = self._walk(key[:cut])
        child = node.children.get(key[cut : cut + self._page]) if matched * WIDTH == cut else None
        before = self._size
        if child is not None:
            self._drop(child, kept | self._path(node))
        return before - self._size

    def _drop(self, top: _Node, kept: set[_Node]) -> None:
        stack, order = [top], []
        while stack:
            node = stack.pop()
            order.append(node)
            stack.extend(node.children.values())
        for node in reversed(order):  # children before their parents
            if not node.children and node not in kept and not node.locks and node.parent is not None:
                del node.parent.children[node.key[: self._page]]
                self._size -= len(node.key) // WIDTH

    def _path(self, node: _Node) -> set[_Node]:
        found = set()
        step: _Node | None = node
        while step is not None:
            found.add(step)
            step = step.parent
        return found

    def check(self) -> None:
        """Raise RadixError if the tree is not one: for tests."""
        total = 0
        stack = [self._root]
        while stack:
            node = stack.pop()
            total += len(node.key) // WIDTH
            for first, child in node.children.items():
                if child.parent is not node or not child.key or child.key[: self._page] != first:
                    raise RadixError("a child does not hang where its key says")
                if len(child.key) % self._page or child.locks:
                    raise RadixError("a node holds a broken page or a forgotten lock")
                stack.append(child)
        if total != self._size or (self.capacity is not None and total > self.capacity):
            raise RadixError(f"the tree holds {total} tokens, the counter says {self._size}")

    def _free(self, tokens: int, spare: int, keep: bytes) -> bool:
        """Evict until `tokens + spare` slots are free, or nothing is left to evict; whether whole pages fit then."""
        if self.capacity is None:
            return True
        short = tokens + spare - (self.capacity - self._size)
        if short > 0:
            _, node = self._walk(keep)
            self._lock(node, 1)
            self._evict(short)
            self._lock(node, -1)
        return -(-tokens // self.page_size) * self.page_size <= self.capacity - self._size

    def _walk(self, key: bytes) -> tuple[int, _Node]:
        node, matched, page = self._root, 0, self._page
        node.used = self._tick()
        end = len(key) // page * page
        while matched < end:
            child = node.children.get(key[matched : matched + page])
            if child is None:
                break
            child.used = self._tick()
            same = min(common_prefix(child.key, key, 0, matched), end - matched) // page * page
            if same < len(child.key):
                child = self._split(child, same)
            matched += same
            node = child
            if same < len(child.key):
                break
        return matched // WIDTH, node

    def _split(self, child: _Node, at: int) -> _Node:
        parent = child.parent
        if parent is None:
            raise RadixError("the root cannot be split")
        upper = _Node(child.key[:at], parent, child.used, child.locks)
        upper.children[child.key[at : at + self._page]] = child
        parent.children[child.key[: self._page]] = upper
        child.key, child.parent = child.key[at:], upper
        return upper

    def _evict(self, tokens: int) -> None:
        """Drop least recently used leaves, whole ones, until `tokens` are gone or nothing unlocked is left."""
        heap: list[tuple[int, int, _Node]] = []
        stack = [self._root]
        while stack:
            node = stack.pop()
            stack.extend(node.children.values())
            if not node.children and not node.locks and node.parent is not None:
                heap.append((node.used, id(node), node))
        heapq.heapify(heap)
        gone = 0
        while heap and gone < tokens:
            _, _, node = heapq.heappop(heap)
            parent = node.parent
            if parent is None:
                break
            del parent.children[node.key[: self._page]]
            gone += len(node.key) // WIDTH
            if not parent.children and not parent.locks and parent.parent is not None:
                heapq.heappush(heap, (parent.used, id(parent), parent))
        self._size -= gone
        self.evicted += gone

    def _lock(self, node: _Node, by: int) -> None:
        step: _Node | None = node
        while step is not None:
            step.locks += by
            step = step.parent

    def _tick(self) -> int:
        self._clock += 1
        return self._clock
