"""The headers that keep a session on its replica."""

from __future__ import annotations

import pytest

from leyline.backends.http.affinity import AFFINITY_HEADERS, affinity_headers, affinity_key


def test_a_session_has_one_key_and_tenants_have_others() -> None:
    names = [(s, t) for s in ("a", "b", "") for t in (None, "", "x", "None")]
    assert len({affinity_key(*name) for name in names}) == len(names)
    assert affinity_key("a", "x") == affinity_key("a", "x")
    assert affinity_headers("a") == dict.fromkeys(AFFINITY_HEADERS, affinity_key("a"))


def test_the_key_says_nothing_of_the_session_and_depends_on_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEYLINE_SECRET", raising=False)
    plain = affinity_key("customer-42", "acme")
    assert "customer" not in plain
    assert "acme" not in plain
    monkeypatch.setenv("LEYLINE_SECRET", "s" * 200)
    assert affinity_key("customer-42", "acme") != plain
    assert affinity_key("\udc80")  # no valid Unicode, and no traceback


def test_what_the_caller_set_stays() -> None:
    assert "X-Session-ID" not in affinity_headers("a", present=["x-session-id", "Accept"])
