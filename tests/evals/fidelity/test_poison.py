"""Poison probes: what is measured, on a model that reads its context, and that the suite's probes are what they say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from leyline.directives import Message
from leyline.evals.fidelity.poison import PoisonProbe, PoisonRecord, ask, says
from leyline.evals.fidelity.poisons import CUT, KINDS, repair_probe, settings_probe
from leyline.evals.fidelity.probe import FidelityError

TALK: list[Message] = [
    {"role": "user", "content": "read"},
    {"role": "assistant", "content": "cat a"},
    {"role": "user", "content": "a = 4821\nb = 7"},
    {"role": "assistant", "content": "I have read it."},
    {"role": "user", "content": "some lines of a log " * 4},
    {"role": "assistant", "content": "done"},
    {"role": "user", "content": "a?"},
]


@pytest.fixture
def probe() -> PoisonProbe:
    return PoisonProbe("p", "corrected", TALK, 2, {"role": "user", "content": "a = 9356\nb = 7"}, "4821", "9356")


def test_forget_is_the_honest_prefill_and_a_splice_is_not(backend: Any, probe: PoisonProbe) -> None:
    found = {r.way: r for r in ask(backend, probe, seams=(0, 8), tokens=4)}
    assert list(found) == ["full", "honest", "forget", "seam 0", "seam 8"]
    for way in ("honest", "forget"):
        assert found[way].answer == found["honest"].answer
        assert found[way].kl_honest < 1e-6
        assert found[way].spliced == 0
    assert found["full"].kl_honest > 1e-4  # the model reads the value
    assert found["seam 0"].kl_honest > 1e-6  # and so did the suffix that was moved
    assert found["seam 0"].spliced == found["seam 8"].spliced + 8
    assert found["seam 0"].prompt == found["honest"].prompt
    assert found["seam 0"].behind == len("I have read it.done") + 80


def test_a_seam_that_leaves_nothing_to_move_makes_no_record(backend: Any, probe: PoisonProbe) -> None:
    assert {r.way for r in ask(backend, probe, seams=(2000,), tokens=1)} == {"full", "honest", "forget"}


def test_a_probe_whose_value_stands_elsewhere_too_is_refused(backend: Any, probe: PoisonProbe) -> None:
    told = [*TALK[:3], {"role": "assistant", "content": "a is 4821"}, *TALK[4:]]
    for wrong in (replace(probe, messages=told), replace(probe, edited=TALK[2]), replace(probe, removed="1111")):
        with pytest.raises(FidelityError, match="and nowhere else"):
            list(ask(backend, wrong))


def test_what_an_answer_says() -> None:
    assert says("It is 4821.", "4821")
    assert not says("It is 48210 or x_4821", "4821")
    common = {"model": "m", "probe": "p", "kind": "corrected", "way": "full", "behind": 1, "prompt": 2, "spliced": 0}
    common |= {"removed": "4821", "kl_honest": 0.0, "agree_honest": True}
    both = PoisonRecord(**common, right="9356", answer="not 4821 but 9356")
    assert (both.says_removed, both.says_right) == (True, False)
    right = PoisonRecord(**common, right="9356", answer="9356")
    assert (right.says_removed, right.says_right) == (False, True)
    assert not PoisonRecord(**common, right=None, answer="9356").says_right


def test_every_setting_is_a_probe() -> None:
    probes = [settings_probe(seed) for seed in range(36)]
    assert {p.kind for p in probes} == set(KINDS)
    assert len({p.behind for p in probes if p.kind == "cut"}) > 3
    for probe in probes:
        probe.check()
        assert (probe.edited["content"] == CUT) is (probe.kind == "cut") is (probe.right is None)
        if probe.right is not None:
            assert not any(a == b for a, b in zip(probe.removed, probe.right, strict=True))
            assert probe.right not in str(probe.messages)


def test_a_repair_is_a_probe_of_the_name_that_is_due() -> None:
    found = next(p for p in map(repair_probe, (6, 36, 42, 44)) if p is not None)
    assert found is not None
    found.check()
    assert found.kind == "corrected"
    assert found.right is not None
    assert says(str(found.edited["content"]), found.right)
    assert not says(str(found.messages), found.right)
    assert found.messages[-1]["role"] == "tool"
    assert len(found.messages) - found.place >= 4
