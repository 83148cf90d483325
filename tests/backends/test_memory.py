"""What a server remembers of sessions: bounded, apart by tenant and branch, and the same on every rank."""

from __future__ import annotations

import random
from array import array

from leyline.backends.contract import TurnInput
from leyline.backends.memory import Held, SessionMemory, remember_turn, with_found
from leyline.directives import Mode, Receipt


def ids(seed: int, count: int = 200) -> array[int]:
    rng = random.Random(seed)
    return array("q", (rng.randrange(10_000) for _ in range(count)))


def served(memory: SessionMemory, session: str, prompt: array[int], tenant: str | None = None) -> Receipt:
    turn, found = with_found(memory, TurnInput(session, allow=Mode.AMORTIZE, tenant=tenant), prompt)
    count = len(turn.script)
    acknowledged = ("cached",) * count
    plain = Receipt(len(prompt), 0, 0, len(prompt), directives=count, acknowledged=acknowledged)  # type: ignore[arg-type]
    return remember_turn(memory, turn, found, prompt, plain)


def test_an_edit_is_found_and_the_edited_prompt_takes_the_place_of_what_it_came_from() -> None:
    memory, first = SessionMemory(), ids(1)
    assert served(memory, "s", first).held == 0
    edited = first[:50] + first[90:] + ids(2, 20)
    receipt = served(memory, "s", edited)
    assert (receipt.held, [(e.start, e.end, e.inserted) for e in receipt.found]) == (200, [(50, 90, 0)])
    assert memory.tokens == len(edited)


def test_a_side_call_of_the_same_session_does_not_take_the_conversations_place() -> None:
    memory, first = SessionMemory(), ids(1)
    served(memory, "s", first)
    served(memory, "s", first[:30] + ids(5, 40))  # the same system prompt, then a title
    longer = first[:60] + first[100:] + ids(3, 10)
    receipt = served(memory, "s", longer)
    assert (receipt.held, [(e.start, e.end) for e in receipt.found]) == (200, [(60, 100)])


def test_tenants_and_sessions_are_apart() -> None:
    memory, first = SessionMemory(), ids(1)
    served(memory, "s", first, tenant="a")
    for session, tenant in (("s", None), ("s", "b"), ("t", "a")):
        assert served(memory, session, first, tenant).held == 0


def test_memory_is_bounded_in_tokens_and_by_age_and_forgets_the_oldest() -> None:
    memory = SessionMemory(max_tokens=1000, max_age=50)
    for number in range(20):
        served(memory, f"s{number}", ids(number))
    assert (len(memory), memory.tokens) == (5, 1000)
    assert served(memory, "s19", ids(19)).held == 200
    assert served(memory, "s0", ids(0)).held == 0
    for _ in range(60):
        served(memory, "s1", ids(1))
    assert (len(memory), memory.tokens) == (1, 200)
    memory.remember(None, "long", Held(ids(9, 1001)))
    assert served(memory, "long", ids(9, 1001)).held == 0


def test_ranks_that_see_the_same_requests_remember_the_same() -> None:
    rng = random.Random(0)
    ranks = [SessionMemory(max_tokens=3000, max_age=30) for _ in range(2)]
    for _ in range(300):
        session, prompt = f"s{rng.randrange(12)}", ids(rng.randrange(20), rng.randrange(1, 400))
        assert len({served(rank, session, prompt) for rank in ranks}) == 1
        assert ranks[0].tokens == ranks[1].tokens
