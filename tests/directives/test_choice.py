"""AUTO's decision against every other one, by brute force."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyline.directives import Choice, Costs, Directive, EditScript, Load, Mode, Reusable, WireError, choose, reusable

CHEAP_MOVES = Costs(forward=0.01, token=1e-5, pair=1e-9, hole=1e-4, move=1e-4, byte=1e-12, token_bytes=1000)


@st.composite
def prompts(draw: st.DrawFn) -> tuple[int, int, list[Reusable]]:
    at = held = draw(st.integers(0, 50))
    runs = []
    for _ in range(draw(st.integers(0, 7))):
        start = at + draw(st.integers(0, 40))
        at = start + draw(st.integers(1, 60))
        runs.append(Reusable(start, at, draw(st.integers(0, 3)) == 0))
    return held, at + draw(st.integers(1, 40)), runs


def seconds(value: float) -> st.SearchStrategy[float]:
    return st.floats(0, value, allow_nan=False)


costs = st.builds(
    Costs,
    forward=seconds(0.1),
    token=seconds(1e-3),
    pair=seconds(1e-5),
    hole=seconds(0.02),
    move=seconds(0.02),
    byte=seconds(1e-5),
    token_bytes=st.integers(1, 100),
    chunk=st.integers(1, 200),
)
loads = st.builds(Load, st.integers(0, 1000), st.integers(0, 8))


def work(held: int, length: int, runs: list[Reusable], move: tuple[bool, ...]) -> tuple[list[tuple[int, int]], int]:
    """From the definition: which tokens are computed, in maximal blocks."""
    moved = {t for run, m in zip(runs, move, strict=True) if m for t in range(run.start, run.end)}
    computed = [t for t in range(held, length) if t not in moved]
    blocks = []
    for _, group in itertools.groupby(enumerate(computed), lambda pair: pair[1] - pair[0]):
        tokens = [token for _, token in group]
        blocks.append((tokens[0], tokens[-1] + 1))
    return blocks, len(moved)


@given(prompts(), costs, loads)
def test_auto_never_takes_what_it_expects_to_be_slower(
    prompt: tuple[int, int, list[Reusable]], constants: Costs, load: Load
) -> None:
    held, length, runs = prompt
    choice, moves = choose(constants, held, length, runs, load)
    assert choice.expected[choice.taken] == min(choice.expected.values())
    assert choice.expected[choice.taken] == constants.turn(*work(held, length, runs, moves), load)
    for way, move in (("splice", [True] * len(runs)), ("prefill", [run.must for run in runs])):
        found = constants.turn(*work(held, length, runs, tuple(move)), load)
        assert choice.expected[choice.taken] <= found
        if way in choice.expected:
            assert choice.expected[way] == found
    assert all(m for m, run in zip(moves, runs, strict=True) if run.must), "an AMORTIZE was not moved"


@given(prompts(), costs)
def test_fewer_runs_are_the_fewest_that_cost_least(prompt: tuple[int, int, list[Reusable]], constants: Costs) -> None:
    """With forward passes counted by their share and no cost of a turn's first move, no subset of runs is cheaper."""
    held, length, runs = prompt
    shared = replace(constants, forward=0.0, move=0.0, token=constants.token + constants.forward / constants.chunk)
    choice, _moves = choose(shared, held, length, runs)
    subsets = [s for s in itertools.product((False, True), repeat=len(runs)) if all(map(_allowed, s, runs))]
    best = min(shared.turn(*work(held, length, runs, s)) for s in subsets)
    assert choice.expected[choice.taken] == pytest.approx(best, rel=1e-9, abs=1e-12)


def _allowed(moved: bool, run: Reusable) -> bool:
    return moved or not run.must


def test_where_moving_is_cheap_everything_is_moved() -> None:
    choice, moves = choose(CHEAP_MOVES, 100, 20_000, [Reusable(200, 9000), Reusable(9100, 19_000)])
    assert choice.taken == "splice"
    assert moves == (True, True)
    assert choice.expected["splice"] < choice.expected["prefill"] / 3


def test_a_short_run_between_two_edits_is_computed_with_them() -> None:
    choice, moves = choose(
        CHEAP_MOVES, 100, 20_000, [Reusable(200, 9000), Reusable(9100, 9103), Reusable(9200, 19_990)]
    )
    assert choice.taken == "fewer"
    assert moves == (True, False, True)


def test_where_little_stands_behind_the_edit_it_is_prefilled() -> None:
    choice, moves = choose(CHEAP_MOVES, 15_000, 15_040, [Reusable(15_010, 15_014)])
    assert choice.taken == "prefill"
    assert moves == (False,)


def test_at_equal_cost_the_cache_stays_honest() -> None:
    nothing = Costs(0, 0, 0, 0, 0, 0)
    assert choose(nothing, 0, 100, [Reusable(10, 90)])[0].taken == "prefill"


def test_without_runs_there_is_one_way() -> None:
    choice, moves = choose(CHEAP_MOVES, 5, 10, [])
    assert (choice.taken, list(choice.expected), moves) == ("prefill", ["prefill"], ())
    choice, moves = choose(CHEAP_MOVES, 5, 10, [Reusable(6, 9, must=True)])
    assert (choice.taken, list(choice.expected), moves) == ("splice", ["splice"], (True,))


def test_the_directive_right_before_a_run_says_whether_it_must_be_moved() -> None:
    script = EditScript((Directive(2, 4, (), Mode.AUTO), Directive(6, 8), Directive(10, 10, (7,), Mode.AUTO)))
    runs = [(2, 4, -2), (4, 6, -4), (7, 9, -3)]
    assert reusable(script, runs) == (Reusable(2, 4), Reusable(4, 6, must=True), Reusable(7, 9))


@pytest.mark.parametrize(
    "data",
    [
        5,
        {"taken": "guess", "expected": {}},
        {"taken": "splice"},
        {"taken": "splice", "expected": {"splice": "soon"}},
        {"taken": "splice", "expected": {"other": 1.0}},
        {"taken": ["splice"], "expected": {}},
        {"taken": "splice", "expected": {}, "seconds": "soon"},
    ],
)
def test_a_choice_that_is_none_is_refused(data: object) -> None:
    with pytest.raises(WireError, match="choice"):
        Choice.from_dict(data)
