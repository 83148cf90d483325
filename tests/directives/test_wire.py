from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline.directives import PROTOCOL, Directive, DirectiveError, EditScript, Fallback, Mode, WireError, WireRequest
from leyline.directives import wire as limits

SCRIPT = EditScript((Directive(2, 4, (70, 80)), Directive(6, 9, (), Mode.FORGET)))
SOURCE = list(range(100, 112))
REQUEST = WireRequest.build(SCRIPT, SOURCE, lineage="abc", lineage_start=2, seam=4, honest=True, purge=True)


def body(**changes: Any) -> dict[str, Any]:
    return {**REQUEST.to_dict(), **changes}


def entry(**changes: Any) -> dict[str, Any]:
    return {"start": 2, "end": 4, "removed": [1, 2], "replacement": [3], "mode": "amortize", **changes}


def test_the_json_form_is_the_documented_one() -> None:
    assert REQUEST.to_json() == (
        '{"version":"leyline/1","directives":['
        '{"start":2,"end":4,"removed":[102,103],"replacement":[70,80],"mode":"amortize"},'
        '{"start":6,"end":9,"removed":[106,107,108],"replacement":[],"mode":"forget"}],'
        '"lineage":"abc","lineage_start":2,"seam":4,"honest":true,"purge":true}'
    )
    assert WireRequest(EditScript()).to_json() == '{"version":"leyline/1","directives":[]}'


def test_round_trips() -> None:
    assert WireRequest.from_json(REQUEST.to_json()) == REQUEST
    assert WireRequest.from_json(REQUEST.to_json().encode()) == REQUEST
    assert WireRequest.from_json(REQUEST.to_dict()) == REQUEST
    assert WireRequest.from_kv_hints(REQUEST.to_kv_hints()) == REQUEST
    assert WireRequest.from_kv_hints(json.dumps(REQUEST.to_kv_hints("m", "a"))) == REQUEST


def test_the_source_is_rebuilt_from_the_prompt() -> None:
    prompt = [*SCRIPT.apply(SOURCE), 1, 2, 3]
    assert REQUEST.source(prompt) == [*SOURCE, 1, 2, 3]
    with pytest.raises(WireError) as caught:
        REQUEST.source([9, *prompt])
    assert caught.value.reason is Fallback.TARGET_MISMATCH
    with pytest.raises(WireError) as caught:
        REQUEST.source(prompt[:3])
    assert caught.value.reason is Fallback.OUT_OF_RANGE


def test_a_script_that_does_not_fit_its_source_is_a_directive_error() -> None:
    with pytest.raises(DirectiveError, match="directive 1: end 9"):
        WireRequest.build(SCRIPT, SOURCE[:8])


def test_other_actions_of_the_envelope_are_ignored() -> None:
    envelope = REQUEST.to_kv_hints()
    envelope["actions"].insert(0, {"action_id": "x", "action_type": "prefetch", "payload": {}})
    assert WireRequest.from_kv_hints(envelope) == REQUEST


@pytest.mark.parametrize(
    ("envelope", "reason"),
    [
        ({}, Fallback.MALFORMED),
        ({"actions": []}, Fallback.MALFORMED),
        ({"actions": [3]}, Fallback.MALFORMED),
        ({"actions": REQUEST.to_kv_hints()["actions"] * 2}, Fallback.MALFORMED),
        ({"actions": [{"action_type": "edit", "action_version": "leyline/9"}]}, Fallback.UNSUPPORTED_VERSION),
        ({"actions": [{"action_type": "edit", "action_version": PROTOCOL, "payload": 3}]}, Fallback.MALFORMED),
    ],
)
def test_bad_envelopes(envelope: dict[str, Any], reason: Fallback) -> None:
    with pytest.raises(WireError) as caught:
        WireRequest.from_kv_hints(envelope)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("value", "reason", "text"),
    [
        ("{", "malformed", "not JSON"),
        (b"\xff\xfe", "malformed", "not JSON"),
        ("[" * 100_000, "malformed", "not JSON"),
        ('{"version":"leyline/1","seam":' + "9" * 5000 + "}", "malformed", "not JSON"),
        ("[]", "malformed", "must be a JSON object"),
        ("{}", "malformed", "version"),
        (body(version="leyline/2"), "unsupported_version", "leyline/2"),
        (body(version=1), "unsupported_version", "1"),
        (body(honset=True), "malformed", "unknown field 'honset'"),
        (body(directives={}), "malformed", "must be a list"),
        (body(directives=[[]]), "malformed", "directive 0 is a list"),
        (body(directives=[entry()] * 4097), "too_many_directives", "4096"),
        (body(directives=[entry(extra=1)]), "malformed", "extra"),
        (body(directives=[{"start": 1, "end": 2}]), "malformed", "mode"),
        (body(directives=[entry(start=True)]), "malformed", "ints"),
        (body(directives=[entry(start=2.0)]), "malformed", "ints"),
        (body(directives=[entry(end=10**30)]), "out_of_range", "bound"),
        (body(directives=[entry(start=-1, end=1)]), "out_of_range", "below the bound 0"),
        (body(directives=[entry(start=5)]), "out_of_range", "below its start"),
        (body(directives=[entry(), entry(start=3, end=5)]), "overlap", "before the end of directive 0"),
        (body(directives=[entry(mode="purge")]), "malformed", "mode"),
        (body(directives=[entry(mode=None)]), "malformed", "mode"),
        (body(directives=[entry(removed=[1])]), "malformed", "removed holds 1"),
        (body(directives=[entry(removed="ab")]), "malformed", "lists"),
        (body(directives=[entry(removed=[1, True])]), "malformed", "bool"),
        (body(directives=[entry(removed=[1, -2])]), "out_of_range", "-2"),
        (body(directives=[entry(replacement=[2**31])]), "out_of_range", "bound"),
        (body(directives=[entry(replacement=[None])]), "malformed", "NoneType"),
        (body(directives=[entry(start=2, end=2, removed=[], replacement=[])]), "malformed", "does nothing"),
        (body(lineage="a b"), "malformed", "lineage"),
        (body(lineage="\ud800"), "malformed", "lineage"),
        (body(lineage="x" * 129), "malformed", "lineage"),
        (body(lineage=7), "malformed", "lineage"),
        (body(lineage=None), "malformed", "needs a lineage"),
        (body(lineage_start=-1), "malformed", "lineage_start"),
        (body(lineage_start=True), "malformed", "lineage_start"),
        (body(seam=-1), "malformed", "seam"),
        (body(seam=False), "malformed", "seam"),
        (body(seam=70_000), "malformed", "seam"),
        (body(honest=1), "malformed", "honest"),
        (body(purge="yes"), "malformed", "purge"),
        (3, "malformed", "must be a JSON object"),
        (None, "malformed", "must be a JSON object"),
    ],
)
def test_bad_requests(value: Any, reason: str, text: str) -> None:
    with pytest.raises(WireError) as caught:
        WireRequest.from_json(value)
    assert caught.value.reason is Fallback(reason)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        '{"version": "leyline/1", "honest": true, "honest": false}',
        '{"version": "leyline/1", "version": "leyline/1"}',
        '{"version": "leyline/1", "directives": [{"start": 1, "end": 1, "mode": "forget", "mode": "amortize"}]}',
        '{"version": "leyline/1", "future": {"a": 1, "\\u0061": 2}}',
    ],
)
def test_a_key_that_stands_twice_is_refused(text: str) -> None:
    envelope = f'{{"actions": [{{"action_type": "edit", "action_version": "leyline/1", "payload": {text}}}]}}'
    for read, value in (
        (WireRequest.from_json, text),
        (WireRequest.from_json, text.encode()),
        (WireRequest.from_kv_hints, envelope),
    ):
        with pytest.raises(WireError, match="stands twice in one object") as caught:
            read(value)
        assert caught.value.reason is Fallback.MALFORMED


def test_too_many_tokens_or_too_long_a_text() -> None:
    half = limits.MAX_TOKENS // 2
    with pytest.raises(WireError) as caught:
        WireRequest.from_json(body(directives=[entry(end=2 + half, removed=[1] * half, replacement=[1] * (half + 1))]))
    assert caught.value.reason is Fallback.TOO_LARGE
    with pytest.raises(WireError) as caught:
        WireRequest.from_json(" " * (limits.MAX_TEXT + 1))
    assert caught.value.reason is Fallback.TOO_LARGE


def test_a_request_is_checked_when_built_too() -> None:
    with pytest.raises(WireError, match="0 removed spans for 2 directives"):
        WireRequest(SCRIPT)
    with pytest.raises(WireError, match="version"):
        WireRequest(EditScript(), version="leyline/2")


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
junk = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from(
    ["start", "end", "removed", "replacement", "mode", "version", "lineage", "seam", "honest", "purge", "lineage_start"]
)
values = junk | st.sampled_from([0, 1, 2, 5, [], [1], [1, 2], "amortize", "forget", PROTOCOL, "id"])
near_directive = st.fixed_dictionaries(
    {"start": values, "end": values, "mode": values}, optional={"removed": values, "replacement": values}
)
near_request = st.fixed_dictionaries(
    {"version": st.just(PROTOCOL) | values, "directives": st.lists(near_directive | values, max_size=3) | values},
    optional={"lineage": values, "lineage_start": values, "seam": values, "honest": values, "purge": values},
)


def accepted(read: Any, value: Any) -> WireRequest | None:
    refused: WireError
    try:
        return read(value)
    except WireError as error:
        refused = error
    assert isinstance(refused.reason, Fallback)
    return None


@settings(max_examples=400)
@given(near_request | junk | st.dictionaries(names, values))
def test_fuzzed_json_raises_only_wire_errors(value: Any) -> None:
    for form in (value, json.dumps(value), json.dumps(value).encode()):
        request = accepted(WireRequest.from_json, form)
        assert request is None or WireRequest.from_json(request.to_json()) == request
    accepted(WireRequest.from_kv_hints, value)
    envelope = {"actions": [{"action_type": "edit", "action_version": PROTOCOL, "payload": value}]}
    accepted(WireRequest.from_kv_hints, envelope)


@settings(max_examples=300)
@given(st.binary(max_size=60) | st.text(max_size=60))
def test_fuzzed_text_raises_only_wire_errors(value: str | bytes) -> None:
    assert accepted(WireRequest.from_json, value) is None


@settings(max_examples=300)
@given(st.data())
def test_a_flipped_byte_raises_only_wire_errors(data: st.DataObject) -> None:
    text = bytearray(REQUEST.to_json().encode())
    for _ in range(data.draw(st.integers(1, 3))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    request = accepted(WireRequest.from_json, bytes(text))
    prompt = data.draw(st.lists(st.integers(100, 112), max_size=14))
    if request is not None:
        try:
            request.source(prompt)
        except WireError:
            return
