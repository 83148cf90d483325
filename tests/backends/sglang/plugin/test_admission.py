"""The scheduler's hooks, over an adder that counts and a cache in plain Python."""

from __future__ import annotations

from array import array
from enum import Enum, auto
from types import SimpleNamespace
from typing import Any

import pytest
from splice_rig import RING, SPACE, Rig

from leyline.backends.sglang.plugin.admission import AdmissionHooks
from leyline.backends.sglang.plugin.cache import STAGED, Controller
from leyline.backends.sglang.plugin.keys import Space
from leyline.backends.sglang.plugin.metrics import Metrics
from leyline.backends.sglang.plugin.runs import make_plan
from leyline.backends.sglang.plugin.staging import MAX_HOLES, Staged
from leyline.directives import Directive, EditScript, Fallback, Mode, Receipt, WireRequest


class AddReqResult(Enum):
    """SGLang's verdicts."""

    CONTINUE = auto()
    NO_TOKEN = auto()
    OTHER = auto()


class Adder:
    """What the hooks touch of a `PrefillAdder`: the budgets, and stock's rule for a chunk."""

    page_size = 1
    chunked = False
    """Whether a request in chunks goes on: its prefix is no hit then."""

    def __init__(self, rig: Rig, chunk: int | None, answer: int = 10) -> None:
        self.tree = rig.tree
        self.tree_cache = SimpleNamespace()
        self.rem_chunk_tokens = chunk
        self.rem_input_tokens = 16384
        self.answer = answer
        self.taken = 0
        """Of the pool, by others."""
        self.log_hit_tokens = self.log_input_tokens = 0
        self.can_run_list: list[Any] = []
        self.chunks: list[tuple[str, int, int]] = []

    @property
    def cur_rem_tokens(self) -> int:
        return self.tree.room() - self.taken

    def stock(self, adder: Any, req: Any, **kwargs: Any) -> Any:
        """Admit where the whole request fits the pool; a chunk takes what the chunk budget has."""
        assert adder is self
        need = len(req.full_untruncated_fill_ids) - req.prefix_len
        if need + self.answer > self.tree.room():
            return AddReqResult.NO_TOKEN
        took = need if self.rem_chunk_tokens is None else min(need, self.rem_chunk_tokens)
        if took <= 0:
            return AddReqResult.OTHER
        self.can_run_list.append(req)
        self.log_hit_tokens += 0 if self.chunked else req.prefix_len
        self.log_input_tokens += took
        self.chunks.append((req.name, req.prefix_len, took))
        if self.rem_chunk_tokens is not None:
            self.rem_chunk_tokens -= took
        return AddReqResult.CONTINUE


class Adapter:
    """The adapter's part for requests that are plain objects."""

    NO_ROOM = AddReqResult.NO_TOKEN

    @staticmethod
    def space(req: Any) -> Space:
        return SPACE

    @staticmethod
    def prefix_len(req: Any) -> int:
        return int(req.prefix_len)

    @staticmethod
    def protected_len(req: Any) -> int:
        return int(req.protected)

    @staticmethod
    def extend_prefix(req: Any, staged: Staged, cache: Any) -> Any:
        before, req.prefix_len = req.prefix_len, staged.end
        return lambda: setattr(req, "prefix_len", before)


SOURCE = list(range(100, 400))


def edit(*spans: tuple[int, int, int]) -> EditScript:
    return EditScript(tuple(Directive(a, b, tuple(range(900, 900 + n)), Mode.AMORTIZE) for a, b, n in spans))


class Scene:
    """An edited request in front of the scheduler. Its source is cached."""

    def __init__(
        self, script: EditScript, chunk: int | None = 512, slots: int = 4000, answer: int = 10, limit: int = 32
    ) -> None:
        self.rig = Rig(slots=slots, limit=limit)
        self.rig.serve(SOURCE, None)
        self.controller = Controller(self.rig.splicer, Metrics(False), 1, 4096)
        self.hooks = AdmissionHooks(Adapter, self.controller)
        self.adder = Adder(self.rig, chunk, answer)
        self.prompt = array("q", [*script.apply(SOURCE), 1])
        self.req = self.request("edited", self.prompt)
        value = WireRequest.build(script, SOURCE).to_json()
        plan = make_plan(value, self.prompt, SPACE, RING, page=1, max_tokens=4096)
        self.req._leyline_plan = self.plan = plan
        limit = len(self.prompt) - 1
        key = self.rig.splicer.admit(plan, self.prompt, limit, SPACE)
        hit = self.rig.tree.match(key, limit, SPACE)
        self.req.prefix_len = self.req.protected = hit.length
        self.req.last_node = hit.node

    @staticmethod
    def request(name: str, ids: array[int]) -> Any:
        return SimpleNamespace(
            name=name,
            full_untruncated_fill_ids=ids,
            origin_input_ids=ids,
            _compute_max_prefix_len=lambda length: length - 1,
            prefix_len=0,
            protected=0,
            last_node=(),
            output_ids=[],
            retracted_stain=False,
            customized_info=None,
        )

    def admit(self) -> Any:
        return self.hooks.add_one_req(self.adder.stock, self.adder, self.req, has_chunked_req=False)


def test_a_request_without_directives_goes_straight_to_the_scheduler() -> None:
    calls = []

    def original(*args: Any, **kwargs: Any) -> str:
        calls.append((args, kwargs))
        return "verdict"

    scene = Scene(edit((20, 30, 3)))
    adder, req = scene.adder, scene.request("plain", array("q", range(100)))
    assert scene.hooks.add_one_req(original, adder, req, True, truncation_align_size=8) == "verdict"
    assert scene.hooks.add_chunked_req(original, adder, req) == "verdict"
    assert calls == [((adder, req, True), {"truncation_align_size": 8}), ((adder, req), {})]


def test_the_scheduler_sees_a_long_prefix_and_a_short_tail() -> None:
    scene = Scene(edit((20, 30, 3), (100, 110, 0), (200, 210, 7)))
    assert scene.admit() is AddReqResult.CONTINUE
    assert scene.adder.chunks == [("edited", len(scene.prompt) - 1, 1)]
    staged: Staged = getattr(scene.req, STAGED)
    assert staged.holes == [(20, 23), (183, 190)]
    assert scene.adder.rem_chunk_tokens == 512 - 10 - 1
    assert scene.adder.rem_input_tokens == 16384 - 10
    assert scene.adder.log_hit_tokens == len(scene.prompt) - 1 - 10
    assert scene.adder.log_input_tokens == 10 + 1
    assert [(s.start, s.end) for s in scene.plan.splices] == [(23, 93), (93, 183), (190, len(scene.prompt) - 1)]


def test_what_was_counted_before_a_retraction_stays_out_of_the_statistics() -> None:
    """The scheduler subtracts a retracted request's tokens from its counts again."""
    scene = Scene(edit((20, 30, 3)))
    scene.req.retracted_stain = True
    scene.admit()
    assert (scene.adder.log_hit_tokens, scene.adder.log_input_tokens) == (len(scene.prompt) - 1, 1)


def test_a_request_that_is_not_admitted_gives_everything_back() -> None:
    scene = Scene(edit((20, 30, 3)), chunk=64)
    free = sorted(scene.rig.tree.free)

    def never(adder: Any, req: Any, **kwargs: Any) -> Any:
        assert req.prefix_len == len(scene.prompt) - 1
        return AddReqResult.OTHER

    def dies(adder: Any, req: Any, **kwargs: Any) -> Any:
        raise ValueError("the scheduler's own")

    assert scene.hooks.add_one_req(never, scene.adder, scene.req) is AddReqResult.OTHER
    with pytest.raises(ValueError, match="own"):
        scene.hooks.add_one_req(dies, scene.adder, scene.req)
    assert scene.req.prefix_len == 20
    assert sorted(scene.rig.tree.free) == free
    assert scene.rig.tree.held == 0
    assert (scene.adder.rem_chunk_tokens, scene.adder.rem_input_tokens, scene.adder.log_hit_tokens) == (64, 16384, 0)
    assert scene.plan.splices == []
    assert scene.plan.marks == ()
    assert not hasattr(scene.req, STAGED)


def test_a_request_that_only_fits_without_its_donor_is_computed() -> None:
    """The pool holds the donor's 300 tokens and 300 more: not the request's 294 and its answer beside the donor."""
    scene = Scene(edit((20, 30, 3)), slots=600, answer=100)
    scene.rig.tree.evictable = True
    assert scene.admit() is AddReqResult.CONTINUE
    assert scene.adder.chunks == [("edited", 20, 274)]
    assert scene.plan.fallback is Fallback.NO_SLOTS
    assert scene.plan.splices == []


@pytest.mark.parametrize(("chunk", "moved"), [(None, 2), (512, 2), (101, 2), (100, 1), (51, 1), (50, 0), (20, 0)])
def test_holes_share_the_budget_of_a_chunk_with_the_tail(chunk: int | None, moved: int) -> None:
    scene = Scene(edit((20, 30, 50), (200, 210, 50)), chunk=chunk)
    scene.admit()
    assert len(scene.plan.splices) == moved


def test_the_next_chunk_goes_on_where_the_first_one_ended() -> None:
    scene = Scene(edit((20, 30, 50), (200, 210, 50)), chunk=80)
    scene.admit()
    assert scene.adder.chunks == [("edited", 240, 30)]
    following = Adder(scene.rig, 80)
    following.chunked = True
    scene.req.prefix_len = scene.req.protected = 270
    scene.hooks.add_chunked_req(following.stock, following, scene.req)
    assert following.chunks == [("edited", len(scene.prompt) - 1, 1)]
    assert following.log_hit_tokens == 0, "a counter that falls ends a server with metrics"
    assert following.log_input_tokens == 20 + 1
    assert [(s.start, s.end) for s in scene.plan.splices] == [(70, 240), (290, len(scene.prompt) - 1)]


def test_a_next_chunk_moves_nothing_where_the_pool_could_not_hold_its_tail_beside_the_donor() -> None:
    """Stock lets a request between chunks go on whatever is left, and the server ended when nothing was."""
    scene = Scene(edit((20, 30, 50), (200, 210, 50)), chunk=80)
    scene.admit()
    following = Adder(scene.rig, 80)
    following.chunked, following.taken = True, scene.rig.tree.room()
    scene.req.prefix_len = scene.req.protected = 270
    before = scene.rig.tree.room()
    scene.hooks.add_chunked_req(following.stock, following, scene.req)
    assert following.chunks == [("edited", 270, 80)]
    assert scene.rig.tree.room() == before, "what was staged is given back"
    assert [(s.start, s.end) for s in scene.plan.splices] == [(70, 240)]
    assert scene.plan.fallback is Fallback.NO_SLOTS


def test_a_chunk_that_is_not_whole_in_the_tree_moves_nothing() -> None:
    scene = Scene(edit((20, 30, 50), (200, 210, 50)), chunk=80)
    scene.req.prefix_len, scene.req.protected = 25, 24
    scene.hooks.add_chunked_req(scene.adder.stock, scene.adder, scene.req)
    assert scene.adder.chunks == [("edited", 25, 80)]


def test_many_holes_leave_the_shortest_runs_out() -> None:
    scene = Scene(edit((20, 21, 1), (40, 41, 1), (42, 43, 1), (60, 61, 1)))
    scene.adder._leyline_holes = MAX_HOLES - 3
    scene.admit()
    assert [(s.start, s.end) for s in scene.plan.splices] == [(21, 40), (43, 60), (61, 300)]


def test_what_was_moved_too_often_is_computed_and_the_receipt_says_so() -> None:
    scene = Scene(edit((20, 30, 3)), limit=0)
    assert scene.admit() is AddReqResult.CONTINUE
    assert scene.adder.chunks == [("edited", 20, len(scene.prompt) - 20)]
    receipt = Receipt.from_meta_info(scene.req.customized_info)
    assert receipt is not None
    assert receipt.fallback is Fallback.GENERATION_LIMIT
    assert scene.rig.tree.held == 0


def test_a_failure_never_reaches_the_scheduler(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(edit((20, 30, 3)))
    scene.plan.runs = (None,)  # type: ignore[assignment]
    assert scene.admit() is AddReqResult.CONTINUE
    assert scene.adder.chunks == [("edited", 20, len(scene.prompt) - 20)]
    assert scene.plan.closed
    assert "splicing failed" in caplog.text
