"""Hooks on the prefill scheduler: chunks end where a run can be moved, and what a request will still take is set aside.

A prompt `prefix | R | suffix | tail` is served as one ordinary chunked request: the chunk `R` ends where the suffix
starts, the suffix's KV is moved at that chunk's end, and the next chunk starts behind it.

Stock SGLang relies on an unfinished chunk having used up the pass's token budget: nobody else is admitted before the
chunked request is through, so the slots that its admission counted are still there. A chunk cut for a splice leaves
budget over. Others may ride along, but then what the chunked request will still take, moved tokens included, must be
set aside in each pass, or a later chunk finds no slots and the scheduler dies in `alloc_for_extend`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from leyline.backends.sglang.plan import Plan


class AdmissionHooks:
    """AROUND hooks for `PrefillAdder.add_one_req` and `add_chunked_req`, the same names since SGLang 0.5.16."""

    def __init__(self, adapter: Any) -> None:
        self._adapter = adapter

    def add_one_req(
        self, original: Callable[..., Any], adder: Any, req: Any, has_chunked_req: bool, align: int | None
    ) -> Any:
        """Admit one waiting request; cut its first chunk at the next run."""
        from sglang.srt.managers.schedule_policy import AddReqResult

        if adder.rem_chunk_tokens is None or not isinstance(adder.tree_cache, self._adapter.LeylineRadixCache):
            return original(adder, req, has_chunked_req, align)
        cut = self._cut(adder, req)
        budget = adder.rem_chunk_tokens if cut is None else min(cut, adder.rem_chunk_tokens)
        if has_chunked_req or adder.new_chunked_req is not None:
            # Only one request may be in chunks; stock never gets here with one, its chunk took the whole budget.
            need = len(req.full_untruncated_fill_ids) - self._adapter.prefix_len(req) - req.host_hit_length
            if adder.ceil_paged_tokens(need) > budget:
                return AddReqResult.OTHER
        if cut is None or cut >= adder.rem_chunk_tokens:
            return original(adder, req, has_chunked_req, align)
        admitted = len(adder.can_run_list)
        verdict = self._within(adder, cut, lambda: original(adder, req, has_chunked_req, align))
        if len(adder.can_run_list) == admitted:
            return verdict
        self._set_aside(adder, req)
        return adder.budget_state()

    def add_chunked_req(self, original: Callable[..., Any], adder: Any, req: Any) -> Any:
        """Continue the request in chunks; cut this chunk at the next run."""
        if adder.rem_chunk_tokens is None or not isinstance(adder.tree_cache, self._adapter.LeylineRadixCache):
            return original(adder, req)
        cut = self._cut(adder, req)
        if cut is None or cut >= adder.rem_chunk_tokens:
            return original(adder, req)
        rest = self._within(adder, cut, lambda: original(adder, req))
        if rest is not None:
            self._set_aside(adder, req)
        return rest

    def _cut(self, adder: Any, req: Any) -> int | None:
        """How many tokens the request's next chunk may have, or None for as many as fit."""
        plan = self._plan(req)
        if plan is None:
            return None
        start = self._adapter.prefix_len(req)
        cut = plan.next_cut(start, adder.page_size)
        return None if cut is None else cut - start

    @staticmethod
    def _plan(req: Any) -> Plan | None:
        plan = getattr(req, "_leyline_plan", None)
        return plan if isinstance(plan, Plan) and not plan.closed else None

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
        rest = len(req.full_untruncated_fill_ids) - self._adapter.extend_end(req)
        answer = max(0, req.sampling_params.max_new_tokens - len(req.output_ids))
        self._adapter.charge(adder, adder.ceil_paged_tokens(rest) + min(answer, 4096) + 2 * adder.page_size)
