"""AUTO in the plugin: what is staged, what the receipt says, and what passes teach."""

from __future__ import annotations

from array import array
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from splice_rig import RING, SPACE, Rig

from leyline.backends.sglang.plugin.auto import Auto, Clock, first_costs, token_bytes
from leyline.backends.sglang.plugin.cache import Controller
from leyline.backends.sglang.plugin.metrics import Metrics
from leyline.backends.sglang.plugin.runs import Plan, make_plan
from leyline.directives import Costs, Directive, EditScript, Mode, Outcome, Receipt, WireRequest

SOURCE = list(range(100, 400))
FREE_MOVES = Costs(forward=0, token=1, pair=0, hole=0, move=0, byte=0)
FREE_PREFILL = Costs(forward=0, token=0, pair=0, hole=1, move=1, byte=1)
LONG_RUNS = Costs(forward=0, token=1, pair=0, hole=15, move=0, byte=0)
"""A run has to be longer than what a hole costs."""


def serve(costs: Costs, modes: tuple[Mode, ...], seam: int = 0) -> tuple[Rig, Plan, Receipt]:
    """Three replacements: a run of 10 tokens behind the first, of 85 behind the second, of 130 behind the third."""
    spans = [(50, 60), (70, 75), (160, 170)]
    script = EditScript(tuple(Directive(a, b, (7, 8), mode) for (a, b), mode in zip(spans, modes, strict=True)))
    rig = Rig()
    rig.splicer.auto = Auto(costs)
    rig.serve(SOURCE, None)
    prompt = [*script.apply(SOURCE), 1, 2]
    plan, receipt = rig.serve(prompt, WireRequest.build(script, SOURCE, seam=seam).to_json())
    assert plan is not None
    assert receipt is not None
    assert rig.tree.adds_up()
    assert rig.tree.honest()
    return rig, plan, receipt


AUTO = (Mode.AUTO,) * 3


def test_moves_that_pay_are_all_made() -> None:
    _, plan, receipt = serve(FREE_MOVES, AUTO)
    assert receipt.choice is not None
    assert receipt.choice.taken == "splice"
    assert receipt.acknowledged == (Outcome.SPLICED,) * 3
    assert len(plan.splices) == 3


def test_moves_that_do_not_pay_are_none_and_the_prompt_stays_honest() -> None:
    _, plan, receipt = serve(FREE_PREFILL, AUTO)
    assert receipt.choice is not None
    assert receipt.choice.taken == "prefill"
    assert (receipt.acknowledged, receipt.fallback, receipt.lineage) == ((Outcome.PREFILLED,) * 3, None, None)
    assert plan.splices == []


def test_a_short_run_is_computed_with_the_holes_around_it() -> None:
    _, _plan, receipt = serve(LONG_RUNS, AUTO)
    assert receipt.choice is not None
    assert receipt.choice.taken == "fewer"
    assert receipt.acknowledged == (Outcome.PREFILLED, Outcome.SPLICED, Outcome.SPLICED)
    assert set(receipt.choice.expected) == {"splice", "fewer", "prefill"}


def test_what_an_amortize_asks_for_is_moved_and_a_forget_leaves_no_choice() -> None:
    _, _, receipt = serve(FREE_PREFILL, (Mode.AUTO, Mode.AMORTIZE, Mode.AUTO))
    assert receipt.acknowledged == (Outcome.PREFILLED, Outcome.SPLICED, Outcome.PREFILLED)
    _, _, receipt = serve(FREE_MOVES, (Mode.FORGET, Mode.AUTO, Mode.AUTO))
    assert receipt.acknowledged == (Outcome.FORGOTTEN,) * 3
    assert receipt.choice is None
    _, _, receipt = serve(FREE_PREFILL, (Mode.AMORTIZE,) * 3)
    assert receipt.choice is None
    assert receipt.acknowledged == (Outcome.SPLICED,) * 3


def test_a_request_that_is_admitted_again_chooses_again() -> None:
    script = EditScript((Directive(50, 60, (7, 8), Mode.AUTO),))
    rig = Rig()
    rig.splicer.auto = Auto(FREE_PREFILL)
    rig.serve(SOURCE, None)
    ids = array("q", [*script.apply(SOURCE), 1, 2])
    value = WireRequest.build(script, SOURCE).to_json()
    plan = make_plan(value, ids, SPACE, RING, page=1, max_tokens=4096)
    rig.splicer.admit(plan, ids, len(ids) - 1, SPACE)
    plan.skipped.update(plan.runs)
    rig.splicer.auto.costs = FREE_MOVES
    receipt = rig.finish(plan, ids)
    assert receipt.choice is not None
    assert receipt.choice.taken == "splice"


def test_the_receipt_says_how_long_it_was_to_the_first_token() -> None:
    rig, plan, receipt = serve(FREE_MOVES, AUTO)
    controller = Controller(rig.splicer, Metrics(False, {}), 1, 4096)
    req = SimpleNamespace(output_ids=[], customized_info={"leyline": [receipt.to_dict()]})
    controller.first_token(req, plan)  # type: ignore[arg-type]
    assert req.customized_info["leyline"][0]["choice"]["seconds"] is None
    req.output_ids = [5]
    controller.first_token(req, plan)  # type: ignore[arg-type]
    taken = req.customized_info["leyline"][0]["choice"]["seconds"]
    assert taken > 0
    controller.first_token(req, plan)  # type: ignore[arg-type]
    assert req.customized_info["leyline"][0]["choice"]["seconds"] == taken, "noted twice"


def test_passes_and_moves_teach_only_a_rank_that_may_learn() -> None:
    for learns in (True, False):
        auto = Auto(Costs(), learns=learns)
        with auto.timed_pass([(0, 5000)]):
            pass
        with auto.timed_move(5000, 0.0):
            pass
        assert (auto.costs != Costs()) == learns
    assert auto.costs == Costs()


def test_a_gpus_times_are_read_when_they_are_in(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[SimpleNamespace] = []

    def event(enable_timing: bool) -> SimpleNamespace:
        assert enable_timing
        made = SimpleNamespace(record=lambda: None, query=lambda: made.done, done=False, elapsed_time=lambda _: 7.0)
        events.append(made)
        return made

    monkeypatch.setattr(torch.cuda, "Event", event)
    clock, heard = Clock(torch.device("cuda")), list[float]()
    with clock.timing(heard.append):
        pass
    with clock.timing(heard.append):
        pass
    assert heard == [], "nobody waits"
    for made in events:
        made.done = True
    with clock.timing(heard.append):
        pass
    assert heard == [0.007, 0.007]
    for made in events:
        made.done = False
    for _ in range(500):
        with clock.timing(heard.append):
            pass
    assert len(events) < 200, "times that nobody could read yet are bounded"


def test_it_begins_with_the_file_or_a_guess(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "costs.json"
    Costs(forward=0.5, byte=1e-6, token_bytes=1).save(path)
    monkeypatch.setenv("LEYLINE_COSTS", str(path))
    costs = first_costs(1000, 2048)
    assert (costs.forward, costs.token_bytes, costs.chunk) == (0.5, 1000, 2048)
    assert costs.byte * costs.token_bytes == pytest.approx(1e-6)
    monkeypatch.setenv("LEYLINE_COSTS", str(tmp_path / "none"))
    assert first_costs(1000, 0).forward == Costs().forward
    assert "AUTO begins with a guess" in caplog.text


def test_the_bytes_of_a_token() -> None:
    latent = SimpleNamespace(kv_lora_rank=8, kv_buffer=[torch.zeros(5, 1, 12, dtype=torch.bfloat16)] * 3)
    assert token_bytes(latent) == 3 * 12 * 2
    heads = SimpleNamespace(k_buffer=[torch.zeros(5, 2, 4)] * 3, v_buffer=[torch.zeros(5, 2, 4)] * 3)
    assert token_bytes(heads) == 6 * 8 * 4
