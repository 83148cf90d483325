"""Looking a prompt up in the flat radix cache of SGLang 0.5.16, in one pass over its tokens.

The cache's own look-up copies the rest of the key at every node, and joins the slots it found on the device. A request
with edits is looked up several times, most of them only for how far the cache reaches.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, MutableMapping
from typing import Protocol, TypeVar

from leyline.directives.common import common_prefix


class Key(Protocol):
    """A node's part of the path."""

    token_ids: array[int]


class Node(Protocol):
    """A node of the tree: `children` by their first token, or first page as a tuple, with the tenant's key if any."""

    key: Key
    children: MutableMapping[object, Node]
    last_access_time: float


N = TypeVar("N", bound=Node)


def find(
    root: N, ids: array[int], end: int, page: int, extra_key: str | None, split: Callable[[N, int], N]
) -> tuple[int, N]:
    """How many of `ids[:end]`, in whole pages, the tree holds, and the node where they end.

    Nodes on the way count as used. split: parts a node behind so many tokens, and returns the first part.
    """
    end = end // page * page
    now, node, at = time.monotonic(), root, 0
    if end:
        node.last_access_time = now
    while at < end:
        first: object = ids[at] if page == 1 else tuple(ids[at : at + page])
        child = node.children.get(first if extra_key is None else (extra_key, first))
        if child is None:
            break
        child.last_access_time = now
        held = child.key.token_ids
        part = ids[at : min(at + len(held), end)]
        if part != held:
            shared = common_prefix(part, held) // page * page
            return at + shared, split(child, shared)  # type: ignore[arg-type]
        node, at = child, at + len(held)  # type: ignore[assignment]
    return at, node
