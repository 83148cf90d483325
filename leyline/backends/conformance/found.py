"""Checks that a backend which finds a client's edits by itself does what the same edits, spelled out, would do."""

from __future__ import annotations

from leyline.backends.conformance.expect import at_least, equal, holds
from leyline.backends.conformance.rig import Rig, answer
from leyline.directives import Mode


def check_found(rig: Rig) -> None:
    """Edits that the backend finds are served as the same directives are, and a FORGET from its first difference on."""
    for mode in (Mode.AMORTIZE, Mode.FORGET):
        rig.seed_again()
        backend = rig.fresh()
        first = rig.tokens(rig.length)
        opened = rig.ask(backend, first, allow=mode)
        equal(opened.receipt.held, 0, "a new session is said to hold tokens")
        held = (*first, *answer(opened))
        script, tail = rig.middle(mode, replacement=rig.tokens(3)), rig.tokens(6)
        prompt = (*script.apply(held), *tail)
        turn = rig.ask(backend, prompt, allow=mode)
        r = turn.receipt
        equal(r.held, len(held), "the receipt says of another number of tokens that the session holds them")
        holds(r.found, "an edit was not found", expected="one")
        equal(r.found[0].start, script.directives[0].start, "the first edit was found at another place")
        # Before another backend is asked for: it may be the same server, which a flush makes forget.
        again = (*prompt, *answer(turn), *rig.tokens(5))
        next_turn = rig.ask(backend, again, allow=mode).receipt
        equal(next_turn.found, (), "an append-only turn was taken for an edit")
        reused = next_turn.prefix_tokens
        at_least(reused, len(prompt) - rig.slack, "the next turn of a session does not hit what was spliced for it")
        other = rig.fresh()
        rig.seed_again()
        _, told = rig.edited(other, rig.opened(other), script, tail)
        equal(r.spliced_tokens, told.receipt.spliced_tokens, "found edits splice other tokens than told ones")
        equal(answer(turn), answer(told), "found edits are answered otherwise than told ones")
        if mode is Mode.FORGET:
            equal(r.spliced_tokens, 0, "something behind a FORGET was moved")
            equal(answer(turn), rig.cold(prompt), "a FORGET that was found is not the clean prefill")


def check_found_is_the_tenants(rig: Rig) -> None:
    """What is remembered of a session is its tenant's alone, and nothing is remembered of who does not ask for it."""
    backend = rig.fresh()
    prompt = rig.tokens(rig.length)
    rig.ask(backend, prompt, allow=Mode.AMORTIZE, tenant="a")
    changed = (*prompt[:20], *prompt[60:], *rig.tokens(6))
    r = rig.ask(backend, changed, allow=Mode.AMORTIZE, tenant="b").receipt
    equal((r.held, r.found, r.spliced_tokens), (0, (), 0), "a tenant was served from another one's session")
    equal(rig.ask(backend, changed, tenant="a").receipt.held, None, "a session was used unasked")
