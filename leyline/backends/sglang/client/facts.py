"""What a client needs to know of an SGLang server, wherever a router in front of it puts that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from leyline.backends.contract import BackendError
from leyline.backends.sglang.client.server import Transport, server_url
from leyline.directives import JsonMapping

BACKEND = "leyline"
"""The value of `--radix-cache-backend` that selects the plugin."""

ROUTES = ("/server_info", "/get_server_info")
WORKERS = "/workers"


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What the client needs to know of a server. max_request: tokens of prompt and answer together. page: tokens of one
    page of its cache.
    """

    model: str
    tokenizer: str
    version: str
    plugin: bool
    max_request: int | None
    tool_parser: str | None
    page: int = 1

    @classmethod
    def read(cls, info: JsonMapping) -> ServerFacts:
        """From `/server_info`. Raises `BackendError` for another kind of server."""
        model = info.get("model_path")
        if not isinstance(model, str):
            raise BackendError("the server does not say which model it serves; is it an SGLang server?")
        longest, page = info.get("max_req_input_len"), info.get("page_size")
        return cls(
            model=str(info.get("served_model_name") or model),
            tokenizer=str(info.get("tokenizer_path") or model),
            version=str(info.get("version") or "unknown"),
            plugin=info.get("radix_cache_backend") == BACKEND,
            max_request=longest if type(longest) is int and longest > 0 else None,
            tool_parser=info.get("tool_call_parser") or None,
            page=page if type(page) is int and page > 0 else 1,
        )

    @classmethod
    def ask(cls, server: Transport, facts_url: str | None = None) -> ServerFacts:
        """From the server, or from a replica behind the router that stands at its address.

        facts_url: the address of a replica to ask instead. Else, in turn: `/server_info`, `/get_server_info`, and the
        first of the replicas that `/workers` names which answers. Raises `BackendError` where none says it.
        """
        if facts_url is not None:
            return cls.read(server.get(ROUTES[0], url=server_url(facts_url)))
        refused: BackendError | None = None
        for route in ROUTES:
            try:
                return cls.read(server.get(route))
            except BackendError as error:
                if error.retryable:  # nobody answers: another route of the same server will not either
                    raise
                refused = refused or error
        for worker in workers(server):
            try:
                return cls.read(server.get(ROUTES[0], url=server_url(worker), retries=0))
            except BackendError:
                continue
        raise BackendError(
            f"{server.url} does not say what it serves ({refused}); behind a router give the address of a replica: "
            "facts_url"
        )


def announces_plugin(url: str, api_key: str | None = None, *, timeout: float = 2.0) -> bool:
    """Whether the server at `url` says that it runs the plugin; a server that says nothing in `timeout` seconds does
    not. For a client that goes on with any server.
    """
    try:
        server = Transport(url, api_key=api_key, timeout=timeout, retries=0)
    except BackendError:
        return False
    try:
        for route in ROUTES:
            try:
                return ServerFacts.read(server.get(route)).plugin
            except BackendError as error:
                if error.retryable:
                    return False
        # The key is for the server alone: a replica that it names is asked without one.
        return any(announces_plugin(replica, timeout=timeout) for replica in workers(server)[:1])
    finally:
        server.close()


def workers(server: Transport) -> list[str]:
    """The replicas that a router names, in any of the forms in use; none where it names none."""
    try:
        return worker_urls(server.get(WORKERS))
    except BackendError:
        return []


def worker_urls(said: object) -> list[str]:
    """The addresses in what a router says of its replicas."""
    listed = said.get("workers") or said.get("urls") if isinstance(said, Mapping) else None
    entries = listed if isinstance(listed, list) else []
    found = [entry.get("url") if isinstance(entry, Mapping) else entry for entry in entries]
    return [url for url in found if isinstance(url, str)]
