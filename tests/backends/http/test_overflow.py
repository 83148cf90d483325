"""The words in which servers say that a prompt is too long, as they are reported of them; words that are not that."""

from __future__ import annotations

from pathlib import Path

import pytest

from leyline.backends.http.errors import body_message, body_overflows
from leyline.backends.http.overflow import is_overflow

HERE = Path(__file__).parent
TOO_LONG = (HERE / "too_long.txt").read_text("utf-8").splitlines()
SOMETHING_ELSE = (HERE / "something_else.txt").read_text("utf-8").splitlines()


@pytest.mark.parametrize("text", TOO_LONG)
def test_overflow(text: str) -> None:
    assert is_overflow(text)


@pytest.mark.parametrize("text", SOMETHING_ELSE)
def test_no_overflow(text: str) -> None:
    assert not is_overflow(text)


LONG = TOO_LONG[0]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": LONG}}, LONG),
        ([{"error": {"code": 400, "message": LONG, "status": "INVALID_ARGUMENT"}}], LONG),
        ({"error": LONG}, LONG),
        ({"message": LONG, "object": "error"}, LONG),
        ({"detail": LONG}, LONG),
        ({"detail": [{"loc": ["body"], "msg": LONG}]}, LONG),
        (
            {"error": {"message": "Provider returned error", "metadata": {"raw": LONG}}},
            f"Provider returned error: {LONG}",
        ),
        ({"base_resp": {"status_code": 2013, "status_msg": LONG}}, LONG),
        (LONG, LONG),
        ({"error": {"message": "bad request", "code": "context_length_exceeded"}}, "bad request"),
    ],
)
def test_bodies(body: object, message: str) -> None:
    assert body_message(body)[0] == message
    assert body_overflows(body)


def test_what_a_body_repeats_of_the_request_is_not_what_it_says() -> None:
    body = {"detail": [{"msg": "Field required", "input": {"messages": [{"role": "user", "content": LONG}]}}]}
    assert not body_overflows(body)
    assert body_message(body)[0] == "Field required"


def test_a_deep_body_is_read_in_bounded_time() -> None:
    deep: object = LONG
    for _ in range(200):
        deep = [deep]
    assert body_message(deep) == ("", "", "")
    assert not body_overflows(deep)
