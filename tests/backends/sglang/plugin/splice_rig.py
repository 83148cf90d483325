"""A cache in plain Python, and a splicer over it that serves prompts as the scheduler does."""

from __future__ import annotations

from array import array

import torch

from leyline.backends.sglang.plugin.keys import Keyring, Space
from leyline.backends.sglang.plugin.move_counts import Generations
from leyline.backends.sglang.plugin.mover import tokens_of
from leyline.backends.sglang.plugin.ops import Held, Hit
from leyline.backends.sglang.plugin.receipts import make_receipt
from leyline.backends.sglang.plugin.runs import Plan, Refusal, make_plan
from leyline.backends.sglang.plugin.splicer import Splicer
from leyline.backends.sglang.plugin.staging import Room, Staged
from leyline.directives import Receipt

RING = Keyring(b"secret")
SPACE = Space()


class Tree:
    """`TreeOps` as a dict from prefixes of whole pages to the slots of their last page."""

    def __init__(self, slots: int, page: int) -> None:
        self.page = page
        self.size = slots
        self.paths: dict[tuple[int, ...], list[int]] = {}
        self.free = list(range(1, slots + 1))
        self.locks: list[tuple[int, ...]] = []
        self.moved: set[int] = set()
        self.evictable = False
        """Whether room() counts what nobody holds."""

    @property
    def held(self) -> int:
        return len(self.locks)

    def match(self, ids: array[int], limit: int, space: Space) -> Hit:
        found = 0
        while found + self.page <= min(limit, len(ids)) and tuple(ids[: found + self.page]) in self.paths:
            found += self.page
        return Hit(found, tuple(ids[:found]))

    def slots(self, hit: Hit) -> torch.Tensor:
        pages = [self.paths[hit.node[:end]] for end in range(self.page, hit.length + 1, self.page)]
        return torch.tensor([slot for page in pages for slot in page], dtype=torch.int64)

    def hold(self, hit: Hit) -> Held:
        self.locks.append(hit.node)
        return hit.node

    def release(self, held: Held) -> None:
        self.locks.remove(held)

    def room(self) -> int:
        loose = [path for path in self.paths if not any(node[: len(path)] == path for node in self.locks)]
        return len(self.free) + (len(loose) * self.page if self.evictable else 0)

    def reserve(self, tokens: int) -> torch.Tensor | None:
        assert tokens % self.page == 0
        if tokens > len(self.free):
            return None
        taken, self.free = self.free[:tokens], self.free[tokens:]
        self.moved -= set(taken)
        return torch.tensor(taken, dtype=torch.int64)

    def give_back(self, slots: torch.Tensor) -> None:
        self.free += slots.tolist()

    def publish(self, ids: array[int], slots: torch.Tensor, known: int) -> None:
        """Put the path `ids` with its `slots` into the tree; slots of what it holds already are freed."""
        assert len(slots) == len(ids)
        for start in range(known, len(ids), self.page):
            path, page = tuple(ids[: start + self.page]), slots[start : start + self.page].tolist()
            if path in self.paths:
                self.free += page
            else:
                self.paths[path] = page

    def agree(self, ok: bool) -> bool:
        return ok

    def drop_branch(self, ids: array[int], start: int, space: Space) -> bool:
        return True

    def compute(self, ids: array[int], upto: int) -> int:
        """What a prefill of `ids[:upto]` leaves in the tree. Returns how many tokens are there now."""
        hit = self.match(ids, upto, SPACE)
        end = upto // self.page * self.page
        slots = self.reserve(end - hit.length)
        assert slots is not None
        self.publish(ids[:end], torch.cat([self.slots(hit), slots]), hit.length)
        return end

    def evict(self, path: tuple[int, ...]) -> None:
        """Evict a path and all that stands on it."""
        for longer in [other for other in self.paths if other[: len(path)] == path]:
            self.free += self.paths.pop(longer)

    def honest(self) -> bool:
        """Whether no request without a mark could hit a slot whose KV was moved."""
        return not any(self.moved & set(page) for path, page in self.paths.items() if max(path) < 2**31)

    def adds_up(self) -> bool:
        owned = [slot for page in self.paths.values() for slot in page]
        return sorted(owned + self.free) == list(range(1, self.size + 1)) and self.held == 0


class Rig:
    """A splicer over a tree. moves: `(source slots, target slots, old start, new start)` of each moved run."""

    def __init__(self, page: int = 1, slots: int = 4000, limit: int = 32, no_holes: Refusal | None = None) -> None:
        self.tree = Tree(slots, page)
        self.moves: list[tuple[list[int], list[int], int, int]] = []
        self.counts = Generations(slots + 2, "cpu", limit)
        self.splicer = Splicer(self.tree, RING, self.counts, 1_000_000, no_holes)

    def serve(self, prompt: list[int], value: str | None) -> tuple[Plan | None, Receipt | None]:
        """Serve a prompt as the scheduler does: match, stage, forward, and so on where a chunk ends."""
        ids = array("q", prompt)
        if value is None:
            self.tree.compute(ids, len(ids))
            return None, None
        plan = make_plan(value, ids, SPACE, RING, page=self.tree.page, max_tokens=4096)
        return plan, self.finish(plan, ids)

    def finish(self, plan: Plan, ids: array[int], chunk: int = 1_000_000) -> Receipt:
        """Admit a request, for the first time or again, and compute it to its end in chunks of `chunk` tokens."""
        limit, page = len(ids) - 1, self.tree.page
        own = self.tree.match(self.splicer.admit(plan, ids, limit, SPACE), limit, SPACE)
        while True:
            row = self.tree.slots(own)
            staged = self.splicer.stage(plan, ids, own, None, limit, SPACE, Room(chunk - page, 256))
            left = chunk
            if staged is not None:
                row = torch.cat([row, staged.slots])
                self.forward(plan, ids, staged)
                left -= staged.computed
            end = min(len(ids), len(row) + left)
            end = end if end == len(ids) else end // page * page
            done = end // page * page
            slots = self.tree.reserve(max(0, done - len(row)))
            assert slots is not None
            marked = RING.marked(ids, plan.marks)
            self.tree.publish(marked[:done], torch.cat([row, slots])[:done], own.length)
            if end == len(ids):
                return make_receipt(plan, len(ids), RING, SPACE)
            own = self.tree.match(marked, done, SPACE)

    def forward(self, plan: Plan, ids: array[int], staged: Staged) -> None:
        """Admit what is staged, and move it."""
        self.splicer.commit(plan, ids, staged)
        for run, start, end in staged.moves:
            old = start - run.shift
            source = staged.source[old : old + end - start].tolist()
            target = staged.slots[start - staged.start : end - staged.start].tolist()
            self.moves.append((source, target, old, start))
            self.tree.moved |= set(target)
        tokens = tokens_of(staged)
        assert tokens.source.tolist() == [slot for move in self.moves[-len(staged.moves) :] for slot in move[0]]
        assert tokens.target.tolist() == [slot for move in self.moves[-len(staged.moves) :] for slot in move[1]]
        self.counts.reset(staged.slots)
        self.counts.moved(tokens.source, tokens.target, tokens.old < staged.honest)
        self.splicer.release(staged)
