"""SGLang 0.5.23: the unified radix cache with a Rust or Python tree core."""

from __future__ import annotations

from array import array
from dataclasses import replace
from typing import Any

import torch
from sglang.srt.managers.schedule_policy import AddReqResult
from sglang.srt.mem_cache.base_prefix_cache import InsertParams, MatchPrefixParams
from sglang.srt.mem_cache.common import evict_from_tree_cache
from sglang.srt.mem_cache.radix_cache import RadixKey
from sglang.srt.mem_cache.registry import create_unified_radix_cache
from sglang.srt.mem_cache.unified_radix_cache import UnifiedRadixCache

from leyline.backends.sglang.plugin.build import make_controller
from leyline.backends.sglang.plugin.cache import Controller, wants_check
from leyline.backends.sglang.plugin.integrity import attach_accounting
from leyline.backends.sglang.plugin.keys import Space
from leyline.backends.sglang.plugin.ops import Hit, all_agree


class Ops:
    """`TreeOps` over the unified cache. The tree core may be Rust: nodes are handles, never walked."""

    def __init__(self, cache: LeylineRadixCache) -> None:
        self._cache = cache

    @property
    def page(self) -> int:
        return int(self._cache.page_size)

    def match(self, ids: array[int], limit: int, space: Space) -> Hit:
        key = RadixKey(ids, space.extra_key, limit=limit, cache_salt=space.cache_salt)
        result = UnifiedRadixCache.match_prefix(self._cache, MatchPrefixParams(key=key))
        return Hit(result.device_prefix_len, result.last_device_node)

    def slots(self, hit: Hit) -> torch.Tensor:
        slots: torch.Tensor = self._cache.path_device_indices(hit.node)
        return slots[: hit.length].long()

    def hold(self, hit: Hit) -> Any:
        return self._cache.lock(hit.node)

    def release(self, held: Any) -> None:
        self._cache.unlock(held)

    def room(self) -> int:
        return int(self._cache.token_to_kv_pool_allocator.available_size() + self._cache.evictable_size())

    def reserve(self, tokens: int) -> torch.Tensor | None:
        evict_from_tree_cache(self._cache, tokens)
        slots: torch.Tensor | None = self._cache.token_to_kv_pool_allocator.alloc(tokens)
        return slots

    def give_back(self, slots: torch.Tensor) -> None:
        self._cache.token_to_kv_pool_allocator.free(slots)

    def publish(self, ids: array[int], slots: torch.Tensor, known: int, space: Space) -> None:
        key = RadixKey(ids, space.extra_key, cache_salt=space.cache_salt)
        UnifiedRadixCache.insert(
            self._cache, InsertParams(key=key, value=slots, prev_prefix_len=known, inserted_len=known)
        )

    def agree(self, ok: bool) -> bool:
        return all_agree(ok, self._cache.tp_group)

    def drop_branch(self, ids: array[int], start: int, space: Space) -> bool:
        cache, core = self._cache, self._cache.tree_core
        self.match(ids, start // self.page * self.page, space)  # splits the node that `start` lies in
        while True:
            hit = self.match(ids, len(ids), space)
            if hit.length <= start // self.page * self.page:
                return True
            leaf = core.collect_path_info([hit.node])[0][-1]
            if leaf.num_children or self._in_use(hit):
                return False
            cache._evict_device_leaf(leaf.node_id, dict.fromkeys(cache.tree_components, 0))

    def _in_use(self, hit: Hit) -> bool:
        """Whether some request holds the hit's last node: then holding it once more protects nothing new."""
        before = self._cache.evictable_size()
        held = self.hold(hit)
        try:
            return bool(self._cache.evictable_size() == before)
        finally:
            self.release(held)


class LeylineRadixCache(UnifiedRadixCache):  # type: ignore[misc]
    """The unified radix cache, which also grows along edited prompts."""

    leyline: Controller

    def match_prefix(self, params: Any) -> Any:
        req = params.req
        if req is None:
            return super().match_prefix(params)
        key, space = params.key, Space(req.extra_key, req.cache_salt)
        if wants_check(req):
            attach_accounting(req, self, owned_slots(self))
        plan = self.leyline.plan(req, space)
        if plan is None:
            return super().match_prefix(params)
        if key.limit is None:
            # A look at the queue, before admission: nothing may be moved for it yet.
            ids = self.leyline.splicer.keyring.marked(key.token_ids, plan.marks)
        else:
            ids = self.leyline.admit(req, plan, key.token_ids, len(key), space)
        marked = RadixKey(ids, key.extra_key, is_bigram=key.is_bigram, limit=key.limit, cache_salt=key.cache_salt)
        return super().match_prefix(replace(params, key=marked))

    def insert(self, params: Any) -> Any:
        if self.leyline.writing and params.key is not None:
            key = params.key
            ids = self.leyline.splicer.keyring.marked(key.raw_token_ids(), self.leyline.writing)
            key = RadixKey(ids, key.extra_key, is_bigram=key.is_bigram, cache_salt=key.cache_salt)
            params = replace(params, key=key)
        return super().insert(params)

    def checkpoint_into_tree(self, req: Any, *, up_to: int, **kwargs: Any) -> None:
        """Every write of a request's KV: a chunk's end, the prefill's end, the finish."""
        plan = self.leyline.plan(req, Space(req.extra_key, req.cache_salt))
        if plan is None:
            super().checkpoint_into_tree(req, up_to=up_to, **kwargs)
            return
        if plan.marks and up_to > req.kv.cache_protected_len:
            row = self.req_to_token_pool.req_to_token[req.kv.req_pool_idx]
            self.leyline.splicer.fresh(row[req.kv.cache_protected_len : up_to].long())
        with self.leyline.writes(plan):
            super().checkpoint_into_tree(req, up_to=up_to, **kwargs)
        if req.finished():
            self.leyline.finish(req, plan)

    def checkpoint(self, req: Any, *, up_to: int, **kwargs: Any) -> None:
        super().checkpoint(req, up_to=up_to, **kwargs)
        space = Space(req.extra_key, req.cache_salt)
        plan = self.leyline.plan(req, space)
        if plan is None or not plan.runs or plan.closed or req.finished():
            return
        ids = req.full_untruncated_fill_ids
        # Only at the end of a chunk, and only where all of it is in the tree (page aligned, insert not declined).
        if up_to >= len(ids) or up_to != req.extend_end or req.kv.cache_protected_len != up_to:
            return
        hit = self.leyline.advance(req, plan, ids, up_to, req._compute_max_prefix_len(len(ids)), space)
        if hit is not None:
            self._continue_from(req, hit, up_to)

    def _continue_from(self, req: Any, hit: Hit, computed: int) -> None:
        """Give the request the longer prefix: its next chunk starts at `hit.length`."""
        slots = self.leyline.splicer.slots(hit)[computed:]
        lock = self.lock(hit.node)
        self.req_to_token_pool.write((req.kv.req_pool_idx, slice(computed, hit.length)), slots)
        self.unlock(req.lock)
        req.lock, req.last_node = lock, hit.node
        req.kv.cache_protected_len = req.kv.cache_inserted_len = hit.length
        req.kv.kv_allocated_len = req.kv.kv_committed_len = hit.length
        req.extend_end = hit.length


def is_request_level(result: Any, streamer: Any, key: str) -> bool | None:
    """AFTER hook: a receipt goes out once a request, not sliced by token."""
    return True if key == "leyline" else None


HOOKS = {
    "sglang.srt.managers.scheduler_components.output_streamer.SchedulerOutputStreamer."
    "is_request_level_customized_info_key": is_request_level,
}
"""AFTER hooks that only this version needs."""


def create_cache(context: Any) -> Any:
    """The factory of the radix cache backend `leyline`."""
    cache = create_unified_radix_cache(context, cache_class=LeylineRadixCache)
    cache.leyline = make_controller(context, Ops(cache))
    return cache


NOT_NOW = AddReqResult.OTHER
"""The verdict that keeps a request in the queue without calling the pool full."""


def prefix_len(req: Any) -> int:
    """Tokens of the request that need no prefill."""
    return int(req.prefix_len)


def extend_end(req: Any) -> int:
    """Where the chunk that was just admitted ends."""
    return int(req.extend_end)


def charge(adder: Any, tokens: int) -> None:
    """Set `tokens` aside for the rest of this pass."""
    adder.memory_budget.total_offset += tokens
    adder.memory_budget.current_offset += tokens


def owned_slots(cache: Any) -> torch.Tensor:
    """Every slot that the tree owns."""
    return cache.all_values_flatten().long()  # type: ignore[no-any-return]


__all__ = [
    "HOOKS",
    "NOT_NOW",
    "LeylineRadixCache",
    "charge",
    "create_cache",
    "extend_end",
    "owned_slots",
    "prefix_len",
]
