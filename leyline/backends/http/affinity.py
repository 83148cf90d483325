"""Headers by which the known routers keep the requests of one session on the replica that holds its KV.

No router reads all of them, and no server minds one that it does not know. The value is a digest: a session id or a
tenant's name is nobody's business on the way.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from hashlib import blake2b

AFFINITY_HEADERS = (
    "X-SMG-Routing-Key",  # sglang-router and SMG
    "X-SGL-Routing-Key",  # SGLang's experimental router
    "X-Session-ID",  # vllm-router, Ray Serve LLM, llm-d where it is configured, nginx and caddy by a hash of it
    "X-Dynamo-Session-ID",  # NVIDIA Dynamo
    "X-LiteLLM-Session-ID",  # LiteLLM
)

SECRET_VARIABLE = "LEYLINE_SECRET"


def affinity_key(session: str, tenant: str | None = None) -> str:
    """Thirty-two hex digits for a tenant's session, the same in every process; keyed by `LEYLINE_SECRET` if set."""
    secret = os.environ.get(SECRET_VARIABLE, "").encode()[:64]
    name = f"{tenant is None}\0{tenant or ''}\0{session}".encode(errors="backslashreplace")
    return blake2b(name, digest_size=16, key=secret).hexdigest()


def affinity_headers(session: str, tenant: str | None = None, *, present: Iterable[str] = ()) -> dict[str, str]:
    """The headers of every request of a session, without those that the caller has set (`present`, any case)."""
    taken = {name.lower() for name in present}
    key = affinity_key(session, tenant)
    return {name: key for name in AFFINITY_HEADERS if name.lower() not in taken}
