"""EditScript against a naive list implementation that is written from the definition, not from the code."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyline.directives import Directive, DirectiveError, EditScript, Fallback, LeylineError, Mode

A, F = Mode.AMORTIZE, Mode.FORGET
tokens = st.integers(0, 9)


@st.composite
def scripts(draw: st.DrawFn, length: int) -> EditScript:
    """Any valid script over `length` tokens, adjacent spans and repeated insertions included."""
    cuts = sorted(draw(st.lists(st.integers(0, length), min_size=0, max_size=8)))
    if len(cuts) % 2:
        cuts.pop()
    found = []
    for start, end in zip(cuts[::2], cuts[1::2], strict=True):
        replacement = tuple(draw(st.lists(tokens, max_size=4)))
        mode = draw(st.sampled_from([A, A, F]))
        if start < end or replacement or mode is F:
            found.append(Directive(start, end, replacement, mode))
    return EditScript(tuple(found))


@st.composite
def sourced(draw: st.DrawFn) -> tuple[list[int], EditScript]:
    source = draw(st.lists(tokens, max_size=30))
    return source, draw(scripts(len(source)))


@st.composite
def chained(draw: st.DrawFn) -> tuple[list[int], EditScript, EditScript]:
    source, first = draw(sourced())
    return source, first, draw(scripts(len(naive(source, first)[0])))


def naive(source: list[int], script: EditScript) -> tuple[list[int], list[int | None]]:
    """Target tokens, and for each the source position whose KV may be reused, or None.

    Right to left on plain lists, so that no accumulated shift is needed.
    """
    target, origin = list(source), list(range(len(source)))
    forgotten = min((d.start for d in script if d.mode is F), default=len(source) + 1)
    reusable: list[int | None] = [i if i < forgotten else None for i in origin]
    for d in reversed(script.directives):
        target[d.start : d.end] = list(d.replacement)
        reusable[d.start : d.end] = [None] * len(d.replacement)
    return target, reusable


@given(sourced())
def test_apply_is_the_naive_edit(case: tuple[list[int], EditScript]) -> None:
    source, script = case
    target = script.apply(source)
    assert target == naive(source, script)[0]
    assert len(target) == len(source) + script.delta


@given(sourced())
def test_invert_leads_back(case: tuple[list[int], EditScript]) -> None:
    source, script = case
    target = script.apply(source)
    back = script.invert(source)
    assert back.apply(target) == source
    assert [d.mode for d in back] == [d.mode for d in script]
    assert back.invert(target).apply(source) == target


@given(sourced(), st.lists(tokens, max_size=5))
def test_restore_rebuilds_the_source_and_keeps_the_tail(case: tuple[list[int], EditScript], tail: list[int]) -> None:
    source, script = case
    assert script.restore(script.apply(source) + tail, script.removed(source)) == source + tail


@given(sourced(), st.integers(0, 4))
def test_segments_tile_the_target_and_reuse_what_naive_allows(case: tuple[list[int], EditScript], seam: int) -> None:
    source, script = case
    target, reusable = naive(source, script)
    tiles = script.segments(len(source), seam=seam)
    position, got = 0, []
    for tile in tiles:
        assert tile.target_start == position
        assert tile.length > 0
        position = tile.target_end
        if tile.source_start is None:
            assert tile.kind == "prefill"
            got += [None] * tile.length
        else:
            assert tile.delta == tile.target_start - tile.source_start
            assert (tile.kind == "prefix") == (tile.target_start == tile.source_start == 0 and tile is tiles[0])
            assert list(source[tile.source_start :][: tile.length]) == target[tile.target_start : tile.target_end]
            got += range(tile.source_start, tile.source_start + tile.length)
    assert position == len(target)
    assert all(a.kind != "prefill" or b.kind != "prefill" for a, b in itertools.pairwise(tiles))
    first = script.directives[0].start if script else len(source)
    run = seam
    for i, origin in enumerate(reusable):
        # a reused run begins where its source position does not follow its neighbour's, or where a directive stands
        starts = origin is not None and origin >= first and any(d.end == origin for d in script)
        run = 0 if starts else run + 1
        expected = origin if origin is None or origin < first or run >= seam else None
        assert got[i] == expected


@given(chained())
def test_compose_is_both_steps(case: tuple[list[int], EditScript, EditScript]) -> None:
    source, first, later = case
    both = first.compose(later)
    assert both.apply(source) == later.apply(first.apply(source))
    both.validate(len(source))


@given(chained())
def test_compose_never_reuses_more_than_both_steps(case: tuple[list[int], EditScript, EditScript]) -> None:
    source, first, later = case
    middle, kept_first = naive(source, first)
    _, kept_later = naive(middle, later)
    in_turn = [None if k is None else kept_first[k] for k in kept_later]
    for together, stepwise in zip(naive(source, first.compose(later))[1], in_turn, strict=True):
        if together is not None and stepwise is None:
            # Only what an AMORTIZE took out and an AMORTIZE put back may be reused, never anything behind a FORGET.
            raise AssertionError((together, stepwise))
        assert together in (None, stepwise)


@given(chained())
def test_compose_keeps_every_forget(case: tuple[list[int], EditScript, EditScript]) -> None:
    _, first, later = case

    def forgets(script: EditScript) -> bool:
        return any(d.mode is Mode.FORGET for d in script)

    assert forgets(first.compose(later)) == (forgets(first) or forgets(later))


def test_compose_with_nothing_is_the_other_script() -> None:
    script = EditScript((Directive(1, 2, (7,)), Directive(2, 4, (8,), F)))
    assert script.compose(EditScript()) == script
    assert EditScript().compose(script) == script


def test_compose_merges_touching_spans_and_forget_wins() -> None:
    first = EditScript((Directive(2, 4, (7, 8, 9)),))
    later = EditScript((Directive(4, 6, (5,), F),))
    assert first.compose(later) == EditScript((Directive(2, 5, (7, 8, 5), F),))


def test_compose_drops_what_was_undone() -> None:
    assert EditScript((Directive(3, 3, (7,)),)).compose(EditScript((Directive(3, 4),))) == EditScript()


def test_a_run_behind_a_forget_is_computed_whatever_follows() -> None:
    script = EditScript((Directive(2, 3), Directive(5, 6, (1, 1), F), Directive(8, 9)))
    kinds = [(s.kind, s.target_start, s.length, s.source_start) for s in script.segments(12)]
    assert kinds == [("prefix", 0, 2, 0), ("reuse", 2, 2, 3), ("prefill", 4, 7, None)]


def test_an_empty_forget_heals_everything_behind_it() -> None:
    script = EditScript((Directive(4, 4, (), F),))
    assert script.apply(range(6)) == list(range(6))
    assert [(s.kind, s.length) for s in script.segments(6)] == [("prefix", 4), ("prefill", 2)]


def test_insertions_at_one_position_keep_their_order() -> None:
    assert EditScript((Directive(1, 1, (7,)), Directive(1, 1, (8,)))).apply([0, 0]) == [0, 7, 8, 0]


@pytest.mark.parametrize(
    ("directives", "index", "field", "bound", "reason"),
    [
        ([Directive(0, 1), Directive(-1, 2)], 1, "start", 0, Fallback.OUT_OF_RANGE),
        ([Directive(0, 2), Directive(1, 3)], 1, "start", 2, Fallback.OVERLAP),
        ([Directive(4, 3)], 0, "end", 4, Fallback.OUT_OF_RANGE),
        ([Directive(0, 1), Directive(4, 11)], 1, "end", 10, Fallback.OUT_OF_RANGE),
        ([Directive(3, 3)], 0, "end", 4, Fallback.MALFORMED),
        ([Directive(3, 4, (1, -2))], 0, "replacement", 0, Fallback.OUT_OF_RANGE),
        ([Directive(3, 4, (2**31,))], 0, "replacement", 2**31 - 1, Fallback.OUT_OF_RANGE),
        ([Directive(3, 4, (True,))], 0, "replacement", None, Fallback.MALFORMED),
        ([Directive(True, 4)], 0, "start", None, Fallback.MALFORMED),
    ],
)
def test_errors_name_the_directive_the_field_and_the_bound(
    directives: list[Directive], index: int, field: str, bound: int | None, reason: Fallback
) -> None:
    script = EditScript(tuple(directives))
    source = list(range(10))
    calls = [
        lambda: script.validate(10),
        lambda: script.apply(source),
        lambda: script.segments(10),
        lambda: script.invert(source),
        lambda: script.removed(source),
    ]
    for call in calls:
        with pytest.raises(DirectiveError) as caught:
            call()
        error = caught.value
        assert (error.index, error.field, error.bound, error.reason) == (index, field, bound, reason)
        text = str(error)
        assert text.startswith(f"directive {index}: ")
        assert field in text
        assert "\n" not in text
        assert bound is None or str(bound) in text or field == "end"
        assert isinstance(error, LeylineError)


def test_a_no_op_amortize_says_what_to_use_instead() -> None:
    with pytest.raises(DirectiveError, match="use forget to heal"):
        EditScript((Directive(3, 3),)).validate(5)


def test_the_sink_is_out_of_bounds() -> None:
    script = EditScript((Directive(3, 5),))
    script.validate(8, sink=3)
    with pytest.raises(DirectiveError, match="attention sink; the bound is 4"):
        script.validate(8, sink=4)


def test_an_unknown_mode_is_refused_when_built() -> None:
    with pytest.raises(DirectiveError, match="'amortize', 'forget' or 'auto'"):
        Directive(0, 1, (), "delete")  # type: ignore[arg-type]


def test_restore_refuses_another_target_and_wrong_removals() -> None:
    script = EditScript((Directive(2, 4, (7, 8)),))
    target = script.apply(range(6))
    with pytest.raises(DirectiveError) as caught:
        script.restore([0, 1, 7, 9, 4, 5], [(2, 3)])
    assert caught.value.reason is Fallback.TARGET_MISMATCH
    with pytest.raises(DirectiveError) as caught:
        script.restore(target[:3], [(2, 3)])
    assert caught.value.reason is Fallback.OUT_OF_RANGE
    for removed in ([(2,)], [], [(2, 3), (1,)]):
        with pytest.raises(DirectiveError):
            script.restore(target, removed)


@pytest.mark.parametrize("setting", [{"seam": -1}, {"seam": True}])
def test_a_bad_seam_is_refused(setting: dict[str, int]) -> None:
    with pytest.raises(DirectiveError, match="seam"):
        EditScript().segments(3, **setting)
