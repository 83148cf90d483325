"""What a server finds by itself: always the prompt, never anything behind a FORGET, and nearly all that can be kept."""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from leyline.directives import EditScript, Mode, find_script
from leyline.directives.find import MIN_RUN

MODES = st.sampled_from(list(Mode))
ALPHABETS = st.sampled_from([2, 3, 50, 200_000])


def reused(script: EditScript, source: Sequence[int]) -> int:
    return sum(s.length for s in script.segments(len(source)) if s.kind != "prefill")


def naive(source: Sequence[int], prompt: Sequence[int]) -> int:
    """The longest common subsequence, by the textbook: more than any script of runs can keep."""
    row = [0] * (len(prompt) + 1)
    for a in source:
        before = row[:]
        for place, b in enumerate(prompt, 1):
            row[place] = before[place - 1] + 1 if a == b else max(before[place], row[place - 1])
    return row[-1]


@st.composite
def edits(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """What was held, and a prompt made of it by cutting, replacing and inserting, with a tail behind it."""
    size, seed = draw(ALPHABETS), draw(st.integers(0, 2**32))
    rng = random.Random(seed)
    held = [rng.randrange(size) for _ in range(draw(st.integers(0, 400)))]
    prompt = list(held)
    for _ in range(draw(st.integers(0, 5))):
        start = rng.randint(0, len(prompt))
        end = min(len(prompt), start + rng.choice((0, 1, 5, 80)))
        prompt[start:end] = [rng.randrange(size) for _ in range(rng.choice((0, 1, 7, 40)))]
    return held, prompt + [rng.randrange(size) for _ in range(rng.choice((0, 1, 30)))]


@given(edits(), MODES)
def test_a_found_script_leads_to_the_prompt_and_keeps_no_more_than_there_is(
    pair: tuple[list[int], list[int]], mode: Mode
) -> None:
    held, prompt = pair
    script = find_script(held, prompt, mode)
    target = script.apply(held)
    assert prompt[: len(target)] == target
    assert all(d.mode is mode for d in script)
    assert reused(script, held) <= naive(held, prompt)
    if prompt[: len(held)] == held:
        assert not script


@given(edits())
def test_forget_holds_from_the_first_difference_on(pair: tuple[list[int], list[int]]) -> None:
    held, prompt = pair
    script = find_script(held, prompt, Mode.FORGET)
    shared = next((i for i, (a, b) in enumerate(zip(held, prompt, strict=False)) if a != b), min(map(len, pair)))
    assert script.apply(held) == held[:shared]


@given(st.lists(st.integers(0, 3), max_size=200), st.lists(st.integers(0, 3), max_size=200))
def test_two_sequences_that_have_nothing_to_do_with_each_other(held: list[int], prompt: list[int]) -> None:
    target = find_script(held, prompt, Mode.AMORTIZE).apply(held)
    assert prompt[: len(target)] == target


def conversation(rng: random.Random, messages: int) -> list[list[int]]:
    """Messages of very different length in ids as unevenly frequent as words; some show what was shown before."""
    made: list[list[int]] = []
    for _ in range(messages):
        if made and rng.random() < 0.2:
            made.append(list(rng.choice(made)))
        else:
            length = int(rng.paretovariate(0.7) * 20) % 3000
            made.append([1, 2, 3, *(min(int(rng.paretovariate(0.6) * 3), 120_000) for _ in range(length)), 4, 5])
    return made


def test_found_edits_keep_nearly_all_that_told_ones_keep() -> None:
    rng = random.Random(7)
    told = found = 0
    for _ in range(30):
        messages = conversation(rng, 40)
        stubs = [[1, 2, 3, 900, 901, rng.randrange(1000), 4, 5] if rng.random() < 0.3 else m for m in messages[:-6]]
        held = [token for message in messages for token in message]
        prompt = [token for message in [*stubs, *messages[-6:]] for token in message] + [1, 2, 3, *range(5000, 5400)]
        kept = zip(messages, [*stubs, *messages[-6:]], strict=True)
        told += sum(len(m) for m, now in kept if now is m)
        found += reused(find_script(array("q", held), array("q", prompt), Mode.AMORTIZE), held)
    assert found >= 0.95 * told


def test_short_runs_are_not_worth_a_move() -> None:
    held = list(range(100))
    prompt = [*range(20), 999, *range(30, 30 + MIN_RUN - 1), 998, *range(60, 100)]
    script = find_script(held, prompt, Mode.AMORTIZE)
    assert [(d.start, d.end) for d in script] == [(20, 60)]
