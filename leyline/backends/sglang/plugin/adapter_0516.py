"""SGLang 0.5.16: the flat radix cache, which is this release's default for models with one kind of attention.

A chunk's end, the prefill's end and the finish are `cache_unfinished_req` and `cache_finished_req` here, and the former
looks its own insert up again without naming the request: both the insert and that look-up carry the marks.
A tenant's salt is part of `extra_key` in this release.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from sglang.srt.managers.schedule_policy import AddReqResult
from sglang.srt.mem_cache.base_prefix_cache import MatchPrefixParams, MatchResult
from sglang.srt.mem_cache.common import evict_from_tree_cache
from sglang.srt.mem_cache.radix_cache import RadixCache, RadixKey
from sglang.srt.models.deepseek_common import attention_backend_handler

from leyline.backends.sglang.plugin.build import build
from leyline.backends.sglang.plugin.cache import Controller, wants_check
from leyline.backends.sglang.plugin.integrity import attach_accounting
from leyline.backends.sglang.plugin.keys import Space
from leyline.backends.sglang.plugin.ops import Held, Hit, all_agree
from leyline.backends.sglang.plugin.runs import Plan
from leyline.backends.sglang.plugin.staging import Staged
from leyline.backends.sglang.plugin.walk import find

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import Req


class Ops:
    """`TreeOps` over the flat cache, whose nodes are plain Python objects."""

    def __init__(self, cache: LeylineRadixCache, group: object) -> None:
        self._cache = cache
        self._group = group

    @property
    def page(self) -> int:
        return int(self._cache.page_size)

    def match(self, ids: array[int], limit: int, space: Space) -> Hit:
        cache = self._cache
        if cache.disable or cache.is_eagle:
            found = RadixCache.match_prefix(cache, MatchPrefixParams(key=RadixKey(ids, space.extra_key, limit=limit)))
            return Hit(len(found.device_indices), found.last_device_node)

        def split(node: Any, length: int) -> Any:
            return cache._split_node(node.key, node, length)

        return Hit(*find(cache.root_node, ids, min(limit, len(ids)), self.page, space.extra_key, split))

    def slots(self, hit: Hit) -> torch.Tensor:
        values = []
        node = hit.node
        while node is not self._cache.root_node:
            values.append(node.value)
            node = node.parent
        if not values:
            return torch.empty(0, dtype=torch.int64, device=self._cache.device)
        return torch.cat(values[::-1])[: hit.length].long()

    def hold(self, hit: Hit) -> Held:
        self._cache.inc_lock_ref(hit.node)
        return hit.node

    def release(self, held: Held) -> None:
        self._cache.dec_lock_ref(held)

    def room(self) -> int:
        return int(self._cache.token_to_kv_pool_allocator.available_size() + self._cache.evictable_size())

    def reserve(self, tokens: int) -> torch.Tensor | None:
        evict_from_tree_cache(self._cache, tokens)
        slots: torch.Tensor | None = self._cache.token_to_kv_pool_allocator.alloc(tokens)
        return slots

    def give_back(self, slots: torch.Tensor) -> None:
        self._cache.token_to_kv_pool_allocator.free(slots)

    def agree(self, ok: bool) -> bool:
        return all_agree(ok, self._group)

    def drop_branch(self, ids: array[int], start: int, space: Space) -> bool:
        cache, start = self._cache, start // self.page * self.page
        self.match(ids, start, space)  # splits the node that `start` lies in
        while (hit := self.match(ids, len(ids), space)).length > start:
            leaf = hit.node
            if leaf.children or leaf.lock_ref:
                return False
            cache.token_to_kv_pool_allocator.free(leaf.value)
            cache._delete_leaf(leaf)
            cache._record_remove_event(leaf)
        return True


class LeylineRadixCache(RadixCache):  # type: ignore[misc]
    """The flat radix cache, which also grows along edited prompts."""

    leyline: Controller
    leyline_ops: Ops

    def reset(self) -> None:
        super().reset()
        if hasattr(self, "leyline"):  # a flush, not the cache's own start
            self.leyline.memory.clear()

    def match_prefix(self, params: Any) -> Any:
        req, key = params.req, params.key
        if req is None:
            return super().match_prefix(replace(params, key=self._marked(key)))
        space = Space(req.extra_key)
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
        if self.disable or self.is_eagle:
            same = RadixKey(ids, key.extra_key, is_bigram=key.is_bigram, limit=key.limit)
            return super().match_prefix(replace(params, key=same))
        limit = len(ids) if key.limit is None else key.limit
        hit = self.leyline_ops.match(ids, limit, space)
        return MatchResult(self.leyline_ops.slots(hit), hit.node, hit.node, hit.node)

    def insert(self, params: Any) -> Any:
        if params.key is not None:
            params = replace(params, key=self._marked(params.key))
        return super().insert(params)

    def _marked(self, key: Any) -> Any:
        """The key with the marks of the request that is being written, or as it is."""
        if not self.leyline.writing:
            return key
        ids = self.leyline.splicer.keyring.marked(key.raw_token_ids(), self.leyline.writing)
        return RadixKey(ids, key.extra_key, is_bigram=key.is_bigram)

    def cache_finished_req(self, req: Req, is_insert: bool = True, *, kv_len_to_handle: int, **kwargs: Any) -> None:
        plan = self.leyline.plan(req, Space(req.extra_key))
        self._computed(req, plan, kv_len_to_handle)
        with self.leyline.writes(plan):
            super().cache_finished_req(req, is_insert, kv_len_to_handle=kv_len_to_handle, **kwargs)
        if plan is not None and req.finished():
            self.leyline.finish(req, plan, space(req))

    def cache_unfinished_req(self, req: Req, chunked: bool = False, **kwargs: Any) -> None:
        plan = self.leyline.plan(req, Space(req.extra_key))
        self._computed(req, plan, req.extend_range.end)
        with self.leyline.writes(plan):
            super().cache_unfinished_req(req, chunked=chunked, **kwargs)

    def _computed(self, req: Req, plan: Plan | None, end: int) -> None:
        """Note that the request computed its tokens up to `end`."""
        if plan is None:
            return
        self.leyline.first_token(req, plan)
        if not plan.marks:
            return
        first = plan.computed_from(req.cache_protected_len)
        if end > first:
            row = self.req_to_token_pool.req_to_token[req.req_pool_idx]
            self.leyline.splicer.fresh(row[first:end].long())


HOOKS: dict[str, object] = {}
"""Hooks that only this version needs: here a receipt is sliced by token, so it goes out with the first one."""


def create_cache(context: Any) -> Any:
    """The factory of the radix cache backend `leyline`."""
    params = context.params
    if context.is_hybrid_swa or context.is_hybrid_ssm or context.enable_hierarchical_cache:
        # Not the flat cache's models or features: the stock cache. It sends no receipts, which a client reports.
        from sglang.srt.mem_cache.registry import default_radix_cache_factory

        return default_radix_cache_factory(context)
    cache = LeylineRadixCache(params)
    cache.leyline_ops = Ops(cache, params.tp_cache_group)
    cache.leyline = build(context, cache.leyline_ops, sys.modules[__name__])
    return cache


PREFILL_GRAPHS = ("breakable",)
"""Captured prefill graphs that were proven with holes on a GPU. `tc_piecewise` gives no logprobs to prove it by."""

NO_ROOM = AddReqResult.NO_TOKEN
"""The verdict on a request that the pool has no room for."""


def space(req: Req) -> Space:
    return Space(req.extra_key)


def prefix_len(req: Req) -> int:
    """Tokens of the request that need no prefill."""
    return len(req.prefix_indices)


def protected_len(req: Req) -> int:
    """Tokens of the request whose slots the tree owns."""
    return int(req.cache_protected_len)


def row(req: Req) -> int:
    """The request's row in `req_to_token`."""
    return int(req.req_pool_idx)


def extend_prefix(req: Req, staged: Staged, cache: Any) -> Callable[[], None]:
    """Let the request's prefix reach to the end of what is staged. Returns how to undo it."""
    before = req.prefix_indices
    req.prefix_indices = torch.cat([before.to(staged.slots.dtype), staged.slots])

    def undo() -> None:
        req.prefix_indices = before

    return undo


def absorbed(attention: object, batch: object) -> Any:
    """The absorbed MLA path."""
    return attention_backend_handler._dispatch_mla_subtype(attention, batch)


def owned_slots(cache: Any) -> torch.Tensor:
    """Every slot that the tree owns."""
    if not cache.root_node.children:
        return torch.empty(0, dtype=torch.int64, device=cache.device)
    return cache.all_values_flatten().long()  # type: ignore[no-any-return]
