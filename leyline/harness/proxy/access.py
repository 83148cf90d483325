"""What a proxy is set to, and who may use it."""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from starlette.requests import Request

TOKEN_HEADER = "x-leyline-token"
MAX_BODY = 64 << 20


@dataclass(frozen=True)
class ProxySettings:
    """upstream: the server's root; a request's path is put behind it, with `/v1` where both have it taken once.
    token: what callers must send in `X-Leyline-Token`, or as the first part of the path; None asks for none.
    timeout: seconds between two pieces of an answer. max_body: bytes of a request.
    splice: whether chat requests let the server find the edits; None does so where it announces Leyline's plug-in.
    chat_upstream: whether the upstream speaks chat completions alone; Responses and messages are translated for it.
    """

    upstream: str
    token: str | None = None
    timeout: float = 600.0
    max_body: int = MAX_BODY
    splice: bool | None = None
    chat_upstream: bool = False

    def url(self, path: str, query: str = "") -> str:
        """Where a request for `path`, in its encoded form, goes."""
        root = self.upstream.rstrip("/")
        if root.endswith("/v1") and (path == "/v1" or path.startswith("/v1/")):
            root = root.removesuffix("/v1")
        return f"{root}{path}?{query}" if query else root + path

    def is_token(self, given: str | None) -> bool:
        return self.token is None or hmac.compare_digest((given or "").encode(), self.token.encode())

    def admitted(self, request: Request) -> tuple[str, bool]:
        """The path to ask for, and whether the caller may. A client without headers has the token in its base URL."""
        raw = request.scope.get("raw_path") or request.scope["path"].encode()
        path = raw.decode("latin-1")
        if self.token is None or self.is_token(request.headers.get(TOKEN_HEADER)):
            return path, True
        first, _, rest = path.removeprefix("/").partition("/")
        return f"/{rest}", self.is_token(first)
