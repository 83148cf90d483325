"""Hooks on the prefill scheduler: chunks end where a run can be moved, and what a request will still take is set aside.

A prompt `prefix | R | suffix | tail` is served as one ordinary chunked request: the chunk `R` ends where the suffix
starts, the suffix's KV is moved at that chunk's end, and the next chunk starts behind it.

Stock SGLang relies on an unfinished chunk having used up the pass's token budget: nobody else is admitted before the
chunked request is through, so the slots that its admission counted are still there. A chunk cut for a splice leaves
budget over, and stock then admits others into the same pass on slots that the chunked request was promised. A later
chunk of it, or a splice, finds the pool full of locked KV, and the scheduler dies in `alloc_for_extend`: in a pool of
2400 slots, with forced retraction, 198 tokens were wanted, 105 free and none evictable. Stock has no such path, because
its unfinished chunks leave no budget. So others may ride along, but what the chunked request will still take, moved
tokens included, is set aside first, in every pass.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from leyline.backends.sglang.plugin.runs import Plan

log = logging.getLogger("leyline")

_CUT = "_leyline_cut"
"""Set on a PrefillAdder in whose pass a chunk was cut."""
_MAX_ANSWER = 4096
"""Answer tokens that stock reserves at most (SGLANG_CLIP_MAX_NEW_TOKENS_ESTIMATION)."""


class AdmissionHooks:
    """AROUND hooks for `PrefillAdder.add_one_req` and `add_chunked_req`, the same names since SGLang 0.5.16."""

    def __init__(self, adapter: Any) -> None:
        self._adapter = adapter

    def add_one_req(self, original: Callable[..., Any], adder: Any, req: Any, *args: Any, **kwargs: Any) -> Any:
        """Admit one waiting request; cut its first chunk at the next run."""
        cut = self._cut(adder, req)
        if cut is None and not getattr(adder, _CUT, False):
            return original(adder, req, *args, **kwargs)
        budget = adder.rem_chunk_tokens
        limit = budget if cut is None else min(cut, budget)
        has_chunked_req = args[0] if args else kwargs.get("has_chunked_req", False)
        if has_chunked_req or adder.new_chunked_req is not None:
            # Only one request may be in chunks; stock never gets here with one, its chunk took the whole budget.
            need = len(req.full_untruncated_fill_ids) - self._adapter.prefix_len(req) - req.host_hit_length
            if adder.ceil_paged_tokens(need) > limit:
                return self._adapter.NOT_NOW
        if cut is None or cut >= budget:
            return original(adder, req, *args, **kwargs)
        admitted = len(adder.can_run_list)
        verdict = self._within(adder, cut, lambda: original(adder, req, *args, **kwargs))
        if len(adder.can_run_list) == admitted:
            return verdict
        self._set_aside(adder, req)
        return adder.budget_state()

    def add_chunked_req(self, original: Callable[..., Any], adder: Any, req: Any) -> Any:
        """Continue the request in chunks; cut this chunk at the next run."""
        cut = self._cut(adder, req)
        if cut is None or cut >= adder.rem_chunk_tokens:
            return original(adder, req)
        rest = self._within(adder, cut, lambda: original(adder, req))
        if rest is not None:
            self._set_aside(adder, req)
        return rest

    def _cut(self, adder: Any, req: Any) -> int | None:
        """How many tokens the request's next chunk may have, or None for as many as fit."""
        plan = getattr(req, "_leyline_plan", None)
        if adder.rem_chunk_tokens is None or not isinstance(plan, Plan) or plan.closed:
            return None
        try:
            start = self._adapter.prefix_len(req)
            cut = plan.next_cut(start, adder.page_size)
        except Exception:
            log.exception("looking for the next run failed; the request is prefilled from here on")
            plan.closed = True
            return None
        return None if cut is None else cut - start

    @staticmethod
    def _within(adder: Any, cut: int, call: Callable[[], Any]) -> Any:
        """Run `call` with a chunk budget of `cut` tokens; afterwards only what it used is gone from the real one."""
        budget = adder.rem_chunk_tokens
        adder.rem_chunk_tokens = cut
        try:
            return call()
        finally:
            adder.rem_chunk_tokens = budget - (cut - adder.rem_chunk_tokens)

    def _set_aside(self, adder: Any, req: Any) -> None:
        """Charge the pass with what the request will still take: the rest of its prompt and its answer."""
        setattr(adder, _CUT, True)
        rest = len(req.full_untruncated_fill_ids) - self._adapter.extend_end(req)
        answer = max(0, req.sampling_params.max_new_tokens - len(req.output_ids))
        self._adapter.charge(adder, adder.ceil_paged_tokens(rest) + min(answer, _MAX_ANSWER) + 2 * adder.page_size)
