"""Where a receipt is found: every route, streamed or not, and the counters."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import httpx
import pytest
from sgl_rig import KINDS, Servers

from leyline.directives import Directive, EditScript, Mode, Receipt, WireRequest

pytestmark = [pytest.mark.sglang, pytest.mark.slow, pytest.mark.timeout(600)]
GQA = KINDS[:1]


def edited(seed: int) -> tuple[list[int], list[int], WireRequest]:
    """A source of bytes, the prompt and the request."""
    rng = random.Random(seed)
    source = [rng.randrange(97, 122) for _ in range(200)]
    script = EditScript((Directive(64, 96, (), Mode.AMORTIZE),))
    return source, script.apply(source), WireRequest.build(script, source)


def events(server: Any, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    with httpx.stream("POST", server.url + path, json=body, timeout=120) as answer:
        assert answer.status_code == 200
        lines = [line[6:] for line in answer.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


@pytest.mark.parametrize("kind", GQA)
def test_generate_streams_the_receipt_once(servers: Servers, kind: str) -> None:
    server = servers.plugin(kind)
    source, prompt, request = edited(1)
    server.generate(source)
    params = {"max_new_tokens": 5, "ignore_eos": True, "custom_params": {"leyline": request.to_json()}}
    chunks = events(server, "/generate", {"input_ids": prompt, "stream": True, "sampling_params": params})
    found = [Receipt.from_meta_info(chunk["meta_info"]) for chunk in chunks]
    first = next(receipt for receipt in found if receipt is not None)
    assert first.spliced_tokens >= 90
    assert all(receipt in (None, first) for receipt in found)


@pytest.mark.parametrize("kind", GQA)
@pytest.mark.parametrize("stream", [False, True])
def test_chat(servers: Servers, kind: str, stream: bool) -> None:
    server = servers.plugin(kind)
    words = "".join(random.Random(2 + stream).choices("abcdefghij", k=300))

    def ask(content: str, request: WireRequest | None) -> dict[str, Any]:
        body: dict[str, Any] = {"model": "default", "max_tokens": 4, "temperature": 0}
        body["messages"] = [{"role": "user", "content": content}]
        if request is not None:
            body["custom_params"] = {"leyline": request.to_json()}
        if not stream:
            answer = server.post("/v1/chat/completions", {**body, "return_meta_info": True}).json()
            info: dict[str, Any] = answer["choices"][0]["meta_info"]
            return info
        chunks = events(server, "/v1/chat/completions", {**body, "stream": True})
        with_receipt = [chunk for chunk in chunks if "leyline" in chunk]
        assert len(with_receipt) == (request is not None)
        assert all(chunk["choices"] == [] for chunk in with_receipt)
        return with_receipt[0] if with_receipt else {}

    assert Receipt.from_meta_info(ask(words, None)) is None
    # The template puts one token and "user\\n" before the content: the edit is at the content's tokens 100 to 140.
    script = EditScript((Directive(106, 146, (), Mode.AMORTIZE),))
    removed = tuple(server.post("/tokenize", {"prompt": words[100:140], "add_special_tokens": False}).json()["tokens"])
    request = WireRequest(script, (removed,))
    receipt = Receipt.from_meta_info(ask(words[:100] + words[140:], request))
    assert receipt is not None
    assert receipt.fallback is None, receipt
    assert receipt.spliced_tokens >= 100


@pytest.mark.parametrize("kind", GQA)
def test_the_hints_envelope_says_the_same(servers: Servers, kind: str) -> None:
    server = servers.plugin(kind)
    source, prompt, request = edited(4)
    server.generate(source)
    params = {"max_new_tokens": 1, "custom_params": {"kv_hints": json.dumps(request.to_kv_hints())}}
    answer = server.post("/generate", {"input_ids": prompt, "sampling_params": params}).json()
    receipt = Receipt.from_meta_info(answer["meta_info"])
    assert receipt is not None
    assert receipt.spliced_tokens >= 90


@pytest.mark.parametrize("kind", GQA)
def test_counters(servers: Servers, kind: str) -> None:
    server = servers.plugin(kind)

    def counters() -> dict[str, float]:
        text = httpx.get(server.url + "/metrics", timeout=30).text
        found: dict[str, float] = {}
        for name, labels, value in re.findall(r"^(leyline_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
            kept = ",".join(re.findall(r'(?:outcome|source|reason)="\w+"', labels))
            found[f"{name} {kept}".strip()] = float(value)
        return found

    before = counters()
    source, prompt, request = edited(5)
    server.generate(source)
    receipt = Receipt.from_meta_info(server.generate(prompt, request.to_json())["meta_info"])
    server.generate(prompt, "{")
    assert receipt is not None
    after = counters()
    grew = {name: value - before.get(name, 0.0) for name, value in after.items() if value != before.get(name, 0.0)}
    assert grew.pop("leyline_splice_seconds_sum") > 0
    assert {name: value for name, value in grew.items() if "bucket" not in name and "created" not in name} == {
        "leyline_requests_total": 2,
        'leyline_directives_total outcome="spliced"': 1,
        'leyline_prompt_tokens_total source="spliced"': receipt.spliced_tokens,
        'leyline_prompt_tokens_total source="prefix"': pytest.approx(
            grew['leyline_prompt_tokens_total source="prefix"']
        ),
        'leyline_prompt_tokens_total source="prefilled"': pytest.approx(
            2 * len(prompt) - receipt.spliced_tokens - grew['leyline_prompt_tokens_total source="prefix"']
        ),
        'leyline_fallbacks_total reason="malformed"': 1,
        "leyline_splice_seconds_count": 1,
    }
