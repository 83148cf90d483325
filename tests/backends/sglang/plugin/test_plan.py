"""From the wire to a plan: what may be moved, and what a hostile value comes to."""

from __future__ import annotations

import json
import random
from array import array
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline.backends.sglang.plugin.keys import MAX_MARKS, Keyring, Mark, Space
from leyline.backends.sglang.plugin.runs import Plan, make_plan, wire_value
from leyline.directives import Directive, EditScript, Fallback, Mode, WireRequest

RING = Keyring(b"secret")
SPACE = Space()


def plan_for(value: Any, prompt: list[int], page: int = 1, space: Space = SPACE) -> Plan:
    return make_plan(value, array("q", prompt), space, RING, page=page, max_tokens=4096)


@st.composite
def turns(draw: st.DrawFn) -> tuple[list[int], EditScript, list[int]]:
    """A source, a script over it and the prompt."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    source = [rng.randrange(1000) for _ in range(draw(st.integers(2, 120)))]
    points = sorted(rng.sample(range(len(source)), min(2 * draw(st.integers(1, 5)), len(source))))
    directives = []
    for start, end in zip(points[::2], points[1::2], strict=False):
        mode = draw(st.sampled_from([Mode.AMORTIZE, Mode.AMORTIZE, Mode.FORGET]))
        directives.append(Directive(start, end, tuple(rng.randrange(1000) for _ in range(rng.randint(0, 9))), mode))
    script = EditScript(tuple(directives))
    return source, script, script.apply(source) + [rng.randrange(1000) for _ in range(rng.randint(0, 9))]


@given(turns(), st.sampled_from([1, 4, 16]), st.integers(0, 20))
def test_runs_hold_the_same_tokens_as_their_source(
    turn: tuple[list[int], EditScript, list[int]], page: int, seam: int
) -> None:
    source, script, prompt = turn
    plan = plan_for(WireRequest.build(script, source, seam=seam).to_json(), prompt, page)
    assert list(plan.source[: len(source)]) == source
    shift, behind = 0, len(prompt)
    for directive in script:
        if directive.mode is Mode.FORGET:
            behind = directive.start + shift
            break
        shift += directive.delta
    position = 0
    for run in plan.runs:
        assert position <= run.start < run.end <= behind
        assert run.start % page == 0
        assert run.end - run.start >= page
        assert list(plan.source[run.start - run.shift : run.end - run.shift]) == prompt[run.start : run.end]
        position = run.end


def test_a_seam_is_part_of_a_lineages_name() -> None:
    source = list(range(40))
    script = EditScript((Directive(5, 9, (), Mode.AMORTIZE),))
    names = {
        plan_for(WireRequest.build(script, source, seam=s).to_json(), script.apply(source), 16).name for s in (1, 2)
    }
    assert len(names) == 2


@given(turns(), st.data())
def test_a_name_tells_everything_up_to_the_last_edits_end_and_nothing_behind_it(
    turn: tuple[list[int], EditScript, list[int]], data: st.DataObject
) -> None:
    source, script, prompt = turn
    name = plan_for(WireRequest.build(script, source).to_json(), prompt).name
    assert plan_for(WireRequest.build(script, source).to_json(), [*prompt, 1, 2]).name == name
    place = data.draw(st.integers(0, len(source) - 1))
    other = [*source[:place], source[place] + 1, *source[place + 1 :]]
    changed = plan_for(WireRequest.build(script, other).to_json(), script.apply(other)).name
    assert (changed == name) is (place >= script.directives[-1].end)
    assert plan_for(WireRequest.build(script, source, lineage="own").to_json(), prompt).name != name


def test_an_honest_request_moves_nothing_and_names_no_lineage() -> None:
    source = list(range(40))
    script = EditScript((Directive(5, 9, (), Mode.AMORTIZE),))
    plan = plan_for(WireRequest.build(script, source, honest=True).to_json(), script.apply(source))
    assert plan.runs == ()
    assert plan.marks == ()


def test_a_forget_in_a_lineage_marks_where_it_began() -> None:
    source = list(range(60))
    lineage = RING.seal([Mark(10, RING.name(b"x"))], SPACE)
    script = EditScript((Directive(30, 33, (), Mode.FORGET),))
    request = WireRequest.build(script, source, lineage=lineage, lineage_start=10)
    plan = plan_for(request.to_json(), script.apply(source))
    assert [mark.position for mark in plan.marks] == [10, 30]
    before = EditScript((Directive(3, 6, (), Mode.FORGET),))
    request = WireRequest.build(before, source, lineage=lineage, lineage_start=10)
    assert plan_for(request.to_json(), before.apply(source)).marks == ()


def test_many_forgets_keep_the_lineage_short_and_everything_behind_the_second_mark_private() -> None:
    lineage = RING.seal([Mark(10 * i, RING.name(bytes([i]))) for i in range(MAX_MARKS)], SPACE)
    source = list(range(100))
    script = EditScript((Directive(80, 83, (), Mode.FORGET),))
    request = WireRequest.build(script, source, lineage=lineage, lineage_start=0)
    plan = plan_for(request.to_json(), script.apply(source))
    assert [mark.position for mark in plan.marks] == [0, 10]
    assert plan.marks[1].name != RING.name(bytes([1]))


@pytest.mark.parametrize(
    ("lineage", "start", "space"),
    [
        ("made-up", 4, SPACE),
        (RING.seal([Mark(4, RING.name(b"x"))], SPACE), 5, SPACE),
        (RING.seal([Mark(4, RING.name(b"x"))], SPACE), 4, Space("another tenant")),
    ],
)
def test_a_lineage_that_is_not_the_tenants_is_refused(lineage: str, start: int, space: Space) -> None:
    source = list(range(40))
    script = EditScript((Directive(5, 9, (), Mode.AMORTIZE),))
    request = WireRequest.build(script, source, lineage=lineage, lineage_start=start)
    plan = plan_for(request.to_json(), script.apply(source), space=space)
    assert plan.fallback is Fallback.LINEAGE_MISMATCH
    assert plan.runs == plan.marks == plan.donor_marks == ()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=12), inner, max_size=5),
    max_leaves=20,
)


@given(st.one_of(json_values, st.text(max_size=200), json_values.map(json.dumps)))
@settings(max_examples=300)
def test_no_value_raises(value: Any) -> None:
    params = {"leyline": value}
    found = wire_value(params)
    if found is not None:
        plan = plan_for(found, list(range(30)))
        assert plan.runs == ()


@given(turns(), st.data())
@settings(max_examples=300)
def test_a_damaged_request_is_refused_with_a_reason_or_means_what_it_says(
    turn: tuple[list[int], EditScript, list[int]], data: st.DataObject
) -> None:
    source, script, prompt = turn
    body = WireRequest.build(script, source).to_dict()
    entry = data.draw(st.sampled_from(body["directives"]))
    field = data.draw(st.sampled_from(sorted(entry)))
    entry[field] = data.draw(st.one_of(json_values, st.lists(st.integers(0, 1000), max_size=5)))
    try:
        text = json.dumps(body)
    except ValueError:
        return
    plan = plan_for(text, prompt)
    for run in plan.runs:
        assert list(plan.source[run.start - run.shift : run.end - run.shift]) == prompt[run.start : run.end]
    if not plan.runs and not plan.script:
        assert plan.fallback is not None


@pytest.mark.parametrize("source", [[], [1, 2, 3]])
def test_what_is_put_before_everything_has_a_name_too(source: list[int]) -> None:
    script = EditScript((Directive(0, 0, (7, 8), Mode.AMORTIZE),))
    prompt = array("q", [*script.apply(source), 4])
    value = WireRequest.build(script, source).to_json()
    plan = make_plan(value, prompt, Space(), Keyring(b"secret"), page=1, max_tokens=64)
    assert plan.fallback is None
    assert len(plan.name) == 8
