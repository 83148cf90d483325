"""Growing the cache tree along an edited prompt: the heart of the plugin, free of any SGLang version.

The tree holds the source (what the server computed before). The prompt shares its beginning; behind the first edit the
tree has nothing. Growing walks the prompt: where a run's source is cached, its KV is copied to new slots, rotated, and
published under the prompt's marked path. Afterwards the scheduler's ordinary prefix match finds it.
"""

from __future__ import annotations

import logging
import time
from array import array
from collections.abc import Callable
from dataclasses import replace

import torch

from leyline.backends.sglang.plugin.keys import Keyring, Mark, Space
from leyline.backends.sglang.plugin.move_counts import Generations
from leyline.backends.sglang.plugin.ops import Hit, TreeOps
from leyline.backends.sglang.plugin.receipts import missing_donor
from leyline.backends.sglang.plugin.runs import Plan, Run
from leyline.directives import Fallback, Splice

log = logging.getLogger("leyline")

MAX_ATTEMPTS = 3
"""Admissions for which one request may take slots anew: a full pool could evict each time what was just moved."""

Move = Callable[[torch.Tensor, torch.Tensor, int, int], None]


class Splicer:
    """Grows one rank's tree. Every decision depends only on the tree and the request, so all ranks decide alike."""

    def __init__(self, ops: TreeOps, keyring: Keyring, move: Move, generations: Generations, chunked: bool) -> None:
        """chunked: whether prefill can stop in the middle of a prompt (chunked prefill is on)."""
        self._ops = ops
        self.keyring = keyring
        self._move = move
        self._generations = generations
        self._chunked = chunked

    def admit(self, plan: Plan, ids: array[int], limit: int, space: Space) -> array[int]:
        """Before a request is scheduled: grow as far as possible without computing. Returns the key to match.

        ids: the prompt (and, after a retraction, what was generated). limit: how many of them may be matched.
        """
        ops = self._ops
        plan.start_over()
        plan.reach = self._reach(plan, space)
        if plan.purge_from is not None:
            self._purge(plan, space)
        moved_to = plan.splices[-1].end if plan.splices else 0
        held = self._drop_evicted(plan, ids, limit, space)
        if plan.marks and not plan.splices:
            self._prefer_honest(plan, ids, limit, space, held)
        before = len(plan.splices)
        hit = self._grow(plan, ids, limit, space)
        plan.kept = _gaps(hit.length, plan.splices)
        if plan.runs and not plan.closed:
            if limit < len(ids) - 1 and plan.runs[-1].start >= limit:
                said = f"logprobs of the prompt are asked for from token {limit} on: nothing behind it is reused"
                plan.refuse(Fallback.UNSUPPORTED_FEATURE, said)
            self._explain(plan, hit.length)
        if len(plan.splices) > before:
            plan.attempts += 1
            if plan.attempts == MAX_ATTEMPTS:
                if plan.next_cut(hit.length, ops.page) is not None:
                    plan.refuse(
                        Fallback.NO_SLOTS, f"slots were taken {MAX_ATTEMPTS} times before the request was scheduled"
                    )
                plan.closed = True
        if plan.closed and hit.length < moved_to:
            plan.refuse(
                Fallback.NO_SLOTS, f"moved KV was evicted {MAX_ATTEMPTS} times before the request was scheduled"
            )
        nothing_kept = bool(plan.marks) and not plan.splices and hit.length <= plan.marks[0].position
        if nothing_kept and plan.next_cut(hit.length, ops.page) is None:
            # Nothing approximate is left of the lineage: what is computed now is honest and belongs to everyone.
            plan.marks = ()
            plan.kept = _gaps(ops.match(ids, limit, space).length, [])
        return self.keyring.marked(ids, plan.marks)

    def advance(self, plan: Plan, ids: array[int], computed: int, limit: int, space: Space) -> Hit | None:
        """At a chunk's end, with `[0, computed)` in the tree: the longer hit, or None when nothing could be moved."""
        if plan.run_at(computed) is None:
            return None
        before = len(plan.splices)
        hit = self._grow(plan, ids, limit, space, computed)
        if hit.length <= computed:
            return None
        plan.kept += [(max(a, computed), b) for a, b in _gaps(hit.length, plan.splices[before:]) if b > computed]
        return hit

    def slots(self, hit: Hit) -> torch.Tensor:
        """The KV slots of a hit, `(length,)` int64 on the device."""
        return self._ops.slots(hit)

    def fresh(self, slots: torch.Tensor) -> None:
        """Note that the KV in `slots` was computed, not moved."""
        self._generations.reset(slots)

    def _reach(self, plan: Plan, space: Space) -> int:
        """How many tokens of the source are cached, honestly or in the request's own lineage."""
        if not plan.runs or plan.closed:
            return 0
        length = len(plan.source)
        reach = self._ops.match(plan.source, length, space).length
        if plan.donor_marks:
            marked = self.keyring.marked(plan.source, plan.donor_marks)
            reach = max(reach, self._ops.match(marked, length, space).length)
        return reach

    def _drop_evicted(self, plan: Plan, ids: array[int], limit: int, space: Space) -> int:
        """Forget what an earlier admission moved or found moved, and the cache holds no longer: it may be moved anew.

        With it goes the request's own mark, where nothing behind it is left. The next move may start before it, and
        would be published under keys that the mark does not cover, which every request can hit. Returns how many tokens
        of the marked path are held, 0 without marks.
        """
        if not plan.marks:
            return 0
        held = self._ops.match(self.keyring.marked(ids, plan.marks), limit, space).length
        plan.splices = [replace(s, end=min(s.end, held)) for s in plan.splices if s.start < held]
        if plan.marks[0].name == plan.name and held <= plan.marks[0].position:
            plan.marks = ()
        return held

    def _prefer_honest(self, plan: Plan, ids: array[int], limit: int, space: Space, own: int) -> None:
        """Leave the lineage where honest KV reaches as far as its `own` tokens and its donors could."""
        plain = self._ops.match(ids, limit, space).length
        if plain <= plan.marks[0].position:
            return
        if plain >= own + plan.potential(own, self._ops.page):
            plan.marks = ()

    def _grow(self, plan: Plan, ids: array[int], limit: int, space: Space, held: int = 0) -> Hit:
        """held: tokens whose path the request already holds, and must not leave: other slots are not locked for it."""
        hit = self._resume(plan, ids, limit, space, held)
        while (run := plan.run_at(hit.length)) is not None:
            if not self._splice(plan, run, ids, hit, limit, space):
                break
            hit = self._ops.match(self.keyring.marked(ids, plan.marks), limit, space)
        return hit

    def _resume(self, plan: Plan, ids: array[int], limit: int, space: Space, held: int) -> Hit:
        """The prompt's own path; without marks, also the path that an equal request may have left."""
        hit = self._ops.match(self.keyring.marked(ids, plan.marks), limit, space)
        if plan.marks or plan.closed or not plan.runs:
            return hit
        for position in (plan.runs[0].start, hit.length):
            if plan.run_at(position) is None or not held <= position <= hit.length:
                continue
            marks = (Mark(position, plan.name),)
            twin = self._ops.match(self.keyring.marked(ids, marks), limit, space)
            if twin.length > hit.length:
                plan.marks = marks
                return twin
        return self._ops.match(ids, limit, space)

    def _donor(self, plan: Plan, need: int, space: Space) -> tuple[Hit, int]:
        """The longer of the honest source path and the lineage's, up to `need` tokens, and how much of it is honest."""
        honest = self._ops.match(plan.source, need, space)
        if honest.length < need and plan.donor_marks:
            own = self._ops.match(self.keyring.marked(plan.source, plan.donor_marks), need, space)
            if own.length > honest.length:
                return own, plan.donor_marks[0].position
        return honest, honest.length

    def _splice(self, plan: Plan, run: Run, ids: array[int], hit: Hit, limit: int, space: Space) -> bool:
        """Move the KV of `[hit.length, ...)` in `run`. Returns whether the tree grew."""
        ops, start = self._ops, hit.length
        page = ops.page
        end = min(run.end, limit) // page * page
        if end <= start or start % page:
            return False
        if len(ids) - start > ops.room():
            plan.refuse(Fallback.NO_SLOTS, f"{ops.room()} slots could be freed for the {len(ids) - start} tokens left")
            return False
        donor, honest = self._donor(plan, -(-(end - run.shift) // page) * page, space)
        end = min(end, donor.length + run.shift) // page * page
        if end <= start:
            return False
        # The donor's walk may have split nodes of the prompt's path: look both up again before holding them.
        marks = plan.marks or (Mark(start, plan.name),)
        if start < marks[0].position:
            log.error("token %d would be moved to before its mark at %d", start, marks[0].position)
            plan.give_up(Fallback.INTERNAL_ERROR, f"token {start} would be moved to before its mark")
            return False
        hit = ops.match(self.keyring.marked(ids, plan.marks), limit, space)
        held = [ops.hold(hit), ops.hold(donor)]
        try:
            donor_slots = ops.slots(donor)[start - run.shift : end - run.shift]
            honest = max(0, honest - (start - run.shift))
            end = start + self._generations.allowed(donor_slots, honest) // page * page
            if end <= start:
                plan.skip(run, Fallback.GENERATION_LIMIT, f"token {start} was moved {self._generations.limit} times")
                return False
            donor_slots = donor_slots[: end - start]
            slots = ops.reserve(end - start)
            if slots is None:
                plan.give_up(Fallback.NO_SLOTS, f"no room for the {end - start} tokens from {start} on")
                return False
            began = time.perf_counter()
            try:
                if not ops.agree(self._moved(donor_slots, slots, start - run.shift, start)):
                    raise RuntimeError("the copy failed on a rank")
                self._generations.moved(donor_slots, slots, honest)
                path = self.keyring.marked(ids[:end], marks)
                ops.publish(path, torch.cat([ops.slots(hit)[:start], slots]), start, space)
            except Exception:
                ops.give_back(slots)
                log.exception("moving %d tokens failed", end - start)
                plan.give_up(Fallback.INTERNAL_ERROR, f"moving the {end - start} tokens from {start} on failed")
                return False
        finally:
            for handle in held:
                ops.release(handle)
        plan.marks = marks
        plan.splices.append(Splice(start, end, run.shift, round(time.perf_counter() - began, 6)))
        return True

    def _moved(self, source: torch.Tensor, target: torch.Tensor, old: int, new: int) -> bool:
        try:
            self._move(source, target, old, new)
        except Exception:
            log.exception("copying KV failed")
            return False
        return True

    def _explain(self, plan: Plan, length: int) -> None:
        """Say which runs cannot be moved. Not the last one, unless it is the only one: it may be new text."""
        page = self._ops.page
        lacking = [run for run in plan.runs if plan.usable_end(run, page) <= run.start and length <= run.start]
        if len(lacking) == len(plan.runs):
            plan.give_up(*missing_donor(plan))
        elif lacking[:-1] or (lacking and lacking[-1] is not plan.runs[-1]):
            plan.refuse(*missing_donor(plan))
        if not self._chunked and plan.next_cut(length, page) is not None:
            plan.give_up(Fallback.UNSUPPORTED_FEATURE, "a replacement or a seam needs chunked prefill, which is off")

    def _purge(self, plan: Plan, space: Space) -> None:
        """Evict what was computed behind the forgotten span, in both forms of the source's path."""
        start, plan.purge_from = plan.purge_from or 0, None
        done = self._ops.drop_branch(plan.source, start, space)
        if plan.donor_marks:
            done &= self._ops.drop_branch(self.keyring.marked(plan.source, plan.donor_marks), start, space)
        if not done and plan.detail is None:
            plan.detail = "purge: part of the old branch is in use by other requests and was left to eviction"


def _gaps(length: int, splices: list[Splice]) -> list[tuple[int, int]]:
    """`[0, length)` without the splices."""
    gaps, position = [], 0
    for splice in sorted(splices, key=lambda s: s.start):
        if splice.start > position:
            gaps.append((position, splice.start))
        position = max(position, splice.end)
    if length > position:
        gaps.append((position, length))
    return gaps
