"""What a client learns of a server, wherever a router puts it."""

from __future__ import annotations

import httpx
import pytest

from leyline.backends import BackendError
from leyline.backends.sglang.client.facts import ServerFacts
from leyline.backends.sglang.client.server import Transport

INFO = {"model_path": "m", "version": "0.5.23", "radix_cache_backend": "leyline", "max_req_input_len": 100}


def ask(routes: dict[str, object], facts_url: str | None = None) -> ServerFacts:
    """Facts of a router that answers `routes`, which are hosts and paths, and knows no others."""

    def serve(request: httpx.Request) -> httpx.Response:
        found = routes.get(f"{request.url.host}{request.url.path}")
        if isinstance(found, Exception):
            raise found
        return httpx.Response(404, text="no") if found is None else httpx.Response(200, json=found)

    client = httpx.Client(transport=httpx.MockTransport(serve))
    return ServerFacts.ask(
        Transport("http://router/v1", api_key=None, timeout=5, retries=0, http_client=client), facts_url
    )


@pytest.mark.parametrize(
    "routes",
    [
        {"router/server_info": INFO},
        {"router/get_server_info": INFO},
        {"router/get_server_info": {"load": 1}, "router/workers": ["http://a"], "a/server_info": INFO},
        {"router/workers": {"workers": [{"url": "http://a:1"}, {"url": "http://b/"}]}, "b/server_info": INFO},
        {"router/workers": {"urls": ["http://a"]}, "a/server_info": INFO},
        {
            "router/workers": [{"id": 1}, {"url": "http://down"}, {"url": "http://a"}],
            "down/server_info": httpx.ConnectError("refused"),
            "a/server_info": INFO,
        },
    ],
)
def test_facts_are_found_behind_routers(routes: dict[str, object]) -> None:
    facts = ask(routes)
    assert (facts.model, facts.plugin, facts.max_request) == ("m", True, 100)


def test_a_replica_that_is_named_is_asked_instead() -> None:
    other = {**INFO, "model_path": "other"}
    assert ask({"router/server_info": INFO, "b/server_info": other}, facts_url="http://b/v1").model == "other"


def test_a_router_that_says_nothing_is_one_line_that_says_what_to_give() -> None:
    with pytest.raises(BackendError, match=r"http://router does not say what it serves .*facts_url") as failure:
        ask({"router/workers": []})
    assert "\n" not in str(failure.value)


def test_a_server_that_is_not_there_is_asked_once() -> None:
    with pytest.raises(BackendError, match="cannot connect to http://router"):
        ask({"router/server_info": httpx.ConnectError("refused")})
