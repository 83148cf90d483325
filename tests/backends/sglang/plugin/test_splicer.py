"""From an edited prompt to moves into its own slots, over a cache in plain Python."""

from __future__ import annotations

import random
from array import array
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from splice_rig import RING, SPACE, Rig

from leyline.backends.sglang.plugin.cache import Controller
from leyline.backends.sglang.plugin.metrics import Metrics
from leyline.backends.sglang.plugin.receipts import make_receipt
from leyline.backends.sglang.plugin.runs import Refusal, make_plan
from leyline.backends.sglang.plugin.staging import Room
from leyline.directives import Directive, EditScript, Fallback, Mode, Outcome, Receipt, WireRequest


@st.composite
def edits(draw: st.DrawFn) -> tuple[list[int], EditScript, list[int]]:
    rng = random.Random(draw(st.integers(0, 2**32)))
    source = [rng.randrange(1000) for _ in range(draw(st.integers(10, 150)))]
    points = sorted(rng.sample(range(len(source)), 2 * draw(st.integers(1, 4))))
    directives = [
        Directive(start, end, tuple(rng.randrange(1000) for _ in range(rng.choice([0, 0, 3, 20]))), Mode.AMORTIZE)
        for start, end in zip(points[::2], points[1::2], strict=True)
    ]
    script = EditScript(tuple(directives))
    return source, script, script.apply(source) + [rng.randrange(1000) for _ in range(rng.randint(1, 9))]


@given(edits(), st.sampled_from([1, 4, 16]), st.integers(0, 12))
@settings(max_examples=80, deadline=None)
def test_everything_that_can_be_moved_is_moved_from_the_same_tokens(
    turn: tuple[list[int], EditScript, list[int]], page: int, seam: int
) -> None:
    source, script, prompt = turn
    rig = Rig(page)
    rig.serve(source, None)
    held = len(source) // page * page
    plan, receipt = rig.serve(prompt, WireRequest.build(script, source, seam=seam).to_json())
    assert plan is not None
    assert receipt is not None
    assert rig.tree.adds_up()
    for splice, (_, _, old, new) in zip(receipt.splices, rig.moves, strict=True):
        assert (new, old) == (splice.start, splice.start - splice.delta)
        assert source[old : old + splice.end - splice.start] == prompt[splice.start : splice.end]
    wanted = 0
    for segment in script.segments(len(source), seam=seam):
        if segment.kind == "reuse" and segment.source_start is not None:
            shift = segment.target_start - segment.source_start
            first = -(-segment.target_start // page) * page
            last = min(segment.target_start + segment.length, held + shift, len(prompt) - 1) // page * page
            wanted += max(0, last - first)
    assert receipt.spliced_tokens == wanted
    # The honest part of the tree is untouched: only whole plain prefixes of the two texts are in it.
    for path in rig.tree.paths:
        if max(path) < 2**31:
            assert list(path) in (source[: len(path)], prompt[: len(path)])
            if list(path) != source[: len(path)]:
                assert receipt.approximate_from is None or len(path) <= receipt.approximate_from


@given(edits())
@settings(max_examples=30, deadline=None)
def test_the_same_request_again_moves_nothing(turn: tuple[list[int], EditScript, list[int]]) -> None:
    source, script, prompt = turn
    rig = Rig()
    rig.serve(source, None)
    value = WireRequest.build(script, source).to_json()
    _, first = rig.serve(prompt, value)
    moves = len(rig.moves)
    _, again = rig.serve(prompt, value)
    assert first is not None
    assert again is not None
    assert len(rig.moves) == moves
    assert again.lineage == first.lineage
    assert again.prefix_tokens >= first.prefix_tokens + first.spliced_tokens


SOURCE = list(range(100, 180))
SCRIPT = EditScript((Directive(20, 30, (), Mode.AMORTIZE),))
PROMPT = [*SCRIPT.apply(SOURCE), 1]
VALUE = WireRequest.build(SCRIPT, SOURCE).to_json()


def test_without_room_nothing_is_moved() -> None:
    rig = Rig()
    rig.serve(SOURCE, None)
    rest, rig.tree.free = rig.tree.free[10:], rig.tree.free[:10]
    ids = array("q", PROMPT)
    plan = make_plan(VALUE, ids, SPACE, RING, page=1, max_tokens=4096)
    own = rig.tree.match(rig.splicer.admit(plan, ids, len(ids) - 1, SPACE), len(ids) - 1, SPACE)
    assert rig.splicer.stage(plan, ids, own, plan.donor, len(ids) - 1, SPACE, Room(100, 9)) is None
    assert plan.fallback is Fallback.NO_SLOTS
    rig.tree.free += rest
    assert rig.tree.adds_up()
    rig.finish(plan, ids)
    assert plan.fallback is None, "a later admission, with room, starts over"
    assert len(rig.moves) == 1


def test_an_unknown_source_is_told_from_an_evicted_one() -> None:
    rig = Rig()
    _, receipt = rig.serve(PROMPT, VALUE)
    assert receipt is not None
    assert receipt.fallback is Fallback.SOURCE_MISMATCH
    rig = Rig()
    rig.serve(SOURCE[:30], None)
    _, receipt = rig.serve(PROMPT, VALUE)
    assert receipt is not None
    assert receipt.fallback is Fallback.DONOR_MISSING


def test_a_request_that_waits_keeps_nothing_and_moves_nothing() -> None:
    rig = Rig()
    rig.serve(SOURCE, None)
    ids = array("q", PROMPT)
    plan = make_plan(VALUE, ids, SPACE, RING, page=1, max_tokens=4096)
    for _ in range(10):
        own = rig.tree.match(rig.splicer.admit(plan, ids, len(ids) - 1, SPACE), len(ids) - 1, SPACE)
        staged = rig.splicer.stage(plan, ids, own, plan.donor, len(ids) - 1, SPACE, Room(100, 9))
        assert staged is not None
        assert (staged.start, staged.end) == (20, 70)
        assert rig.tree.held == 2
        rig.splicer.unstage(staged)
        assert rig.tree.adds_up()
    assert rig.moves == []
    assert plan.splices == []
    assert plan.marks == ()


@pytest.mark.parametrize("left", [0, 40])
def test_what_was_moved_again_after_eviction_counts_once(left: int) -> None:
    """Between two admissions the moved KV may be evicted, in whole or from some token on."""
    rig = Rig()
    rig.serve(SOURCE, None)
    ids = array("q", PROMPT)
    plan = make_plan(VALUE, ids, SPACE, RING, page=1, max_tokens=4096)
    rig.finish(plan, ids)
    for path in [path for path in rig.tree.paths if max(path) > 2**60 and len(path) > left]:
        rig.tree.free += rig.tree.paths.pop(path)
    receipt = rig.finish(plan, ids)
    assert (receipt.prefix_tokens, receipt.spliced_tokens, receipt.prefilled_tokens) == (20, 50, 1)
    assert [(s.start, s.end) for s in receipt.splices] == ([(20, 40), (40, 70)] if left else [(20, 70)])


@pytest.mark.parametrize("replacement", [(), (7, 8, 9)])
@pytest.mark.parametrize("who", ["the request", "an equal one"])
def test_a_move_that_starts_earlier_after_eviction_has_its_mark_there(replacement: tuple[int, ...], who: str) -> None:
    """The first admission moves from 40 on, behind somebody's honest tokens; then those are evicted too."""
    rig = Rig()
    rig.serve(SOURCE, None)
    script = EditScript((Directive(20, 30, replacement, Mode.AMORTIZE),))
    prompt = [*script.apply(SOURCE), 1]
    ids = array("q", prompt)
    value = WireRequest.build(script, SOURCE).to_json()
    rig.serve(prompt[:40], None)
    plan = make_plan(value, ids, SPACE, RING, page=1, max_tokens=4096)
    if who == "an equal one":
        rig.serve(prompt, value)
        rig.splicer.admit(plan, ids, len(prompt) - 1, SPACE)
    else:
        rig.finish(plan, ids)
    assert plan.marks[0].position == 40
    assert bool(plan.splices) is (who == "the request")
    rig.tree.evict(tuple(prompt[:21]))
    receipt = rig.finish(plan, ids)
    assert receipt.approximate_from == plan.splices[0].start == 20 + len(replacement)
    assert rig.tree.match(ids, len(ids), SPACE).length == 20 + len(replacement)
    assert rig.tree.honest()
    assert rig.tree.adds_up()


@given(edits(), st.sampled_from([1, 1, 4]), st.integers(0, 9), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_no_eviction_between_admissions_lets_moved_kv_out_of_its_lineage(
    turn: tuple[list[int], EditScript, list[int]], page: int, seam: int, rng: random.Random
) -> None:
    source, script, prompt = turn
    rig = Rig(page)
    rig.serve(source, None)
    rig.serve(prompt[: rng.randint(page, len(prompt))], None)
    ids, value = array("q", prompt), WireRequest.build(script, source, seam=seam).to_json()
    plan = make_plan(value, ids, SPACE, RING, page=page, max_tokens=4096)
    for _ in range(3):
        if rng.random() < 0.5:
            rig.splicer.admit(plan, ids, len(ids) - 1 - rng.choice([0, 0, 20]) % len(ids), SPACE)
        else:
            rig.finish(plan, ids, page * rng.randint(2, 40))
        for path in rng.sample(sorted(rig.tree.paths), min(2, len(rig.tree.paths))):
            if rng.random() < 0.7:
                rig.tree.evict(path)
        if rng.random() < 0.3:
            rig.serve(prompt, value)
        assert rig.tree.honest()
    receipt = rig.finish(plan, ids)
    assert rig.tree.honest()
    assert rig.tree.adds_up()
    if receipt.splices:
        assert receipt.approximate_from is not None
        assert receipt.approximate_from <= min(splice.start for splice in receipt.splices)


def test_a_request_that_leaves_its_lineage_counts_the_honest_hit() -> None:
    rig = Rig()
    rig.serve(SOURCE, None)
    ids = array("q", PROMPT)
    plan = make_plan(VALUE, ids, SPACE, RING, page=1, max_tokens=4096)
    rig.finish(plan, ids)
    for path in [path for path in rig.tree.paths if max(path) > 2**60]:
        rig.tree.free += rig.tree.paths.pop(path)
    rig.serve(PROMPT[:30], None)
    key = rig.splicer.admit(plan, ids, len(ids) - 1, SPACE)
    assert list(key) == PROMPT
    assert make_receipt(plan, len(ids), RING, SPACE).prefix_tokens == 30


def test_what_a_lineage_forgot_stays_forgotten_behind_an_earlier_edit() -> None:
    """The secret's reader is healed; then a word before it is changed and changed back."""
    rig = Rig()
    start, word, secret, rest = list(range(10)), list(range(10, 20)), [90, 91, 92], list(range(30, 60))
    turns = [
        ([*start, *word, *secret, *rest], EditScript((Directive(2, 4, (), Mode.AMORTIZE),))),
        ([*start[:2], *start[4:], *word, *secret, *rest], EditScript((Directive(18, 21, (), Mode.AMORTIZE),))),
        ([*start[:2], *start[4:], *word, *rest], EditScript((Directive(18, 18, (), Mode.FORGET),))),
        ([*start[:2], *start[4:], *word, *rest], EditScript((Directive(12, 13, (77,), Mode.AMORTIZE),))),
    ]
    turns.append((turns[3][1].apply(turns[3][0]), EditScript((Directive(12, 13, (14,), Mode.AMORTIZE),))))
    rig.serve(turns[0][0], None)
    lineage, begin = None, None
    knows_secret: set[int] = set()
    for index, (source, script) in enumerate(turns):
        value = WireRequest.build(script, source, lineage=lineage, lineage_start=begin).to_json()
        prompt = script.apply(source)
        plan, receipt = rig.serve(prompt, value)
        assert plan is not None
        assert receipt is not None
        lineage, begin = receipt.lineage, receipt.approximate_from
        assert begin == 2
        ids = RING.marked(array("q", prompt), plan.marks)
        held = rig.tree.slots(rig.tree.match(ids, len(ids), SPACE)).tolist()
        if index == 1:
            knows_secret = set(held[18:])
        elif index > 1:
            assert not knows_secret & set(held), f"turn {index} is served from what the secret's readers computed"
    assert prompt == turns[2][0]


def test_a_run_of_no_whole_page_is_not_called_cached() -> None:
    rig = Rig(page=16)
    source = list(range(100, 300))
    script = EditScript((Directive(40, 44, (), Mode.AMORTIZE), Directive(50, 52, (), Mode.AMORTIZE)))
    prompt, value = script.apply(source), WireRequest.build(script, source).to_json()
    rig.serve(source, None)
    _, receipt = rig.serve(prompt, value)
    assert receipt is not None
    assert receipt.acknowledged == (Outcome.PREFILLED, Outcome.SPLICED)
    assert receipt.fallback is Fallback.PAGE_ALIGNMENT
    _, again = rig.serve(prompt, value)
    assert again is not None
    assert again.acknowledged == (Outcome.CACHED, Outcome.CACHED)
    assert again.fallback is None


def test_logprobs_of_the_prompt_are_told_as_the_reason() -> None:
    rig = Rig()
    rig.serve(SOURCE, None)
    ids = array("q", PROMPT)
    plan = make_plan(VALUE, ids, SPACE, RING, page=1, max_tokens=4096)
    rig.splicer.admit(plan, ids, 5, SPACE)
    receipt = make_receipt(plan, len(ids), RING, SPACE)
    assert receipt.acknowledged == (Outcome.PREFILLED,)
    assert receipt.fallback is Fallback.UNSUPPORTED_FEATURE
    assert receipt.detail is not None
    assert "logprobs" in receipt.detail


def test_a_server_that_does_not_splice_does_not_purge(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    dropped: list[int] = []
    monkeypatch.setattr(rig.tree, "drop_branch", lambda ids, start, space: dropped.append(start) or True)
    script = EditScript((Directive(20, 30, (), Mode.FORGET),))
    value = WireRequest.build(script, SOURCE, purge=True).to_json()
    for refusal in (None, Refusal(Fallback.UNSUPPORTED_FEATURE, "the server runs with the hierarchical cache")):
        ids = array("q", script.apply(SOURCE))
        params = SimpleNamespace(custom_params={"leyline": value})
        request = SimpleNamespace(origin_input_ids=ids, output_ids=[], customized_info=None, sampling_params=params)
        controller = Controller(rig.splicer, Metrics(False), 1, 4096, refusal)
        plan = controller.plan(request, SPACE)
        assert plan is not None
        controller.admit(request, plan, ids, len(ids) - 1, SPACE)
        receipt = Receipt.from_meta_info(request.customized_info)
        assert receipt is not None
        assert receipt.acknowledged == (Outcome.FORGOTTEN,)
        assert receipt.fallback is (refusal.reason if refusal else None)
    assert dropped == [20]


def test_a_receipt_that_cannot_be_counted_stays_out_of_the_scheduler(caplog: pytest.LogCaptureFixture) -> None:
    """Accounting takes the receipt's place in a request that was retracted after its first token."""
    pytest.importorskip("prometheus_client")
    rig = Rig()
    ids = array("q", PROMPT)
    params = SimpleNamespace(custom_params={"leyline": VALUE})
    request = SimpleNamespace(origin_input_ids=ids, output_ids=[], customized_info=None, sampling_params=params)
    controller = Controller(rig.splicer, Metrics(True), 1, 4096)
    plan = controller.plan(request, SPACE)
    assert plan is not None
    controller.admit(request, plan, ids, len(ids) - 1, SPACE)
    request.output_ids = [1]
    request.customized_info = {"leyline": [{"accounting": {"ok": True}}]}
    controller.admit(request, plan, ids, len(ids) - 1, SPACE)
    controller.finish(request, plan, SPACE)
    assert plan.reported
    assert "counting a request failed" in caplog.text


@pytest.mark.parametrize("page", [1, 4])
@pytest.mark.parametrize("behind", [1, 4])
def test_a_run_that_ends_with_the_prompts_last_token_is_told_as_what_it_is(page: int, behind: int) -> None:
    """The last token is always computed. Alone behind the edit it leaves nothing to move; a page with it is cut off."""
    rig = Rig(page=page)
    source = list(range(100, 148 + behind))
    script = EditScript((Directive(40, 48, (), Mode.AMORTIZE),))
    rig.serve(source, None)
    _, receipt = rig.serve(script.apply(source), WireRequest.build(script, source).to_json())
    assert receipt is not None
    moved = behind > page
    outcome = Outcome.SPLICED if moved else Outcome.CACHED if behind == 1 else Outcome.PREFILLED
    assert receipt.acknowledged == (outcome,)
    assert receipt.fallback is (Fallback.PAGE_ALIGNMENT if outcome is Outcome.PREFILLED else None)


@pytest.mark.parametrize("before", [False, True])
def test_a_turn_with_a_longer_tail_finds_what_was_moved_ahead_of_it(before: bool) -> None:
    """A prewarmed prompt ends where the turn's new text begins; with `before`, in a lineage of an earlier turn."""
    rig = Rig()
    rig.serve(SOURCE, None)
    source, lineage, begin = SOURCE, None, None
    if before:
        _, first = rig.serve(PROMPT, VALUE)
        assert first is not None
        source, lineage, begin = PROMPT, first.lineage, first.approximate_from
    script = EditScript((Directive(10, 14, (), Mode.AMORTIZE), Directive(30, 33, (5,), Mode.AMORTIZE)))
    known = script.apply(source)
    value = WireRequest.build(script, source, lineage=lineage, lineage_start=begin).to_json()
    _, ahead = rig.serve(known, value)
    assert ahead is not None
    assert ahead.spliced_tokens > 0
    moves = len(rig.moves)
    _, turn = rig.serve([*known, *range(900, 920)], value)
    assert turn is not None
    assert len(rig.moves) == moves
    assert turn.prefix_tokens == len(known)
    assert turn.acknowledged == (Outcome.CACHED, Outcome.CACHED)
    assert turn.fallback is None
    another = [*source[:11], 3, *source[12:]]
    value = WireRequest.build(script, another, lineage=lineage, lineage_start=begin).to_json()
    _, other = rig.serve([*known, 900], value)
    assert other is not None
    assert other.prefix_tokens == 10, "other removed tokens do not share the path"


@given(edits(), st.sampled_from([1, 4]), st.integers(0, 9), st.integers(2, 60))
@settings(max_examples=80, deadline=None)
def test_in_any_chunks_the_same_is_moved_or_computed_in_its_place(
    turn: tuple[list[int], EditScript, list[int]], page: int, seam: int, chunk: int
) -> None:
    source, script, prompt = turn
    whole, rig = Rig(page), Rig(page)
    value = WireRequest.build(script, source, seam=seam).to_json()
    for each in (whole, rig):
        each.serve(source, None)
    _, expected = whole.serve(prompt, value)
    ids = array("q", prompt)
    plan = make_plan(value, ids, SPACE, RING, page=page, max_tokens=4096)
    receipt = rig.finish(plan, ids, chunk * page)
    assert expected is not None
    assert receipt.prefix_tokens == expected.prefix_tokens
    assert rig.tree.honest()
    assert rig.tree.adds_up()
    spans = [(splice.start, splice.end) for splice in expected.splices]
    for splice in receipt.splices:
        assert any(a <= splice.start and splice.end <= b for a, b in spans)
    # A chunk that ends in a hole computes some of the run behind it: less than one page, each time.
    assert expected.spliced_tokens - receipt.spliced_tokens <= page * (len(prompt) // chunk + 1)


def test_a_token_is_moved_a_limited_number_of_times_on_every_branch_of_a_lineage() -> None:
    """The bound of a path is the host's; where it reaches the limit, what was counted a slot decides."""
    rig = Rig(limit=3)
    source: list[int] = list(range(100, 400))
    rig.serve(source, None)
    known: dict[str, Any] = {}
    script = EditScript((Directive(20, 21, (), Mode.AMORTIZE),))
    late = EditScript((Directive(250, 251, (), Mode.AMORTIZE),))
    moved = []
    for turn in range(6):
        edit = late if turn in (1, 2) else script
        prompt = edit.apply(source)
        _, receipt = rig.serve(prompt, WireRequest.build(edit, source, **known).to_json())
        assert receipt is not None
        known = {"lineage": receipt.lineage, "lineage_start": receipt.approximate_from}
        moved.append((receipt.spliced_tokens, receipt.fallback))
        source = prompt
    # Those from 250 on are moved in turns 0, 1 and 2, and computed in turn 3; those before, in 0, 3 and 4.
    limit = Fallback.GENERATION_LIMIT
    assert [fallback for _, fallback in moved] == [None, None, None, limit, None, limit]
    assert moved[3][0] == 230 - 1
    assert int(rig.counts._count.max()) == 3


def test_without_holes_only_what_follows_the_prefix_is_moved() -> None:
    refusal = Refusal(Fallback.UNSUPPORTED_FEATURE, "a replacement or a seam needs another attention backend")
    rig = Rig(no_holes=refusal)
    rig.serve(SOURCE, None)
    _, receipt = rig.serve(PROMPT, VALUE)
    assert receipt is not None
    assert receipt.fallback is None
    assert receipt.spliced_tokens == 50
    script = EditScript((Directive(10, 15, (), Mode.AMORTIZE), Directive(40, 45, (7, 8, 9), Mode.AMORTIZE)))
    _, receipt = rig.serve([*script.apply(SOURCE), 1], WireRequest.build(script, SOURCE).to_json())
    assert receipt is not None
    assert receipt.acknowledged == (Outcome.SPLICED, Outcome.PREFILLED)
    assert (receipt.fallback, receipt.detail) == refusal
