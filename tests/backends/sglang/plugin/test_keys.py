"""Marks, names and sealed lineages."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyline.backends.sglang.plugin.keys import MARK_BIT, MAX_MARKS, NAME_BYTES, Keyring, LineageError, Mark, Space

RING = Keyring(b"secret")
marks = st.lists(
    st.builds(Mark, st.integers(0, 2**31 - 1), st.binary(min_size=NAME_BYTES, max_size=NAME_BYTES)),
    min_size=1,
    max_size=MAX_MARKS,
)


@given(st.lists(st.integers(0, 2**31 - 1), max_size=40), marks)
def test_a_mark_replaces_one_id_and_leaves_the_request_alone(ids: list[int], given: list[Mark]) -> None:
    key = array("q", ids)
    marked = RING.marked(key, given)
    assert list(key) == ids
    positions = {mark.position for mark in given if mark.position < len(ids)}
    for position, token in enumerate(marked):
        if position in positions:
            assert MARK_BIT <= token < 2 * MARK_BIT
        else:
            assert token == ids[position]


def test_marks_differ_by_name_position_token_and_secret() -> None:
    key = array("q", [7, 7, 8])
    name, other = RING.name(b"a"), RING.name(b"b")
    seen = {
        RING.marked(key, [Mark(0, name)])[0],
        RING.marked(key, [Mark(1, name)])[1],
        RING.marked(key, [Mark(2, name)])[2],
        RING.marked(key, [Mark(0, other)])[0],
        Keyring(b"another").marked(key, [Mark(0, name)])[0],
    }
    assert len(seen) == 5
    assert RING.marked(key, [Mark(1, name)]) == RING.marked(key, [Mark(1, name)])


def test_names_do_not_run_together() -> None:
    assert RING.name(b"ab", b"c") != RING.name(b"a", b"bc")


@given(marks)
def test_a_sealed_lineage_opens_for_its_tenant(given: list[Mark]) -> None:
    space = Space("tenant", "salt")
    lineage = RING.seal(given, space)
    assert len(lineage) <= 128
    assert lineage.isascii()
    assert RING.open(lineage, space) == tuple(given)


@pytest.mark.parametrize(
    ("ring", "space"),
    [
        (RING, Space("other", "salt")),
        (RING, Space("tenant", None)),
        (RING, Space("tenants", "alt")),
        (Keyring(b"another server"), Space("tenant", "salt")),
    ],
)
def test_a_lineage_is_closed_to_others(ring: Keyring, space: Space) -> None:
    lineage = RING.seal([Mark(3, RING.name(b"x"))], Space("tenant", "salt"))
    with pytest.raises(LineageError):
        ring.open(lineage, space)


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=128))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(LineageError):
        RING.open(text, Space())


@given(marks, st.data())
def test_a_changed_lineage_is_refused(given: list[Mark], data: st.DataObject) -> None:
    lineage = RING.seal(given, Space())
    at = data.draw(st.integers(0, len(lineage) - 1))
    changed = lineage[:at] + ("A" if lineage[at] != "A" else "B") + lineage[at + 1 :]
    with pytest.raises(LineageError):
        RING.open(changed, Space())
