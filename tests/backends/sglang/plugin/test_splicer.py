"""Growing a tree along an edited prompt, over a cache in plain Python."""

from __future__ import annotations

import random
from array import array
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline.backends.sglang.plugin.cache import Controller
from leyline.backends.sglang.plugin.keys import Keyring, Space
from leyline.backends.sglang.plugin.metrics import Metrics
from leyline.backends.sglang.plugin.move_counts import Generations
from leyline.backends.sglang.plugin.ops import Hit
from leyline.backends.sglang.plugin.receipts import make_receipt
from leyline.backends.sglang.plugin.runs import Plan, Refusal, make_plan
from leyline.backends.sglang.plugin.splicer import Splicer
from leyline.directives import Directive, EditScript, Fallback, Mode, Outcome, Receipt, WireRequest

RING = Keyring(b"secret")
SPACE = Space()


class Tree:
    """`TreeOps` as a dict from prefixes of whole pages to the slots of their last page."""

    def __init__(self, slots: int, page: int) -> None:
        self.page = page
        self.size = slots
        self.paths: dict[tuple[int, ...], list[int]] = {}
        self.free = list(range(1, slots + 1))
        self.held = 0
        self.moved: set[int] = set()
        self.fail_agree = self.fail_publish = False

    def match(self, ids: array[int], limit: int, space: Space) -> Hit:
        found = 0
        while found + self.page <= min(limit, len(ids)) and tuple(ids[: found + self.page]) in self.paths:
            found += self.page
        return Hit(found, tuple(ids[:found]))

    def slots(self, hit: Hit) -> torch.Tensor:
        pages = [self.paths[hit.node[:end]] for end in range(self.page, hit.length + 1, self.page)]
        return torch.tensor([slot for page in pages for slot in page], dtype=torch.int64)

    def hold(self, hit: Hit) -> Any:
        self.held += 1
        return hit

    def release(self, held: Any) -> None:
        self.held -= 1

    def room(self) -> int:
        return len(self.free)

    def reserve(self, tokens: int) -> torch.Tensor | None:
        assert tokens % self.page == 0
        if tokens > len(self.free):
            return None
        taken, self.free = self.free[:tokens], self.free[tokens:]
        self.moved -= set(taken)
        return torch.tensor(taken, dtype=torch.int64)

    def give_back(self, slots: torch.Tensor) -> None:
        self.free += slots.tolist()

    def publish(self, ids: array[int], slots: torch.Tensor, known: int, space: Space) -> None:
        assert len(slots) == len(ids)
        if self.fail_publish:
            raise RuntimeError("the tree refused")
        for start in range(known, len(ids), self.page):
            path = tuple(ids[: start + self.page])
            assert path not in self.paths
            self.paths[path] = slots[start : start + self.page].tolist()

    def agree(self, ok: bool) -> bool:
        return ok and not self.fail_agree

    def drop_branch(self, ids: array[int], start: int, space: Space) -> bool:
        return True

    def compute(self, ids: array[int], upto: int) -> int:
        """What a prefill of `ids[:upto]` leaves in the tree. Returns how many tokens are there now."""
        hit = self.match(ids, upto, SPACE)
        end = upto // self.page * self.page
        slots = self.reserve(end - hit.length)
        assert slots is not None
        self.publish(ids[:end], torch.cat([self.slots(hit), slots]), hit.length, SPACE)
        return end

    def evict(self, path: tuple[int, ...]) -> None:
        """Evict a path and all that stands on it."""
        for longer in [other for other in self.paths if other[: len(path)] == path]:
            self.free += self.paths.pop(longer)

    def honest(self) -> bool:
        """Whether no request without a mark could hit a slot whose KV was moved."""
        return not any(self.moved & set(page) for path, page in self.paths.items() if max(path) < 2**31)

    def adds_up(self) -> bool:
        owned = [slot for page in self.paths.values() for slot in page]
        return sorted(owned + self.free) == list(range(1, self.size + 1)) and self.held == 0


class Rig:
    """A splicer over a tree, whose "KV" is a note: the token, where it was computed, and how it was moved."""

    def __init__(self, page: int = 1, slots: int = 4000, limit: int = 32) -> None:
        self.tree = Tree(slots, page)
        self.moves: list[tuple[list[int], list[int], int, int]] = []
        self.fail_moves = False
        self.splicer = Splicer(self.tree, RING, self._move, Generations(slots + 2, "cpu", limit), chunked=True)

    def _move(self, source: torch.Tensor, target: torch.Tensor, old: int, new: int) -> None:
        if self.fail_moves:
            raise RuntimeError("the copy failed")
        self.moves.append((source.tolist(), target.tolist(), old, new))
        self.tree.moved |= set(target.tolist())

    def serve(self, prompt: list[int], value: str | None) -> tuple[Plan | None, Receipt | None]:
        """Serve a prompt as the scheduler does: match, then chunks that end at the cuts. Greedy in pages."""
        ids = array("q", prompt)
        if value is None:
            self.tree.compute(ids, len(ids))
            return None, None
        plan = make_plan(value, ids, SPACE, RING, page=self.tree.page, max_tokens=4096)
        return plan, self.finish(plan, ids)

    def finish(self, plan: Plan, ids: array[int]) -> Receipt:
        """Admit a request, for the first time or again, and compute it to its end."""
        limit = len(ids) - 1
        key = self.splicer.admit(plan, ids, limit, SPACE)
        done = self.tree.match(key, limit, SPACE).length
        while True:
            cut = plan.next_cut(done, self.tree.page)
            if cut is None:
                break
            marked = RING.marked(ids, plan.marks)
            done = self.tree.compute(marked, cut)
            hit = self.splicer.advance(plan, ids, done, limit, SPACE)
            done = hit.length if hit is not None else done
        self.tree.compute(RING.marked(ids, plan.marks), len(ids))
        return make_receipt(plan, len(ids), RING, SPACE)


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


@pytest.mark.parametrize("how", ["the copy raises", "another rank fails", "the tree refuses"])
def test_a_failed_copy_loses_no_slot_and_is_served_honestly(how: str) -> None:
    rig = Rig()
    rig.serve(SOURCE, None)
    rig.fail_moves = how == "the copy raises"
    rig.tree.fail_agree = how == "another rank fails"
    rig.tree.fail_publish = how == "the tree refuses"
    ids = array("q", PROMPT)
    controller = Controller(rig.splicer, Metrics(False), 1, 4096)
    request = SimpleNamespace(origin_input_ids=ids, output_ids=[], customized_info=None, sampling_params=None)
    plan = make_plan(VALUE, ids, SPACE, RING, page=1, max_tokens=4096)
    key = controller.admit(request, plan, ids, len(ids) - 1, SPACE)
    assert list(key) == PROMPT
    receipt = Receipt.from_meta_info(request.customized_info)
    assert receipt is not None
    assert receipt.fallback is Fallback.INTERNAL_ERROR
    assert receipt.splices == ()
    assert receipt.approximate_from is None
    assert rig.tree.adds_up()


def test_without_room_nothing_is_moved() -> None:
    rig = Rig()
    rig.serve(SOURCE, None)
    rest, rig.tree.free = rig.tree.free[10:], rig.tree.free[:10]
    plan = make_plan(VALUE, array("q", PROMPT), SPACE, RING, page=1, max_tokens=4096)
    rig.splicer.admit(plan, array("q", PROMPT), len(PROMPT) - 1, SPACE)
    assert plan.fallback is Fallback.NO_SLOTS
    assert rig.moves == []
    rig.tree.free += rest
    assert rig.tree.adds_up()
    rig.splicer.admit(plan, array("q", PROMPT), len(PROMPT) - 1, SPACE)
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


def test_a_look_at_a_retried_request_takes_slots_a_limited_number_of_times() -> None:
    """A pool that evicts at once what was moved must not be made to move it for ever."""
    rig = Rig()
    rig.serve(SOURCE, None)
    ids = array("q", PROMPT)
    plan = make_plan(VALUE, ids, SPACE, RING, page=1, max_tokens=4096)
    for _ in range(10):
        rig.splicer.admit(plan, ids, len(ids) - 1, SPACE)
        for path in [path for path in rig.tree.paths if max(path) > 2**60]:
            rig.tree.free += rig.tree.paths.pop(path)
    assert len(rig.moves) == 3
    assert plan.fallback is Fallback.NO_SLOTS
    assert plan.splices == []
    assert plan.marks == ()
    assert rig.tree.adds_up()


@pytest.mark.parametrize("left", [0, 40])
def test_what_was_moved_again_after_eviction_counts_once(left: int) -> None:
    """Between two admissions the moved KV may be evicted, in whole or from some token on."""
    rig = Rig()
    rig.serve(SOURCE, None)
    ids = array("q", PROMPT)
    plan = make_plan(VALUE, ids, SPACE, RING, page=1, max_tokens=4096)
    rig.splicer.admit(plan, ids, len(ids) - 1, SPACE)
    for path in [path for path in rig.tree.paths if max(path) > 2**60 and len(path) > left]:
        rig.tree.free += rig.tree.paths.pop(path)
    rig.splicer.admit(plan, ids, len(ids) - 1, SPACE)
    receipt = make_receipt(plan, len(ids), RING, SPACE)
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
    ids, limit = array("q", prompt), len(prompt) - 1
    value = WireRequest.build(script, SOURCE).to_json()
    rig.serve(prompt[:40], None)
    if who == "an equal one":
        rig.serve(prompt, value)
    plan = make_plan(value, ids, SPACE, RING, page=1, max_tokens=4096)
    rig.splicer.admit(plan, ids, limit, SPACE)
    assert plan.marks[0].position == 40
    assert bool(plan.splices) is (who == "the request")
    rig.tree.evict(tuple(prompt[:21]))
    done = rig.tree.match(rig.splicer.admit(plan, ids, limit, SPACE), limit, SPACE).length
    if replacement:
        rig.tree.compute(RING.marked(ids, plan.marks), plan.next_cut(done, 1) or 0)
        rig.splicer.advance(plan, ids, 23, limit, SPACE)
    receipt = make_receipt(plan, len(ids), RING, SPACE)
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
        rig.splicer.admit(plan, ids, len(ids) - 1 - rng.choice([0, 0, 20]) % len(ids), SPACE)
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
    rig.splicer.admit(plan, ids, len(ids) - 1, SPACE)
    for path in [path for path in rig.tree.paths if max(path) > 2**60]:
        rig.tree.free += rig.tree.paths.pop(path)
    rig.serve(PROMPT[:30], None)
    rig.tree.free = []
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


def test_a_request_in_chunks_never_leaves_the_path_that_it_holds() -> None:
    """An equal request may move meanwhile what this one had no room for: only this one's own slots are locked."""
    rig = Rig()
    rig.serve(SOURCE, None)
    ids = array("q", PROMPT)
    plan = make_plan(VALUE, ids, SPACE, RING, page=1, max_tokens=4096)
    rest, rig.tree.free = rig.tree.free, []
    rig.splicer.admit(plan, ids, len(ids) - 1, SPACE)
    assert plan.fallback is Fallback.NO_SLOTS
    rig.tree.free = rest
    _, twin = rig.serve(PROMPT, VALUE)
    assert twin is not None
    assert twin.approximate_from == 20
    computed = rig.tree.compute(ids, 40)
    own = rig.tree.slots(rig.tree.match(ids, computed, SPACE)).tolist()
    hit = rig.splicer.advance(plan, ids, computed, len(ids) - 1, SPACE)
    assert hit is not None
    assert rig.tree.slots(hit).tolist()[:computed] == own
    assert rig.tree.adds_up()


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
    controller.finish(request, plan)
    assert plan.reported
    assert "counting a request failed" in caplog.text


def test_a_last_attempt_that_leaves_runs_behind_says_why() -> None:
    """The attempt moves the first run; the second one, behind a replacement, would need a further one."""
    rig = Rig()
    rig.serve(SOURCE, None)
    script = EditScript((Directive(10, 15, (), Mode.AMORTIZE), Directive(40, 45, (7, 8, 9), Mode.AMORTIZE)))
    prompt = [*script.apply(SOURCE), 1]
    ids = array("q", prompt)
    value = WireRequest.build(script, SOURCE).to_json()
    plan = make_plan(value, ids, SPACE, RING, page=1, max_tokens=4096)
    for attempt in range(3):
        if attempt:
            for path in [path for path in rig.tree.paths if max(path) > 2**60]:
                rig.tree.free += rig.tree.paths.pop(path)
        rig.splicer.admit(plan, ids, len(ids) - 1, SPACE)
        assert plan.closed is (attempt == 2)
    receipt = make_receipt(plan, len(ids), RING, SPACE)
    assert receipt.acknowledged == (Outcome.SPLICED, Outcome.PREFILLED)
    assert receipt.fallback is Fallback.NO_SLOTS


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
