from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyline.directives import EXPLANATIONS, Fallback, Outcome, Receipt, Splice, WireError, explain

RECEIPT = Receipt(
    prompt_tokens=100,
    prefix_tokens=40,
    spliced_tokens=50,
    prefilled_tokens=10,
    splices=(Splice(45, 95, -12, 0.002),),
    approximate_from=45,
    lineage="abc",
    directives=2,
    acknowledged=(Outcome.SPLICED, Outcome.FORGOTTEN),
)


def test_hit_rate_counts_prefix_and_spliced() -> None:
    assert RECEIPT.hit_rate == 0.9
    assert Receipt(0, 0, 0, 0).hit_rate == 0.0


def test_round_trip_through_json() -> None:
    assert Receipt.from_dict(json.loads(json.dumps(RECEIPT.to_dict()))) == RECEIPT
    plain = Receipt.plain(10, 4, directives=1)
    assert Receipt.from_dict(json.loads(json.dumps(plain.to_dict()))) == plain


def test_a_plain_server_gives_a_receipt() -> None:
    assert Receipt.plain(10, 4) == Receipt(10, 4, 0, 6)
    asked = Receipt.plain(10, 4, directives=3)
    assert asked.fallback is Fallback.BACKEND_HAS_NO_SPLICE
    assert asked.acknowledged == (Outcome.PREFILLED,) * 3
    assert Receipt.plain(10, 40).prefilled_tokens == 0


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"prefix_tokens": 41}, "is 101, not prompt_tokens 100"),
        ({"prefilled_tokens": -1}, "prefilled_tokens is -1"),
        ({"prompt_tokens": True}, "prompt_tokens is True"),
        ({"acknowledged": ["spliced"]}, "1 outcomes for 2 directives"),
        ({"acknowledged": ["maybe", "spliced"]}, "maybe"),
        ({"fallback": "tired"}, "tired"),
        ({"lineage": 3}, "lineage"),
        ({"approximate_from": 101}, "approximate_from"),
        ({"splices": [{"start": 1}]}, "end"),
        ({"splices": [{"start": 1, "end": 2, "delta": 0.5}]}, "splice needs"),
        ({"splices": 3}, "int"),
    ],
)
def test_bad_receipts(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(WireError, match=text):
        Receipt.from_dict({**RECEIPT.to_dict(), **changes})


def test_unknown_fields_of_a_newer_server_are_ignored() -> None:
    assert Receipt.from_dict({**RECEIPT.to_dict(), "future": 1}) == RECEIPT


def test_reading_a_servers_meta_info() -> None:
    data = RECEIPT.to_dict()
    assert Receipt.from_meta_info({"leyline": [data]}) == RECEIPT
    assert Receipt.from_meta_info({"leyline": [None, data]}) == RECEIPT
    assert Receipt.from_meta_info({"leyline": data}) == RECEIPT
    for entries in ([data, []], [[], data], [data, None, {}], [[data], []], [[], [None, data]]):
        assert Receipt.from_meta_info({"leyline": entries}) == RECEIPT
    for nothing in ({"leyline": []}, {"leyline": [[], None, {}]}, {"leyline": None}, {}, None):
        assert Receipt.from_meta_info(nothing) is None
    with pytest.raises(WireError):
        Receipt.from_meta_info({"leyline": "spliced"})


leaves = st.none() | st.booleans() | st.integers(-2, 9) | st.floats() | st.text(max_size=4) | st.just(10**400)
values = leaves | st.lists(leaves | st.dictionaries(st.sampled_from(["start", "end", "delta", "seconds"]), leaves))


@given(st.dictionaries(st.sampled_from(sorted(RECEIPT.to_dict())), values) | values)
def test_fuzzed_receipts_raise_only_wire_errors(data: Any) -> None:
    base = {"prompt_tokens": 0, "prefix_tokens": 0, "spliced_tokens": 0, "prefilled_tokens": 0}
    for value in (data, {**base, **data} if isinstance(data, dict) else data):
        try:
            receipt = Receipt.from_dict(value)
        except WireError:
            continue
        assert receipt.prefix_tokens + receipt.spliced_tokens + receipt.prefilled_tokens == receipt.prompt_tokens


def test_every_reason_is_explained() -> None:
    assert set(EXPLANATIONS) == set(Fallback)
    for reason in Fallback:
        assert all(text.endswith(".") and len(text) > 10 for text in explain(reason))
