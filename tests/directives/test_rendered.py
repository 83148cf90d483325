"""token_script over a toy template whose tokens are characters, and over arbitrary pairs of renderings."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyline.directives import (
    Directive,
    EditError,
    EditScript,
    Message,
    MessageEdit,
    Mode,
    Rendered,
    apply_edits,
    diff,
    token_script,
    undeclared_edits,
)

A, F = Mode.AMORTIZE, Mode.FORGET


def message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def ids(text: str) -> tuple[int, ...]:
    return tuple(map(ord, text))


def render(messages: Sequence[Message], *, prompt: bool = True, preamble: str = "^") -> Rendered:
    """`<role|content>` and a newline that belongs to the message; `<assistant|` opens the answer."""
    text, spans = preamble, []
    for m in messages:
        start = len(text)
        text += f"<{m['role']}|{m['content']}>\n"
        spans.append((start, len(text)))
    return Rendered(ids(text + ("<assistant|" if prompt else "")), tuple(spans))


def held(messages: Sequence[Message], answer: str, *, preamble: str = "^") -> Rendered:
    """What the server holds after it answered: the prompt and the answer, without the tokens that close the turn."""
    prompt = render(messages, preamble=preamble)
    tokens = prompt.ids + ids(answer)
    return Rendered(tokens, (*prompt.spans, (prompt.spans[-1][1], len(tokens))))


HISTORY = [message("system", "be good"), message("user", "go"), message("assistant", "look"), message("tool", "abcdef")]
ANSWERED = [*HISTORY, message("assistant", "done")]
SOURCE = held(HISTORY, "done")
TAIL = [message("tool", "next")]


def check(source: Rendered, target: Rendered, edits: Sequence[MessageEdit]) -> EditScript:
    script = token_script(source, target, edits)
    made = script.apply(source.ids)
    assert tuple(made) == target.ids[: len(made)]
    return script


def test_an_append_is_no_directive() -> None:
    assert check(SOURCE, render([*ANSWERED, *TAIL]), []) == EditScript()
    assert check(SOURCE, render(ANSWERED), []) == EditScript()


def test_an_edited_message_is_trimmed_to_what_changed() -> None:
    edit = MessageEdit(3, message("tool", "abXf"))
    start = SOURCE.spans[3][0] + len("<tool|ab")
    script = check(SOURCE, render([*apply_edits(ANSWERED, [edit]), *TAIL]), [edit])
    assert script == EditScript((Directive(start, start + 3, ids("X")),))


def test_dropped_neighbours_are_one_directive() -> None:
    edits = [MessageEdit(2, None), MessageEdit(3, None)]
    script = check(SOURCE, render(apply_edits(ANSWERED, edits)), edits)
    assert script == EditScript((Directive(SOURCE.spans[2][0], SOURCE.spans[3][1]),))


def test_neighbours_of_two_modes_stay_apart() -> None:
    edits = [MessageEdit(2, None, A), MessageEdit(3, None, F)]
    script = check(SOURCE, render(apply_edits(ANSWERED, edits)), edits)
    assert [d.mode for d in script] == [A, F]


def test_an_insertion_stands_before_its_message() -> None:
    edit = MessageEdit(2, message("user", "note"), insert=True)
    script = check(SOURCE, render([*apply_edits(ANSWERED, [edit]), *TAIL]), [edit])
    here = SOURCE.spans[2][0]
    assert script == EditScript((Directive(here, here, ids("<user|note>\n")),))


def test_the_first_message_may_go_while_the_preamble_stays() -> None:
    edit = MessageEdit(0, None)
    script = check(SOURCE, render(apply_edits(ANSWERED, [edit])), [edit])
    assert script == EditScript((Directive(*SOURCE.spans[0]),))


def test_the_answer_may_be_dropped_or_replaced() -> None:
    drop = MessageEdit(4, None)
    assert check(SOURCE, render([*HISTORY, *TAIL]), [drop]) == EditScript((Directive(*SOURCE.spans[4]),))
    replace = MessageEdit(4, message("assistant", "dXe"))
    script = check(SOURCE, render([*apply_edits(ANSWERED, [replace]), *TAIL]), [replace])
    assert script.directives[0].start == len(SOURCE.ids) - len("one")
    longer = MessageEdit(4, message("assistant", "done and dusted"))
    assert check(SOURCE, render(apply_edits(ANSWERED, [longer])), [longer]) == EditScript()


def test_a_retokenised_answer_is_forgotten() -> None:
    target = render([*HISTORY, message("assistant", "dXne"), *TAIL])
    script = check(SOURCE, target, [])
    assert script == EditScript((Directive(len(SOURCE.ids) - 3, len(SOURCE.ids), (), F),))
    assert undeclared_edits(SOURCE, target, []) == (4,)


def test_a_template_that_rewrites_old_messages_is_forgotten() -> None:
    target = render([*HISTORY[:2], message("assistant", "loXok"), *ANSWERED[3:], *TAIL])
    script = check(SOURCE, target, [])
    here = SOURCE.spans[2][0] + len("<assistant|lo")
    assert script == EditScript((Directive(here, here, ids("X"), F),))
    assert undeclared_edits(SOURCE, target, []) == (2,)
    assert undeclared_edits(SOURCE, target, [MessageEdit(2, message("assistant", "loXok"))]) == ()


def test_a_changed_preamble_is_forgotten() -> None:
    target = render([*ANSWERED, *TAIL], preamble="^^")
    assert check(SOURCE, target, []) == EditScript((Directive(1, 1, ids("^"), F),))
    assert undeclared_edits(SOURCE, target, []) == (-1,)


def test_a_declared_forget_that_changes_no_token_still_heals() -> None:
    edit = MessageEdit(2, HISTORY[2], F)
    here = SOURCE.spans[2][0]
    assert check(SOURCE, render([*ANSWERED, *TAIL]), [edit]) == EditScript((Directive(here, here, (), F),))
    assert check(SOURCE, render([*ANSWERED, *TAIL]), [MessageEdit(2, HISTORY[2], A)]) == EditScript()


def test_a_source_without_an_answer_may_end_in_its_generation_prompt() -> None:
    source = render(HISTORY)
    assert check(source, render([*ANSWERED, *TAIL]), []) == EditScript()
    target = render([*HISTORY, message("user", "wait")])
    assert check(source, target, []) == EditScript((Directive(len(source.ids) - 10, len(source.ids), (), F),))


def test_a_target_that_lacks_messages_forgets_them() -> None:
    script = check(SOURCE, render(HISTORY[:2], prompt=False), [])
    assert script.directives[0].mode is F
    assert len(script.apply(SOURCE.ids)) <= SOURCE.spans[1][1]


def test_edits_must_fit_the_source() -> None:
    with pytest.raises(EditError, match="the bound is 4"):
        token_script(SOURCE, render(ANSWERED), [MessageEdit(5, None)])


@pytest.mark.parametrize("spans", [((0, 4),), ((2, 1),), ((0, 2), (1, 3)), ((-1, 2),)])
def test_spans_must_ascend_within_the_tokens(spans: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(EditError, match="span"):
        Rendered((1, 2, 3), spans)


texts = st.text("ab", max_size=4)
histories = st.lists(st.builds(message, st.sampled_from(["user", "tool"]), texts), min_size=1, max_size=6)


@given(histories, texts, histories, st.sampled_from([A, F]))
def test_any_edited_history_is_rebuilt(old: list[Message], answer: str, new: list[Message], mode: Mode) -> None:
    source = held(old, answer)
    answered = [*old, message("assistant", answer)]
    edits = diff(answered, new, mode)
    script = check(source, render(new), edits)
    assert all(d.mode in (mode, F) for d in script)
    assert undeclared_edits(source, render(new), edits) == ()


@st.composite
def renderings(draw: st.DrawFn) -> Rendered:
    tokens = draw(st.lists(st.integers(0, 2), max_size=20))
    cuts = sorted(draw(st.lists(st.integers(0, len(tokens)), max_size=8)))
    if len(cuts) % 2:
        cuts.pop()
    return Rendered(tuple(tokens), tuple(zip(cuts[::2], cuts[1::2], strict=True)))


@given(renderings(), renderings(), st.data())
def test_any_two_renderings_are_rebuilt(source: Rendered, target: Rendered, data: st.DataObject) -> None:
    count = len(source.spans)
    modes = st.sampled_from([A, F])
    changes = [
        MessageEdit(i, data.draw(st.sampled_from([None, {}])), data.draw(modes))
        for i in range(count)
        if data.draw(st.booleans())
    ]
    inserts = [
        MessageEdit(i, {}, data.draw(modes), insert=True)
        for i in data.draw(st.lists(st.integers(0, count), max_size=3))
    ]
    script = check(source, target, [*changes, *inserts])
    script.validate(len(source.ids))


@given(st.lists(st.integers(0, 1), max_size=1500), st.integers(0, 1499), st.integers(0, 1499))
def test_long_messages_are_trimmed_to_the_changed_token(tokens: list[int], where: int, pad: int) -> None:
    old = (*tokens, 7, 7)
    where = min(where, len(tokens))
    new = (*old[:where], 9, *old[where + 1 :])
    source, target = (
        Rendered((*old, 5), ((0, len(old)), (len(old), len(old) + 1))),
        Rendered((*new, 5), ((0, len(new)),)),
    )
    script = token_script(source, target, [MessageEdit(0, {})])
    assert script == EditScript((Directive(where, where + 1, (9,)),))
