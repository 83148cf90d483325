"""Hooks on the prefill scheduler: a request with directives is admitted as one with a long prefix and a short tail.

What can be moved, and the holes between, get slots of the request's own before the scheduler looks at it. Its prefix
is declared to reach to their end; where its tree path ends (`cache_protected_len`) stays as it was, so that its
checkpoint publishes them and an abort frees them. Holes take their share of the pass's token budget. A request that is
not admitted gives its slots back.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from leyline.backends.sglang.plugin.cache import Controller
from leyline.backends.sglang.plugin.ops import Hit
from leyline.backends.sglang.plugin.staging import MAX_HOLES, Room, Staged

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import Req
    from sglang.srt.managers.schedule_policy import PrefillAdder


_HOLES = "_leyline_holes"
"""On a PrefillAdder: pieces that the requests of its pass compute beside their tails."""

_HITS = ("log_hit_tokens", "log_device_hit_tokens")
"""A PrefillAdder's counts of tokens found in the cache; 0.5.16 has only the first."""


class AdmissionHooks:
    """AROUND hooks for `PrefillAdder.add_one_req` and `add_chunked_req`, the same names since SGLang 0.5.16."""

    def __init__(self, adapter: ModuleType, controller: Controller) -> None:
        self._adapter = adapter
        self._controller = controller

    def add_one_req(
        self, original: Callable[..., Any], adder: PrefillAdder, req: Req, *args: object, **kwargs: object
    ) -> Any:
        """Admit one waiting request."""
        staged = self._stage(adder, req)
        if staged is None:
            return original(adder, req, *args, **kwargs)
        verdict, admitted = self._admit(adder, req, staged, lambda: original(adder, req, *args, **kwargs))
        if admitted or verdict is not self._adapter.NO_ROOM:
            return verdict
        # Its donor is held while it waits for slots, and may be what it waits for.
        verdict = original(adder, req, *args, **kwargs)
        if adder.can_run_list and adder.can_run_list[-1] is req:
            self._controller.crowded_out(req, self._adapter.space(req))
        return verdict

    def add_chunked_req(self, original: Callable[..., Any], adder: PrefillAdder, req: Req) -> Any:
        """Continue the request in chunks."""
        staged = self._stage(adder, req)
        if staged is not None and not _leaves_room(adder, req, staged):
            self._controller.splicer.unstage(staged)
            self._controller.crowded_out(req, self._adapter.space(req))
            staged = None
        if staged is None:
            return original(adder, req)
        return self._admit(adder, req, staged, lambda: original(adder, req))[0]

    def _stage(self, adder: PrefillAdder, req: Req) -> Staged | None:
        if not getattr(req, "_leyline_plan", None):
            return None
        length = self._adapter.prefix_len(req)
        own = Hit(length, req.last_node) if self._adapter.protected_len(req) == length else None
        budget = adder.rem_input_tokens if adder.can_run_list else len(req.full_untruncated_fill_ids)
        if adder.rem_chunk_tokens is not None:
            budget = min(budget, adder.rem_chunk_tokens) - adder.page_size  # the tail needs some of it
        room = Room(max(budget, 0), MAX_HOLES - getattr(adder, _HOLES, 0))
        return self._controller.stage(req, own, self._adapter.space(req), room)

    def _admit(self, adder: PrefillAdder, req: Req, staged: Staged, call: Callable[[], Any]) -> tuple[Any, bool]:
        """Let the scheduler decide. Returns its verdict, and whether the request is in."""
        count, computed = len(adder.can_run_list), staged.computed
        hits = {name: getattr(adder, name) for name in _HITS if hasattr(adder, name)}
        undo = self._adapter.extend_prefix(req, staged, adder.tree_cache)
        self._charge(adder, computed)
        verdict = None
        try:
            verdict = call()
        finally:
            admitted = len(adder.can_run_list) > count
            if admitted:
                if not req.retracted_stain:
                    self._tell(adder, hits, computed)
                setattr(adder, _HOLES, getattr(adder, _HOLES, 0) + len(staged.holes))
                self._controller.commit(req, staged, self._adapter.space(req))
            else:
                undo()
                self._charge(adder, -computed)
                self._controller.splicer.unstage(staged)
        return verdict, admitted

    @staticmethod
    def _charge(adder: PrefillAdder, tokens: int) -> None:
        if adder.rem_chunk_tokens is not None:
            adder.rem_chunk_tokens -= tokens
        adder.rem_input_tokens -= tokens

    @staticmethod
    def _tell(adder: PrefillAdder, hits: dict[str, int], computed: int) -> None:
        """Correct the pass's statistics: the scheduler took holes for part of the prefix.

        hits: the counts before. A later chunk's prefix is not counted; a count that falls ends a server with metrics.
        """
        adder.log_input_tokens += computed
        for name, before in hits.items():
            now = getattr(adder, name)
            setattr(adder, name, now - min(computed, now - before))


def _leaves_room(adder: PrefillAdder, req: Req, staged: Staged) -> bool:
    """Whether the pool still holds the chunk behind what is staged, with the donor held.

    The scheduler does not look: a request between its chunks must go on to free its KV, so it takes a whole chunk even
    where nothing is left, and ends the server. What a donor pins was counted as evictable when the request came in.
    """
    tail = len(req.full_untruncated_fill_ids) - staged.end
    if adder.rem_chunk_tokens is not None:
        tail = min(tail, max(0, adder.rem_chunk_tokens - staged.computed))
    return bool(-(-tail // adder.page_size) * adder.page_size <= adder.cur_rem_tokens)
