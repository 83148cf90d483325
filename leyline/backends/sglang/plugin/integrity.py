"""The pool's accounting at idle: every slot is either free or owned by the tree, once. For tests and for debugging."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch

from leyline.directives import JsonObject

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import Req


def accounting(cache: Any, owned: torch.Tensor) -> JsonObject:
    """Free and tree-owned slots against the pool's size; `ok` when they add up and nothing is held twice.

    owned: every slot that the tree owns. Only meaningful while no other request runs.
    """
    allocator, page = cache.token_to_kv_pool_allocator, int(cache.page_size)
    pages = [getattr(allocator, name, None) for name in ("free_pages", "release_pages")]
    free = torch.cat([p.long() for p in pages if p is not None])
    owned_pages = torch.unique(owned // page)
    facts = {
        "size": int(allocator.size),
        "available": int(allocator.available_size()),
        "owned": len(owned),
        "owned_twice": len(owned) - len(torch.unique(owned)),
        "free_twice": len(free) - len(torch.unique(free)),
        "free_and_owned": int(torch.isin(owned_pages, free).sum()),
        "evictable": int(cache.evictable_size()),
        "protected": int(cache.protected_size()),
    }
    facts["ok"] = (
        facts["available"] + facts["owned"] == facts["size"]
        and not facts["owned_twice"]
        and not facts["free_twice"]
        and not facts["free_and_owned"]
        and not facts["protected"]
        and facts["evictable"] == facts["owned"]
    )
    return facts


def attach_accounting(req: Req, cache: Any, owned: torch.Tensor) -> None:
    """Answer a request's check in its `meta_info`. Never raises."""
    try:
        info = dict(req.customized_info or {})
        info["leyline"] = [{"accounting": accounting(cache, owned)}]
        req.customized_info = info
    except Exception:
        logging.getLogger("leyline").exception("accounting failed")
