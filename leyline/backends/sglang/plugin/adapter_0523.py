"""SGLang 0.5.23: the unified radix cache with a Rust or Python tree core."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from sglang.srt.managers.schedule_policy import AddReqResult
from sglang.srt.mem_cache.base_prefix_cache import MatchPrefixParams
from sglang.srt.mem_cache.common import evict_from_tree_cache
from sglang.srt.mem_cache.radix_cache import RadixKey
from sglang.srt.mem_cache.registry import create_unified_radix_cache
from sglang.srt.mem_cache.unified_radix_cache import UnifiedRadixCache
from sglang.srt.models.deepseek_common import attention_backend_handler

from leyline.backends.sglang.plugin.build import build
from leyline.backends.sglang.plugin.cache import Controller, wants_check
from leyline.backends.sglang.plugin.integrity import attach_accounting
from leyline.backends.sglang.plugin.keys import Space
from leyline.backends.sglang.plugin.ops import Held, Hit, all_agree
from leyline.backends.sglang.plugin.staging import Staged

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import Req


_PREFIX = "_leyline_prefix"
"""On a new request, from its admission to its allocation: what stands in its prefix beside its tree path."""


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

    def hold(self, hit: Hit) -> Held:
        return self._cache.lock(hit.node)

    def release(self, held: Held) -> None:
        self._cache.unlock(held)

    def room(self) -> int:
        return int(self._cache.token_to_kv_pool_allocator.available_size() + self._cache.evictable_size())

    def reserve(self, tokens: int) -> torch.Tensor | None:
        evict_from_tree_cache(self._cache, tokens)
        slots: torch.Tensor | None = self._cache.token_to_kv_pool_allocator.alloc(tokens)
        return slots

    def give_back(self, slots: torch.Tensor) -> None:
        self._cache.token_to_kv_pool_allocator.free(slots)

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

    def reset(self) -> None:
        super().reset()
        if hasattr(self, "leyline"):  # a flush, not the cache's own start
            self.leyline.memory.clear()

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

    def prefix_device_indices(self, req: Req) -> Any:
        """The slots of a new request's prefix, of which the staged ones are its own."""
        staged = req.__dict__.pop(_PREFIX, None)
        if staged is None:
            return super().prefix_device_indices(req)
        path = self.path_device_indices(req.last_node)[: staged.start]
        return torch.cat([path.long(), staged.slots.long()])

    def checkpoint_into_tree(self, req: Req, *, up_to: int, **kwargs: Any) -> None:
        """Every write of a request's KV: a chunk's end, the prefill's end, the finish."""
        plan = self.leyline.plan(req, Space(req.extra_key, req.cache_salt))
        if plan is None:
            super().checkpoint_into_tree(req, up_to=up_to, **kwargs)
            return
        self.leyline.first_token(req, plan)
        first = plan.computed_from(req.kv.cache_protected_len)
        if plan.marks and up_to > first:
            row = self.req_to_token_pool.req_to_token[req.kv.req_pool_idx]
            self.leyline.splicer.fresh(row[first:up_to].long())
        with self.leyline.writes(plan):
            super().checkpoint_into_tree(req, up_to=up_to, **kwargs)
        if req.finished():
            self.leyline.finish(req, plan, space(req))


def is_request_level(result: object, streamer: object, key: str) -> bool | None:
    """AFTER hook: a receipt goes out once a request, not sliced by token."""
    return True if key == "leyline" else None


HOOKS = {
    "sglang.srt.managers.scheduler_components.output_streamer.SchedulerOutputStreamer."
    "is_request_level_customized_info_key": ("after", is_request_level),
}
"""Hooks that only this version needs."""


def create_cache(context: object) -> Any:
    """The factory of the radix cache backend `leyline`."""
    cache = create_unified_radix_cache(context, cache_class=LeylineRadixCache)
    cache.leyline = build(context, Ops(cache), sys.modules[__name__])
    return cache


PREFILL_GRAPHS = ()
"""Captured prefill graphs that were proven with holes on a GPU: none, this release was not run on one."""

NO_ROOM = AddReqResult.NO_TOKEN
"""The verdict on a request that the pool has no room for."""


def space(req: Req) -> Space:
    return Space(req.extra_key, req.cache_salt)


def prefix_len(req: Req) -> int:
    """Tokens of the request that need no prefill."""
    return int(req.prefix_len)


def protected_len(req: Req) -> int:
    """Tokens of the request whose slots the tree owns."""
    return int(req.kv.cache_protected_len)


def row(req: Req) -> int:
    """The request's row in `req_to_token`."""
    return int(req.kv.req_pool_idx)


def extend_prefix(req: Req, staged: Staged, cache: Any) -> Callable[[], None]:
    """Let the request's prefix reach to the end of what is staged. Returns how to undo it."""
    before = req.prefix_len
    req.prefix_len = staged.end
    if req.kv.holds_kv:  # a later chunk: its prefix is read from its row
        cache.req_to_token_pool.write((req.kv.req_pool_idx, slice(staged.start, staged.end)), staged.slots)
    else:
        setattr(req, _PREFIX, staged)

    def undo() -> None:
        req.prefix_len = before
        req.__dict__.pop(_PREFIX, None)

    return undo


def absorbed(attention: object, batch: object) -> Any:
    """The absorbed MLA path."""
    return attention_backend_handler._dispatch_mla_subtype(attention, batch)


def owned_slots(cache: Any) -> torch.Tensor:
    """Every slot that the tree owns."""
    return cache.all_values_flatten().long()  # type: ignore[no-any-return]
