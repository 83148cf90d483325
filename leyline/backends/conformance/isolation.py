"""Checks that nothing approximate or forgotten reaches a request that did not ask for it."""

from __future__ import annotations

from leyline.backends.conformance.expect import ConformanceError, at_least, at_most, equal, given, one_of
from leyline.backends.conformance.rig import NOT_HELD, Rig, answer
from leyline.directives import Directive, EditScript, Fallback, Mode


def check_isolation(rig: Rig) -> None:
    """Approximate KV is for its lineage only: not without one, by another name or tenant, or for an honest request."""
    rig.seed_again()
    held = rig.opened(rig.fresh())
    script, tail = rig.middle(), rig.tokens(6)
    clean = rig.cold((*script.apply(held), *tail))
    strangers: dict[str, dict[str, object]] = {
        "an undirected request": {"lineage": None, "lineage_start": None},
        "another lineage": {"lineage": "0" * 24},
        "another tenant": {"tenant": "someone else"},
        "an honest request": {"honest": True},
    }
    for who, settings in strangers.items():
        rig.seed_again()
        backend = rig.fresh()
        prompt, turn = rig.edited(backend, rig.opened(backend), script, tail)
        if answer(turn) == clean and rig.computes:
            raise ConformanceError(
                "nothing is checked, use another seed",
                expected="another answer to the spliced prompt than to the clean one",
                found="the same",
            )
        carried = {"lineage": turn.receipt.lineage, "lineage_start": turn.receipt.approximate_from}
        other = rig.ask(backend, prompt, **{**carried, **settings})
        equal(other.receipt.lineage, None, f"{who} got a lineage")
        equal(answer(other), clean, f"{who} was answered from approximate KV")


def check_tenants(rig: Rig) -> None:
    """Tenants share no cache."""
    backend = rig.fresh()
    prompt = rig.tokens(rig.length)
    rig.ask(backend, prompt, tenant="a")
    equal(rig.ask(backend, prompt, tenant="b").receipt.prefix_tokens, 0, "a tenant hit another one's cache")
    equal(rig.ask(backend, prompt).receipt.prefix_tokens, 0, "a request without a tenant hit a tenant's cache")
    again = rig.ask(backend, prompt, tenant="a").receipt.prefix_tokens
    at_least(again, len(prompt) - 1 - rig.slack, "a tenant missed its own cache")


def check_heal(rig: Rig) -> None:
    """A FORGET before the first spliced token, over an empty span too, makes the session honest again."""
    backend = rig.fresh()
    held = rig.opened(backend)
    prompt, turn = rig.edited(backend, held, rig.middle(), rig.tokens(6))
    r = turn.receipt
    approximate = given(r.approximate_from, "a spliced turn does not say from where it is approximate")
    carried = {"lineage": r.lineage, "lineage_start": r.approximate_from}
    held = (*prompt, *answer(turn))
    heal = EditScript((Directive(10, 10, (), Mode.FORGET),))
    prompt, turn = rig.edited(backend, held, heal, rig.tokens(5), **carried)
    at_most(turn.receipt.prefix_tokens, approximate, "a FORGET reused approximate KV behind it")
    equal(turn.receipt.approximate_from, None, "the session is still approximate behind its FORGET")
    equal(answer(turn), rig.cold(prompt), "a healed session was answered otherwise than a clean prefill")


def check_keeps_approximate(rig: Rig) -> None:
    """A FORGET behind spliced tokens leaves those as they are, and says so; `honest` drops them."""
    for honest in (False, True):
        backend = rig.fresh()
        held = rig.opened(backend)
        prompt, turn = rig.edited(backend, held, rig.middle(), rig.tokens(6))
        r = turn.receipt
        given(r.approximate_from, "a spliced turn does not say from where it is approximate")
        carried = {"lineage": r.lineage, "lineage_start": r.approximate_from}
        held, late = (*prompt, *answer(turn)), len(prompt) - 20
        script = EditScript((Directive(late, late + 5, (), Mode.FORGET),))
        prompt, turn = rig.edited(backend, held, script, rig.tokens(5), honest=honest, **carried)
        at_most(turn.receipt.prefix_tokens, late, "FORGET reused tokens behind its span")
        if honest:
            equal(turn.receipt.lineage, None, "an honest request kept a lineage")
            equal(answer(turn), rig.cold(prompt), "an honest request was answered otherwise than a clean prefill")
        else:
            equal(turn.receipt.approximate_from, r.approximate_from, "the start of the approximate part moved")


def check_bad_directives(rig: Rig) -> None:
    """What cannot be verified is served by honest prefill, and the receipt says why."""
    held = rig.opened(rig.fresh())
    script, tail = rig.middle(), rig.tokens(6)
    prompt = (*script.apply(held), *tail)
    far = EditScript((Directive(len(held) + 5, len(held) + 9),))
    stranger = rig.tokens(len(held))
    bad: list[tuple[str, frozenset[Fallback], tuple[int, ...], dict[str, object]]] = [
        ("out of range", frozenset({Fallback.OUT_OF_RANGE}), prompt, {"source": held, "script": far}),
        (
            "not leading to the prompt",
            frozenset({Fallback.TARGET_MISMATCH, *NOT_HELD}),
            tail,
            {"source": held, "script": script},
        ),
        ("of a source never sent", NOT_HELD, (*script.apply(stranger), *tail), {"source": stranger, "script": script}),
        ("of no source", frozenset({Fallback.SOURCE_MISMATCH, Fallback.MALFORMED}), prompt, {"script": script}),
    ]
    for what, reasons, asked, settings in bad:
        rig.seed_again()
        backend = rig.fresh()
        rig.opened(backend)
        turn = rig.ask(backend, asked, **settings)
        one_of(turn.receipt.fallback, reasons, f"a directive {what} gave another reason")
        equal(turn.receipt.spliced_tokens, 0, f"a directive {what} moved tokens")
        equal(turn.receipt.lineage, None, f"a directive {what} made a lineage")
        equal(answer(turn), rig.cold(asked), f"a directive {what} changed the answer")


def check_purge(rig: Rig) -> None:
    """FORGET with `purge` evicts the branch from before the edit: the removed tokens are in no cache any more.

    AMORTIZE with it evicts nothing, and neither do directives that do not lead to the prompt.
    """
    kept = rig.length - 1 - rig.slack
    for mode, purge in ((Mode.FORGET, False), (Mode.FORGET, True), (Mode.AMORTIZE, True)):
        backend = rig.fresh()
        held = rig.opened(backend)
        script = rig.middle(mode)
        counted = rig.edited(backend, held, script, rig.tokens(6), purge=purge)[1].receipt.purged_tokens
        if not (purge and mode is Mode.FORGET):
            equal(counted, None, "nothing was purged, and the receipt counts tokens of a purge")
        elif counted is not None:  # a receipt need not count
            behind = rig.length - script.directives[0].start - rig.slack - 1
            at_least(counted, behind, "the receipt counts less than the purge evicted")
        again = rig.ask(backend, held[: rig.length]).receipt.prefix_tokens
        if purge and mode is Mode.FORGET:
            at_most(again, script.directives[0].start, "tokens of the purged branch are still in the cache")
        else:
            at_least(again, kept, f"{mode} with purge={purge} evicted the old branch")
    backend = rig.fresh()
    held = rig.opened(backend)
    rig.ask(backend, rig.tokens(6), source=held, script=rig.middle(Mode.FORGET), purge=True)
    again = rig.ask(backend, held[: rig.length]).receipt.prefix_tokens
    at_least(again, kept, "a FORGET that does not lead to the prompt evicted its source")
