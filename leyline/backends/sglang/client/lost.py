"""What is lost on the way to a server: fields that a router drops, tenants that it mixes, turns on another replica."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace

from leyline.backends.contract import BackendError, TurnInput
from leyline.backends.http.affinity import affinity_headers
from leyline.backends.sglang.client.requests import generate_body
from leyline.backends.sglang.client.server import Transport
from leyline.directives import Fallback, Receipt
from leyline.directives.common import common_prefix

TRIES = 4


def stripped(field: str) -> str:
    """What a receipt says where none came of a server with the plugin. field: the one that carried the request."""
    return f"no receipt came though the server runs the plugin: a router on the way drops `{field}`"


def told_of_miss(receipt: Receipt, prompt: tuple[int, ...], session: TurnInput, page: int) -> Receipt:
    """The receipt, which says so where the server did not hold what this session had sent before.

    page: tokens of one page of the server's cache; what a page cuts off is no miss. A turn with directives has its own
    reason. Where a lineage was to be continued, the reason is `source_mismatch`; else there is only the detail.
    """
    if receipt.fallback is not None or session.script or session.source is None:
        return receipt
    known = common_prefix(session.source, prompt)
    held = receipt.prefix_tokens + receipt.spliced_tokens
    if known - held <= page + 1:  # the last token of an answer was never computed
        return receipt
    detail = (
        f"the server held {held} of the {known} tokens that this session sent before: "
        "another replica, a restart or an eviction"
    )
    reason = Fallback.SOURCE_MISMATCH if session.lineage is not None and not session.honest else None
    return replace(receipt, fallback=reason, detail=detail)


def check_tenants(transport: Transport, encode: Callable[[str], list[int]], longest: int | None) -> None:
    """Raise `BackendError` where a prompt of one tenant is found in the cache by another one.

    The same prompt is sent until it hits under its own `extra_key`, which shows that the replica was met again, and
    then under another one. A server that caches nothing leaks nothing. longest: tokens that the server takes.
    """
    name = uuid.uuid4().hex
    prompt = encode(f"{name} " * 40)[: min(400, (longest or 800) // 2)]
    headers = affinity_headers(f"leyline-probe-{name}", present=transport.headers)

    def hits(tenant: str) -> int:
        body = generate_body(prompt, {"max_new_tokens": 1, "temperature": 0}, None, f"leyline-probe-{name}-{tenant}")
        meta = transport.post("/generate", body, headers=headers).get("meta_info")
        found = meta.get("cached_tokens") if isinstance(meta, Mapping) else None
        return found if type(found) is int else 0

    hits("a")
    for _ in range(TRIES):
        if hits("a"):
            break
    leaked = hits("b")
    if leaked:
        raise BackendError(
            f"{transport.url} does not keep tenants apart: a prompt under another `extra_key` hit {leaked} of its "
            f"{len(prompt)} tokens, so a router on the way drops that field; serve tenants through another router, or "
            "from a server each"
        )
