"""What clients send by mistake or on purpose: an honest answer with a reason or HTTP 400, and the server lives."""

from __future__ import annotations

import json
import random
import string
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sgl_oracle import Oracle, distance, first_logprobs
from sgl_rig import KINDS, Servers

from leyline.directives import Directive, EditScript, Mode, Receipt, WireRequest

pytestmark = [pytest.mark.sglang, pytest.mark.slow, pytest.mark.timeout(600)]

RNG = random.Random(21)
SOURCE = [RNG.randrange(5, 250) for _ in range(120)]
SCRIPT = EditScript((Directive(40, 50, (9, 9, 9), Mode.AMORTIZE),))
PROMPT = [*SCRIPT.apply(SOURCE), 11, 12]
VALID = WireRequest.build(SCRIPT, SOURCE).to_dict()
FUZZED = 1000
"""Bodies per model: 2,000 in all."""


def changed(**fields: Any) -> dict[str, Any]:
    """The valid request with fields of its one directive changed."""
    return {**VALID, "directives": [{**VALID["directives"][0], **fields}]}


LYING_REMOVED = [(token + 1) % 250 for token in VALID["directives"][0]["removed"]]
HOSTILE: dict[str, tuple[Any, str]] = {
    "not JSON": ("{", "malformed"),
    "a list": ("[1, 2]", "malformed"),
    "null": ("null", "malformed"),
    "a number": (7, "malformed"),
    "deeply nested": ("[" * 100_000, "malformed"),
    "no version": ({key: value for key, value in VALID.items() if key != "version"}, "malformed"),
    "another version": ({**VALID, "version": "leyline/2"}, "unsupported_version"),
    "an unknown field": ({**VALID, "onest": True}, "malformed"),
    "a bool as start": (changed(start=True), "malformed"),
    "an unknown mode": (changed(mode="erase"), "malformed"),
    "a negative start": (changed(start=-1, end=9), "out_of_range"),
    "an end before the start": (changed(end=3), "out_of_range"),
    "a span behind the prompt": (changed(start=5000, end=5010), "out_of_range"),
    "a position over the bound": (changed(start=2**40, end=2**40 + 10), "out_of_range"),
    "a token over the bound": (changed(removed=[2**31] * 10), "out_of_range"),
    "too few removed tokens": (changed(removed=[1]), "malformed"),
    "a replacement that is not there": (changed(replacement=[9, 9, 8]), "target_mismatch"),
    "removed tokens that were not there": (changed(removed=LYING_REMOVED), "source_mismatch"),
    "a source that nobody sent": (
        changed(start=30, end=40, removed=LYING_REMOVED, replacement=PROMPT[30:40]),
        "source_mismatch",
    ),
    "overlapping directives": ({**VALID, "directives": VALID["directives"] * 2}, "overlap"),
    "too many directives": (
        {**VALID, "directives": [{"start": 1, "end": 1, "mode": "forget"}] * 5000},
        "too_many_directives",
    ),
    "too long a text": (json.dumps(VALID) + " " * 2**20, "too_large"),
    "a seam over the bound": ({**VALID, "seam": 10**9}, "malformed"),
    "a made-up lineage": ({**VALID, "lineage": "L1", "lineage_start": 3}, "lineage_mismatch"),
    "a lineage with spaces": ({**VALID, "lineage": "a b"}, "malformed"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_mistake_has_its_reason_and_an_honest_answer(servers: Servers, kind: str) -> None:
    server, oracle = servers.plugin(kind), Oracle(servers.model(kind))
    clean, _ = oracle.clean(PROMPT)
    for name, (value, reason) in HOSTILE.items():
        # A name of its own for each: where the prompt is in the cache already, there is nothing to refuse.
        server.generate(SOURCE, extra_key=name)
        sent = value if isinstance(value, str | int) else json.dumps(value)
        answer = server.generate(PROMPT, sent, extra_key=name)
        receipt = Receipt.from_meta_info(answer["meta_info"])
        assert receipt is not None, name
        assert receipt.fallback == reason, (name, receipt)
        assert receipt.spliced_tokens == 0, name
        assert receipt.detail, name
        assert "\n" not in receipt.detail, name
        assert receipt.prefix_tokens == answer["meta_info"]["cached_tokens"], name
        assert distance(clean, first_logprobs(answer, 320)) < 1e-4, name
    assert server.accounting()["ok"]


@pytest.mark.parametrize("kind", KINDS)
def test_custom_params_of_the_wrong_shape(servers: Servers, kind: str) -> None:
    server = servers.plugin(kind)
    for params in ([], "leyline", 3, {"leyline": []}, {"leyline": {}}, {"leyline": False}, {"other": 1}, None):
        body = {"input_ids": PROMPT, "sampling_params": {"max_new_tokens": 1, "custom_params": params}}
        answer = server.post("/generate", body)
        assert answer.status_code in (200, 400), (params, answer.text)
    assert server.generate(PROMPT)["meta_info"]["prompt_tokens"] == len(PROMPT)


@pytest.mark.parametrize("kind", KINDS)
def test_fuzzed_bodies(servers: Servers, kind: str) -> None:
    """Damaged requests, twelve at a time, in the pool that evicts: no answer but an honest one, no slot lost."""
    server, oracle, rng = servers.plugin(kind), Oracle(servers.model(kind)), random.Random(kind)
    server.flush()
    prompts = []
    for _ in range(8):
        source = [rng.randrange(5, 250) for _ in range(rng.randint(20, 60))]
        server.generate(source)
        start = rng.randint(1, 15)
        script = EditScript((Directive(start, start + 3, (9,), Mode.AMORTIZE), Directive(18, 18, (8,), Mode.AMORTIZE)))
        prompt = [*script.apply(source), 7]
        prompts.append((prompt, WireRequest.build(script, source).to_dict(), oracle.clean(prompt)[0]))
    work = []
    for _ in range(FUZZED):
        prompt, valid, clean = rng.choice(prompts)
        work.append((prompt, _damaged(rng, valid), clean))
    seen: Counter[str] = Counter()

    with httpx.Client(base_url=server.url, timeout=120) as client:

        def send(item: tuple[list[int], Any, Any]) -> None:
            prompt, value, clean = item
            params = {"max_new_tokens": 1, "temperature": 0, "custom_params": {"leyline": value}}
            body = {"input_ids": prompt, "sampling_params": params, "return_logprob": True, "top_logprobs_num": 320}
            answer = client.post("/generate", json=body)
            assert answer.status_code in (200, 400), answer.text[:300]
            if answer.status_code == 400:
                seen["HTTP 400"] += 1
                return
            data = answer.json()
            receipt = Receipt.from_meta_info(data["meta_info"])
            if receipt is None or receipt.approximate_from is None:
                assert distance(clean, first_logprobs(data, 320)) < 1e-4, (value, receipt)
            seen[str(receipt.fallback) if receipt is not None else "no receipt"] += 1

        with ThreadPoolExecutor(12) as pool:
            list(pool.map(send, work))
    assert sum(seen.values()) == FUZZED
    assert {"malformed", "out_of_range", "None"} <= set(seen), seen
    assert server.alive(), server.tail()
    facts = server.accounting()
    assert facts["ok"], facts
    server.flush()
    assert server.accounting()["available"] == facts["size"]


def _damaged(rng: random.Random, valid: dict[str, Any]) -> Any:
    """The valid request after one to three random changes, as an object or as damaged text."""
    body = json.loads(json.dumps(valid))
    for _ in range(rng.randint(1, 3)):
        place: Any = body
        while True:
            key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
            if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.8:
                place = place[key]
                continue
            break
        if rng.random() < 0.15:
            del place[key]
        else:
            place[key] = _junk(rng)
        if not body:
            break
    text = json.dumps(body)
    if rng.random() < 0.3:
        at = rng.randrange(len(text))
        text = text[:at] + rng.choice(["", rng.choice(string.printable), "\x00", "\u2028", text]) + text[at + 1 :]
    return text


def _junk(rng: random.Random) -> Any:
    return rng.choice(
        [
            None,
            True,
            -1,
            rng.randint(-5, 70),
            2**31,
            2**64,
            0.5,
            1e308,
            "",
            "amortize",
            "leyline/1",
            "x" * 200,
            [],
            [[]],
            [rng.randint(-1, 300) for _ in range(rng.randint(0, 6))],
            {},
            {"start": 0},
        ]
    )
