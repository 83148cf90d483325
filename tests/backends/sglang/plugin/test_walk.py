"""The look-up in the flat cache's tree, against the longest common prefix by hand."""

from __future__ import annotations

import random
from array import array
from types import SimpleNamespace
from typing import Any

import pytest

from leyline.backends.sglang.plugin.walk import find


class Tree:
    """Nodes as SGLang 0.5.16 lays them out, without slots."""

    def __init__(self, page: int) -> None:
        self.page, self.held = page, {None: [array("q")], "tenant": [array("q")]}
        self.root = self.node(array("q"), None)

    @staticmethod
    def node(ids: array[int], parent: Any) -> Any:
        return SimpleNamespace(
            key=SimpleNamespace(token_ids=ids), children={}, parent=parent, last_access_time=0.0, lower=None
        )

    def child(self, ids: array[int], extra_key: str | None) -> object:
        first: object = ids[0] if self.page == 1 else tuple(ids[: self.page])
        return first if extra_key is None else (extra_key, first)

    def split(self, node: Any, length: int) -> Any:
        assert 0 < length < len(node.key.token_ids)
        assert length % self.page == 0
        ids = node.key.token_ids
        name = next(name for name, child in node.parent.children.items() if child is node)
        upper = self.node(ids[:length], node.parent)
        upper.last_access_time = node.last_access_time
        node.parent.children[name] = upper
        node.key.token_ids, node.parent = ids[length:], upper
        upper.children[self.child(ids[length:], name[0] if type(name) is tuple and type(name[0]) is str else None)] = (
            node
        )
        return upper

    def insert(self, ids: array[int], extra_key: str | None) -> None:
        ids = ids[: len(ids) // self.page * self.page]
        at, node = self.look(ids, len(ids), extra_key)
        if at < len(ids):
            node.children[self.child(ids[at:], extra_key)] = self.node(ids[at:], node)
        self.held[extra_key].append(ids)

    def look(self, ids: array[int], end: int, extra_key: str | None) -> tuple[int, Any]:
        return find(self.root, ids, end, self.page, extra_key, self.split)

    def longest(self, ids: array[int], end: int, extra_key: str | None) -> int:
        def shared(held: array[int]) -> int:
            pairs = zip(held, ids[:end], strict=False)
            return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(held), end))

        return max(map(shared, self.held[extra_key])) // self.page * self.page


@pytest.mark.parametrize("page", [1, 4])
@pytest.mark.parametrize("seed", range(20))
def test_it_finds_the_longest_prefix_and_ends_on_a_node(page: int, seed: int) -> None:
    rng, tree, seen = random.Random(seed), Tree(page), [array("q", [1])]
    for _ in range(40):
        ids = rng.choice(seen)[: rng.randrange(50)] + array(
            "q", [rng.randrange(3) for _ in range(rng.randrange(1, 50))]
        )
        extra_key = rng.choice([None, "tenant"])
        seen.append(ids)
        if rng.random() < 0.4:
            tree.insert(ids, extra_key)
            continue
        end = rng.randrange(len(ids) + 1)
        length, node = tree.look(ids, end, extra_key)
        assert length == tree.longest(ids, end, extra_key)
        path = array("q")
        assert node is tree.root or node.last_access_time > 0
        while node is not tree.root:
            path, node = node.key.token_ids + path, node.parent
        assert path == ids[:length]
