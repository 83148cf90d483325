"""What a turn is expected to cost, and learning it."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyline.directives import Costs, CostsError, Load

COSTS = Costs(
    forward=1.0, token=0.01, pair=0.001, hole=0.1, move=0.2, byte=0.0001, token_bytes=10, queue=3.0, chunk=100
)


def test_a_turn_adds_up() -> None:
    # 30 tokens behind 10: 10 pairs with what stands before each, and half of 30 * 30 among themselves.
    assert COSTS.computing(10, 40) == pytest.approx(0.01 * 30 + 0.001 * (10 * 30 + 30 * 30 / 2))
    assert COSTS.moving(0) == 0.0
    assert COSTS.moving(50) == pytest.approx(0.2 + 0.0001 * 10 * 50)
    assert COSTS.turn([(10, 40)]) == pytest.approx(1.0 + COSTS.computing(10, 40))
    assert COSTS.turn([(0, 10), (60, 70)], 50) == pytest.approx(
        1.0 + 0.1 + COSTS.computing(0, 10) + COSTS.computing(60, 70) + COSTS.moving(50)
    )


def test_tokens_over_a_chunk_take_further_passes_and_what_waits_comes_first() -> None:
    assert COSTS.turn([(0, 101)]) == pytest.approx(2.0 + COSTS.computing(0, 101))
    assert COSTS.turn([(0, 50)], load=Load(60, 2)) == pytest.approx(2.0 + 0.6 + 6.0 + COSTS.computing(0, 50))


@pytest.mark.parametrize("name", [f.name for f in fields(Costs)])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "1", None, True])
def test_a_constant_that_is_none_is_refused(name: str, value: object) -> None:
    with pytest.raises(CostsError, match=name):
        Costs(**{name: value})


def test_a_file_keeps_them(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    COSTS.save(path, machine="one", date="2026-01-01")
    assert Costs.read(path) == COSTS
    assert json.loads(path.read_text())["machine"] == "one"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "leyline-costs/0", "costs": {}}', '{"format": 5}'])
def test_another_file_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "costs.json"
    path.write_text(text)
    with pytest.raises(CostsError) as error:
        Costs.read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(CostsError, match="cannot read"):
        Costs.read(tmp_path / "none")
    with pytest.raises(CostsError, match="cannot write"):
        COSTS.save(tmp_path / "none" / "costs.json")


TRUE = Costs(forward=0.05, token=2e-5, pair=3e-10, hole=1e-3, move=2e-3, byte=4e-13, token_bytes=30_000)


@given(st.floats(0.2, 5), st.floats(0.2, 5), st.floats(0.2, 5))
def test_learning_comes_to_expect_what_it_sees(forward: float, token: float, pair: float) -> None:
    """From constants up to five times off, turns of all lengths are soon expected within a quarter."""
    costs = Costs(
        TRUE.forward * forward, TRUE.token * token, TRUE.pair * pair, TRUE.hole, TRUE.move, TRUE.byte, TRUE.token_bytes
    )
    turns = [[(0, 200)], [(0, 4000)], [(0, 8000)], [(60_000, 66_000)], [(30_000, 30_100), (60_000, 60_300)]]
    for _ in range(300):
        for blocks in turns:
            costs = costs.learn_prefill(blocks, TRUE.turn(blocks))
        costs = costs.learn_move(40_000, TRUE.moving(40_000))
    for blocks in turns:
        assert costs.turn(blocks, 40_000) == pytest.approx(TRUE.turn(blocks, 40_000), rel=0.25)


def test_one_hiccup_changes_little() -> None:
    after = TRUE.learn_prefill([(0, 4000)], 100.0)
    assert after.turn([(0, 4000)]) < 1.1 * TRUE.turn([(0, 4000)])
    assert TRUE.learn_prefill([(0, 4000)], 0.0) == TRUE.learn_prefill([(0, 4000)], float("nan")) == TRUE
    assert Costs(0, 0, 0, 0, 0, 0).learn_prefill([(0, 10)], 1.0) == Costs(0, 0, 0, 0, 0, 0)
