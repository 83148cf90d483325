"""From a plan to moves: the heart of the plugin, free of any SGLang version.

The tree holds the source (what the server computed before). The prompt shares its beginning; behind the first edit the
tree has nothing. When a request is admitted, slots of its own are reserved for all that can be moved and for the holes
between, and its prefix is declared to reach to their end. Nothing goes into the tree before the forward: the request's
ordinary checkpoint publishes its row under its marks, and an abort frees it.
"""

from __future__ import annotations

import logging
import time
from array import array
from dataclasses import replace

import torch

from leyline.backends.sglang.plugin.auto import Auto
from leyline.backends.sglang.plugin.keys import Keyring, Mark, Space
from leyline.backends.sglang.plugin.move_counts import Generations
from leyline.backends.sglang.plugin.ops import Hit, TreeOps
from leyline.backends.sglang.plugin.receipts import missing_donor
from leyline.backends.sglang.plugin.runs import Donor, Plan, Refusal
from leyline.backends.sglang.plugin.staging import Move, Room, Staged, fit, gaps, movable
from leyline.directives import Costs, Fallback, Splice

log = logging.getLogger("leyline")


class Splicer:
    """Plans one rank's moves. Every decision depends only on the tree and the request, so all ranks decide alike."""

    def __init__(
        self,
        ops: TreeOps,
        keyring: Keyring,
        generations: Generations,
        positions: int,
        no_holes: Refusal | None = None,
        auto: Auto | None = None,
    ) -> None:
        """positions: what the model's RoPE table covers. no_holes: why this server computes no hole beside a tail.
        auto: chooses where a directive is AUTO.
        """
        self._ops = ops
        self.keyring = keyring
        self._generations = generations
        self._positions = positions
        self._no_holes = no_holes
        self.auto = auto or Auto(Costs())

    def admit(self, plan: Plan, ids: array[int], limit: int, space: Space) -> array[int]:
        """Before a request is scheduled: find its path and its donor. Returns the key to match.

        ids: the prompt (and, after a retraction, what was generated). limit: how many of them may be matched.
        """
        ops = self._ops
        plan.start_over()
        if plan.purge_from is not None:
            self._purge(plan, space)
        plan.donor = self._donor(plan, space)
        plan.reach = plan.donor.length
        hit = self._path(plan, ids, limit, space)
        plan.kept = gaps(0, hit.length, ((splice.start, splice.end) for splice in plan.splices))
        if plan.runs and not plan.closed:
            if limit < len(ids) - 1 and plan.runs[-1].start >= limit:
                said = f"logprobs of the prompt are asked for from token {limit} on: nothing behind it is reused"
                plan.refuse(Fallback.UNSUPPORTED_FEATURE, said)
            self._explain(plan, hit.length)
        nothing_kept = bool(plan.marks) and not plan.splices and hit.length <= plan.marks[0].position
        if nothing_kept and not plan.potential(hit.length, ops.page):
            # Nothing approximate is left of the lineage: what is computed now is honest and belongs to everyone.
            plan.marks = ()
            plan.kept = gaps(0, ops.match(ids, limit, space).length, ())
        return self.keyring.marked(ids, plan.marks)

    def stage(
        self, plan: Plan, ids: array[int], own: Hit, donor: Donor | None, limit: int, space: Space, room: Room
    ) -> Staged | None:
        """Slots for all that can be moved behind the request's own path, and for the holes before it. None: nothing.

        own: what the request holds, in whole pages. donor: what `admit` found, if nothing happened since.
        """
        ops, position = self._ops, own.length
        donor = donor or self._donor(plan, space)
        reach, limit = min(donor.length, self._positions), min(limit, self._positions)
        found = movable(plan.open_runs(), position, reach, limit, ops.page)
        if found and plan.script.chooses and plan.choice is None:
            found = self.auto.choose(plan, found, position, len(ids), max(0, self.auto.costs.chunk - room.tokens))
        if self._no_holes is not None:
            room = Room(0, room.holes)
        if not found or not (moves := fit(found, position, room)):
            return None
        began = time.perf_counter()
        held = [ops.hold(own), ops.hold(donor.hit)]
        try:
            source = ops.slots(donor.hit)
            if len(source) != donor.length:
                raise RuntimeError(f"the donor has {len(source)} slots for {donor.length} tokens")
            kept, bound = self._bounds(plan, ids, own, donor)
            if max(kept, bound) >= self._generations.limit:
                first = plan.marks[0].position if plan.marks else position
                kept = self._generations.most(ops.slots(own)[first:])
                found, bound = self._sparing(plan, found, source, donor)
                moves = fit(found, position, room)
            marks = plan.marks or (Mark(moves[0].start, plan.name),) if moves else ()
            if not moves or moves[0].start < marks[0].position:
                return None
            end = moves[-1].end
            slots = ops.reserve(end - position) if end - position <= ops.room() else None
            if slots is None:
                plan.refuse(Fallback.NO_SLOTS, f"{ops.room()} slots could be freed for {end - position} tokens")
                return None
            staged = Staged(position, end, slots, source, donor.honest, moves, marks, held, max(kept, bound + 1))
            staged.seconds = time.perf_counter() - began
            held = []
            return staged
        finally:
            for handle in held:
                ops.release(handle)

    def unstage(self, staged: Staged) -> None:
        """The request was not admitted."""
        self._ops.give_back(staged.slots)
        self.release(staged)

    def commit(self, plan: Plan, ids: array[int], staged: Staged) -> None:
        """The request was admitted: its next forward moves and computes what is staged."""
        seconds = round(staged.seconds / len(staged.moves), 6)
        plan.splices += [Splice(start, end, run.shift, seconds) for run, start, end in staged.moves]
        plan.marks = staged.marks
        self._generations.bounds.note(staged.marks[0].name, ids, staged.end, staged.bound)

    def release(self, staged: Staged) -> None:
        """The move was launched, or will not be: its donor may be evicted."""
        for handle in staged.held:
            self._ops.release(handle)
        staged.held = []

    def fresh(self, slots: torch.Tensor) -> None:
        """Note that the KV in `slots` was computed, not moved."""
        self._generations.reset(slots)

    def _donor(self, plan: Plan, space: Space) -> Donor:
        """The longer of the honest source path and the lineage's."""
        if not plan.runs or plan.closed:
            return Donor(Hit(0, None), 0)
        need = len(plan.source)
        honest = self._ops.match(plan.source, need, space)
        if honest.length < need // self._ops.page * self._ops.page and plan.donor_marks:
            own = self._ops.match(self.keyring.marked(plan.source, plan.donor_marks), need, space)
            if own.length > honest.length:
                return Donor(own, plan.donor_marks[0].position)
        return Donor(honest, honest.length)

    def _path(self, plan: Plan, ids: array[int], limit: int, space: Space) -> Hit:
        """What the cache holds of the prompt: under its marks, or honestly, or under an equal request's mark."""
        plain = None
        if plan.marks:
            own = self._ops.match(self.keyring.marked(ids, plan.marks), limit, space)
            self._drop_evicted(plan, own.length)
            if plan.marks and not plan.splices:
                plain = self._prefer_honest(plan, ids, limit, space, own.length)
            if plan.marks:
                return own
        hit = plain or self._ops.match(ids, limit, space)
        if plan.closed or not plan.runs:
            return hit
        for position in dict.fromkeys((plan.runs[0].start, hit.length)):
            if position > hit.length or not any(run.start <= position < run.end for run in plan.open_runs()):
                continue
            marks = (Mark(position, plan.name),)
            twin = self._ops.match(self.keyring.marked(ids, marks), limit, space)
            if twin.length > hit.length:
                plan.marks = marks
                return twin
        return hit

    def _drop_evicted(self, plan: Plan, held: int) -> None:
        """Forget what an earlier admission moved, and the cache holds no longer: it may be moved anew.

        With it goes the request's own mark, where nothing behind it is left. The next move may start before it, and
        would be published under keys that the mark does not cover, which every request can hit.
        """
        plan.splices = [replace(s, end=min(s.end, held)) for s in plan.splices if s.start < held]
        if plan.marks[0].name == plan.name and held <= plan.marks[0].position:
            plan.marks = ()

    def _prefer_honest(self, plan: Plan, ids: array[int], limit: int, space: Space, own: int) -> Hit | None:
        """Leave the lineage where honest KV reaches as far as its `own` tokens and its donors could."""
        plain = self._ops.match(ids, limit, space)
        if plain.length <= plan.marks[0].position or plain.length < own + plan.potential(own, self._ops.page):
            return None
        plan.marks = ()
        return plain

    def _bounds(self, plan: Plan, ids: array[int], own: Hit, donor: Donor) -> tuple[int, int]:
        """How often a token of the request's own path, and of its donor, was moved at most."""
        known, bound = self._generations.bounds, 0
        if donor.honest < donor.length:
            bound = known.of(plan.donor_marks[0].name, plan.source)
        if not plan.marks or own.length <= plan.marks[0].position:
            return 0, bound
        # Up to the first edit both paths are one.
        shared = plan.script and own.length <= plan.script.directives[0].start
        return bound if shared else known.of(plan.marks[0].name, ids), bound

    def _sparing(self, plan: Plan, found: list[Move], source: torch.Tensor, donor: Donor) -> tuple[list[Move], int]:
        """`found` without what was moved too often, and the most moves among the rest."""
        allowed, most = self._generations.allowed(found, source, donor.honest)
        kept = []
        for before, (run, start, end) in zip(found, allowed, strict=True):
            end = end // self._ops.page * self._ops.page
            if end < before.end:
                plan.refuse(Fallback.GENERATION_LIMIT, f"token {end} was moved {self._generations.limit} times")
            if end > start:
                kept.append(Move(run, start, end))
            else:
                plan.skipped.add(run)
        return kept, most

    def _explain(self, plan: Plan, length: int) -> None:
        """Say which runs cannot be moved. Not the last one, unless it is the only one: it may be new text."""
        page = self._ops.page
        lacking = [run for run in plan.runs if plan.usable_end(run, page) <= run.start and length <= run.start]
        if len(lacking) == len(plan.runs):
            plan.give_up(*missing_donor(plan))
        elif lacking[:-1] or (lacking and lacking[-1] is not plan.runs[-1]):
            plan.refuse(*missing_donor(plan))
        if self._no_holes is None:
            return
        found = movable(plan.open_runs(), length, plan.reach, plan.runs[-1].end, page)
        if len(fit(found, length, Room(0, len(found)))) < len(found):
            plan.refuse(*self._no_holes)

    def _purge(self, plan: Plan, space: Space) -> None:
        """Evict what was computed behind the forgotten span, in both forms of the source's path."""
        start, plan.purge_from = plan.purge_from or 0, None
        done, plan.purged = True, 0
        paths = [plan.source]
        if plan.donor_marks:
            paths.append(self.keyring.marked(plan.source, plan.donor_marks))
        for path in paths:
            held = self._ops.match(path, len(path), space).length
            done &= self._ops.drop_branch(path, start, space)
            plan.purged += held - self._ops.match(path, len(path), space).length
        if not done and plan.detail is None:
            plan.detail = "purge: part of the old branch is in use by other requests and was left to eviction"
