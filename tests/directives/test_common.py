"""What two sequences share at either end, against the plain loop."""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyline.directives.common import common_prefix, common_suffix

FEW = st.lists(st.integers(0, 2), max_size=40)


def naive(a: Sequence[Any], b: Sequence[Any]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@given(a=FEW, b=FEW, start=st.integers(0, 5), other=st.integers(0, 5), limit=st.integers(-1, 30))
def test_both_ends_of_any_two_lists(a: list[int], b: list[int], start: int, other: int, limit: int) -> None:
    expected = naive(a[start:], b[other:])
    bound = expected if limit < 0 else min(expected, limit)
    assert common_prefix(a, b, start, other, limit) == bound
    assert common_prefix(tuple(a), b, start, other, limit) == bound
    ends = len(a) - min(start, len(a)), len(b) - min(other, len(b))
    expected = naive(a[: ends[0]][::-1], b[: ends[1]][::-1])
    assert common_suffix(a, b, *ends, limit) == (expected if limit < 0 else min(expected, limit))


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 511, 4096, 10_000, 200_000])
def test_every_first_difference_is_found(length: int) -> None:
    a = list(range(length))
    assert common_prefix(a, list(a)) == common_suffix(a, list(a), length, length) == length
    for place in {0, 1, length // 2, length - 1} & set(range(length)):
        other = list(a)
        other[place] = -1
        assert common_prefix(a, other) == place
        assert common_suffix(a, other, length, length) == length - 1 - place
        assert common_prefix(array("q", a).tobytes(), array("q", other).tobytes()) // 8 == place


def test_text_is_compared_by_characters() -> None:
    assert common_prefix("naïve", "naïf") == 3
    assert common_suffix("undone", "done", 6, 4) == 4


def test_a_long_run_costs_a_few_passes() -> None:
    a = list(range(1_000_000))
    b = [*a[:-1], -1]
    started = time.process_time()
    assert common_prefix(a, b) == len(a) - 1
    bulk = time.process_time() - started
    started = time.process_time()
    naive(a, b)
    assert bulk < time.process_time() - started
