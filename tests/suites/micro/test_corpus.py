"""Training documents: the text of the chat template, and loss on right turns only."""

from __future__ import annotations

from pathlib import Path

import pytest

from leyline import models
from leyline.policies import load_policy
from leyline.rendering.normal import normalise
from leyline.rendering.template import ChatTemplate
from leyline.suites.micro.corpus import (
    ASSISTANT,
    ASSISTANT_HEAD,
    TOOL,
    documents,
    edited,
    episode,
    render,
    whole,
)

TEMPLATE = Path(models.__file__).parent / "shared" / "chat_template.jinja"


def test_text_is_what_the_template_prints() -> None:
    template = ChatTemplate(TEMPLATE.read_text("utf-8"), {})
    for policy in (None, "truncate_older_than", "drop_stale"):
        run = episode(1, "long", "train", policy, 1.0)
        for turn in run.turns:
            view = list(turn.view or run.messages[: turn.index])
            expected = template.render([normalise(m) for m in view], None, add_generation_prompt=True)
            assert render(view) + ASSISTANT_HEAD == expected
    text = "".join(text for text, _ in edited(run, run.turns[-1]))
    assert text == render([*run.turns[-1].view, run.messages[run.turns[-1].index]])


def test_whole_episodes_teach_every_right_turn() -> None:
    wrong = 0
    for seed in range(6):
        run = episode(seed, "long", "train", None, 2.0)
        pieces = whole(run)
        assert len(pieces) == run.turns[-1].index + 1
        for turn in run.turns:
            text, code = pieces[turn.index]
            assert text.startswith(ASSISTANT_HEAD)
            assert text.endswith("<|im_end|>\n")
            assert (code == ASSISTANT) is turn.correct
            wrong += not turn.correct
        assert {pieces[i][1] for i, m in enumerate(run.messages[:-1]) if m["role"] == "tool"} == {TOOL}
    assert wrong


def test_edited_documents_teach_their_last_turn_in_the_policys_own_view() -> None:
    found = 0
    for seed in range(30):
        for document in documents(seed):
            if document.policy is None:
                continue
            found += 1
            assert [code for _, code in document.pieces][:-1] == [0] * (len(document.pieces) - 1)
            assert document.pieces[-1][1] == ASSISTANT
    assert found > 10
    rule = load_policy("truncate_older_than(n=1, max_chars=100)")
    run = episode(3, "short", "train", "truncate_older_than(n=1, max_chars=100)", 1.0)
    for number, turn in enumerate(run.turns):
        assert list(turn.view) == rule.transform(run.messages[: turn.index], number)


def test_a_seed_gives_the_same_documents() -> None:
    assert documents(17) == documents(17)
    assert [d.text for d in documents(17)] != [d.text for d in documents(18)]


@pytest.mark.parametrize("seed", [100, 101, 102])
def test_documents_are_of_seen_families_and_solved(seed: int) -> None:
    for document in documents(seed):
        run = episode(seed, document.level, "train", document.policy, 1.0)
        assert run.solved
        if document.policy is None:
            assert document.pieces == whole(run)
