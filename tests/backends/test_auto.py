"""AUTO on backends in process: what is moved, what the receipt says, and that FORGET and AMORTIZE are as before."""

from __future__ import annotations

import pytest

from leyline import models
from leyline.backends.conformance.edits import check_auto
from leyline.backends.conformance.rig import Rig
from leyline.backends.contract import Sampling, TurnInput
from leyline.backends.local import LocalBackend
from leyline.backends.simulated.radix import RadixCache
from leyline.backends.simulated.serve import serve
from leyline.directives import Costs, Directive, EditScript, Mode, Outcome, Rendered

FREE_MOVES = Costs(forward=0.01, token=1e-3, pair=0, hole=0, move=0, byte=0)
FREE_PREFILL = Costs(forward=0, token=0, pair=0, hole=1, move=1, byte=1)


@pytest.mark.parametrize(("costs", "taken"), [(FREE_MOVES, "splice"), (FREE_PREFILL, "prefill"), (None, None)])
def test_local(costs: Costs | None, taken: str | None) -> None:
    folder = models.resolve("tiny-gqa")
    rig = Rig(lambda: LocalBackend(folder, costs=costs), range(5, 200), slack=64, length=400, decode=4, seed=1)
    check_auto(rig)
    backend = rig.fresh()
    held = rig.opened(backend)
    _, turn = rig.edited(backend, held, rig.middle(Mode.AUTO), rig.tokens(5))
    assert turn.receipt.choice is not None
    assert turn.receipt.choice.seconds is not None
    assert turn.receipt.choice.seconds > 0
    assert taken is None or turn.receipt.choice.taken == taken


def test_local_learns_its_costs_from_its_own_turns() -> None:
    backend = LocalBackend(models.resolve("tiny-gqa"), costs=Costs(forward=5.0, hole=5.0, chunk=64))
    rig = Rig(lambda: backend, range(5, 200), slack=64, length=200, decode=1, seed=1)
    expected = []
    for _ in range(12):
        held = rig.opened(backend)
        choice = rig.edited(backend, held, rig.middle(Mode.AUTO), rig.tokens(5))[1].receipt.choice
        assert choice is not None
        expected.append(choice.expected["prefill"])
    assert expected[-1] < expected[0] / 2


@pytest.mark.parametrize(
    ("modes", "moved"), [(("auto", "auto"), 0), (("auto", "amortize"), 1), (("amortize", "auto"), 1)]
)
def test_an_amortize_beside_an_auto_is_moved_all_the_same(modes: tuple[str, str], moved: int) -> None:
    source = tuple(range(5, 205))
    script = EditScript((Directive(20, 30, (), Mode(modes[0])), Directive(100, 110, (), Mode(modes[1]))))
    cache = RadixCache()
    serve(cache, TurnInput("s"), source, (), True)
    prompt = (*script.apply(source), 7, 8)
    request = TurnInput("s", prompt=Rendered(prompt), source=source, script=script, sampling=Sampling())
    served = serve(cache, request, prompt, (), True, costs=FREE_PREFILL)
    assert len(served.runs) == moved
    assert served.choice is not None
    assert served.choice.taken == "prefill"


def test_a_forget_leaves_nothing_to_choose() -> None:
    source = tuple(range(5, 205))
    script = EditScript((Directive(20, 30, (), Mode.FORGET), Directive(100, 110, (), Mode.AUTO)))
    cache = RadixCache()
    serve(cache, TurnInput("s"), source, (), True)
    prompt = (*script.apply(source), 7, 8)
    request = TurnInput("s", prompt=Rendered(prompt), source=source, script=script)
    served = serve(cache, request, prompt, (), True, costs=FREE_MOVES)
    assert served.prefix == 20
    assert not served.runs


def test_outcomes_tell_a_choice_from_a_miss() -> None:
    folder = models.resolve("tiny-gqa")
    backend = LocalBackend(folder, costs=FREE_PREFILL)
    rig = Rig(lambda: backend, range(5, 200), slack=64, length=400, decode=1, seed=2)
    held = rig.opened(backend)
    receipt = rig.edited(backend, held, rig.middle(Mode.AUTO), rig.tokens(5))[1].receipt
    assert (receipt.acknowledged, receipt.fallback, receipt.lineage) == ((Outcome.PREFILLED,), None, None)
