"""The scheduler's hooks, over an adder that counts."""

from __future__ import annotations

from array import array
from enum import Enum, auto
from types import SimpleNamespace
from typing import Any

import pytest

from leyline.backends.sglang.plugin.admission import AdmissionHooks
from leyline.backends.sglang.plugin.runs import Plan, Run


class AddReqResult(Enum):
    """SGLang's verdicts."""

    CONTINUE = auto()
    NO_TOKEN = auto()
    OTHER = auto()


class Adder:
    """What the hooks touch of a `PrefillAdder`: the budgets, and stock's rule for a chunk."""

    page_size = 1

    def __init__(self, chunk: int | None, pool: int) -> None:
        self.rem_chunk_tokens = chunk
        self.pool = pool
        self.can_run_list: list[Any] = []
        self.new_chunked_req: Any = None
        self.chunks: list[tuple[str, int]] = []

    def ceil_paged_tokens(self, tokens: int) -> int:
        return tokens

    def budget_state(self) -> AddReqResult:
        return AddReqResult.NO_TOKEN if self.pool <= 0 else AddReqResult.CONTINUE

    def stock(self, adder: Any, req: Any, has_chunked_req: bool = False, truncation_align_size: Any = None) -> Any:
        """Admit where the whole request fits the pool; a chunk takes what the chunk budget has."""
        assert adder is self
        need = len(req.full_untruncated_fill_ids) - req.prefix_len
        if need + req.sampling_params.max_new_tokens >= self.pool:
            return AddReqResult.NO_TOKEN
        took = need if self.rem_chunk_tokens is None else min(need, self.rem_chunk_tokens)
        if took < need:
            assert self.new_chunked_req is None
            assert not has_chunked_req
            self.new_chunked_req = req
        self.can_run_list.append(req)
        self.chunks.append((req.name, took))
        req.extend_end = req.prefix_len + took
        self.pool -= took
        if self.rem_chunk_tokens is not None:
            self.rem_chunk_tokens -= took
        return self.budget_state()


class Adapter:
    """The adapter's part, with a pool that can be charged."""

    NOT_NOW = AddReqResult.OTHER

    @staticmethod
    def prefix_len(req: Any) -> int:
        return int(req.prefix_len)

    @staticmethod
    def extend_end(req: Any) -> int:
        return int(req.extend_end)

    @staticmethod
    def charge(adder: Any, tokens: int) -> None:
        adder.pool -= tokens


def request(name: str, tokens: int, runs: tuple[Run, ...] | None = None, answer: int = 10) -> Any:
    req = SimpleNamespace(
        name=name,
        full_untruncated_fill_ids=array("q", range(tokens)),
        prefix_len=0,
        host_hit_length=0,
        output_ids=[],
        sampling_params=SimpleNamespace(max_new_tokens=answer),
    )
    if runs is not None:
        req._leyline_plan = Plan(runs=runs, reach=10_000)
    return req


HOOKS = AdmissionHooks(Adapter)
EDITED = (Run(30, 200, 0, 0),)


def test_a_request_without_directives_goes_straight_to_the_scheduler() -> None:
    calls = []

    def original(*args: Any, **kwargs: Any) -> str:
        calls.append((args, kwargs))
        return "verdict"

    adder, req = Adder(512, 4000), request("plain", 100)
    assert HOOKS.add_one_req(original, adder, req, True, truncation_align_size=8) == "verdict"
    assert HOOKS.add_chunked_req(original, adder, req) == "verdict"
    assert calls == [((adder, req, True), {"truncation_align_size": 8}), ((adder, req), {})]


def test_a_chunk_ends_where_a_run_starts_and_leaves_its_budget_to_others() -> None:
    adder = Adder(512, 4000)
    edited, plain = request("edited", 220, EDITED), request("plain", 100)
    assert HOOKS.add_one_req(adder.stock, adder, edited, has_chunked_req=False) is AddReqResult.CONTINUE
    assert HOOKS.add_one_req(adder.stock, adder, plain, has_chunked_req=False) is AddReqResult.CONTINUE
    assert adder.chunks == [("edited", 30), ("plain", 100)]
    assert adder.rem_chunk_tokens == 512 - 130


def test_only_one_request_is_in_chunks() -> None:
    adder = Adder(512, 4000)
    HOOKS.add_one_req(adder.stock, adder, request("edited", 220, EDITED), has_chunked_req=False)
    for second in (request("also edited", 220, EDITED), request("long", 600)):
        assert HOOKS.add_one_req(adder.stock, adder, second, has_chunked_req=False) is AddReqResult.OTHER
    assert HOOKS.add_one_req(adder.stock, adder, request("short", 50), has_chunked_req=False) is AddReqResult.CONTINUE


def test_what_a_cut_request_still_takes_is_set_aside() -> None:
    """The crash of a full pool: 300 slots, an edited request of 220 tokens and 10 to answer, another of 100.

    Stock admits the first and has 80 slots left: the other waits. The cut takes 30 slots now, and without setting the
    rest aside the other would fit into slots that the first was promised.
    """
    adder = Adder(512, 300)
    edited, other = request("edited", 220, EDITED), request("other", 100)
    HOOKS.add_one_req(adder.stock, adder, edited, has_chunked_req=False)
    assert HOOKS.add_one_req(adder.stock, adder, other, has_chunked_req=False) is AddReqResult.NO_TOKEN
    assert [name for name, _ in adder.chunks] == ["edited"]
    # The next pass begins with the rest of the chunked request, and another cut.
    following = Adder(512, 270)
    edited.prefix_len, edited._leyline_plan = 30, Plan(runs=(Run(60, 200, 0, 0),), reach=10_000)
    HOOKS.add_chunked_req(lambda _, req: req if following.stock(following, req) else None, following, edited)
    assert HOOKS.add_one_req(following.stock, following, other, has_chunked_req=True) is AddReqResult.NO_TOKEN


@pytest.mark.parametrize("chunk", [None, 20])
def test_a_cut_outside_the_budget_changes_nothing(chunk: int | None) -> None:
    adder = Adder(chunk, 4000)
    HOOKS.add_one_req(adder.stock, adder, request("edited", 220, EDITED), has_chunked_req=False)
    assert adder.chunks == [("edited", 220 if chunk is None else 20)]


def test_a_broken_plan_never_reaches_the_scheduler() -> None:
    adder, req = Adder(512, 4000), request("edited", 220, EDITED)
    req._leyline_plan.runs = (None,)
    assert HOOKS.add_one_req(adder.stock, adder, req, has_chunked_req=False) is AddReqResult.CONTINUE
    assert adder.chunks == [("edited", 220)]
    assert req._leyline_plan.closed
