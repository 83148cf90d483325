"""Checks that edits do what they say: what is moved, what is computed, and the answers."""

from __future__ import annotations

from leyline.backends.conformance.expect import at_least, at_most, equal, given, one_of
from leyline.backends.conformance.rig import Rig, answer
from leyline.directives import Directive, EditScript, Mode, Outcome


def check_capabilities(rig: Rig) -> None:
    """A backend under this suite splices and takes token ids."""
    capabilities = rig.fresh().capabilities()
    equal(capabilities.splice, True, f"the backend does not splice ({capabilities.reason})")
    equal(capabilities.tokens, True, "the backend does not take token ids")


def check_prefix_cache(rig: Rig) -> None:
    """A cold prompt hits nothing, a repeated and a continued one hit what is held; the answers do not change."""
    backend = rig.fresh()
    prompt = rig.tokens(rig.length)
    first = rig.ask(backend, prompt)
    equal(first.receipt.prefix_tokens, 0, "an empty cache cannot hit")
    again = rig.ask(backend, prompt)
    at_least(again.receipt.prefix_tokens, len(prompt) - 1 - rig.slack, "a repeated prompt must hit")
    equal(answer(again), answer(first), "a cached prompt was answered otherwise than a cold one")
    held = (*prompt, *answer(first))
    more = rig.ask(backend, (*held, *rig.tokens(9)))
    at_least(more.receipt.prefix_tokens, len(prompt) - rig.slack, "a continued session must hit its last prompt")
    equal(more.receipt.lineage, None, "a session that never amortised has no lineage")


def check_amortize(rig: Rig) -> None:
    """A deletion moves everything behind it; the same twice gives the same answer; the next turn hits it."""
    script, tail = rig.middle(), rig.tokens(7)
    answers = []
    for _ in range(2):
        rig.seed_again()
        backend = rig.fresh()
        held = rig.opened(backend)
        prompt, turn = rig.edited(backend, held, script, tail)
        r, d = turn.receipt, script.directives[0]
        equal(r.fallback, None, f"a valid directive fell back ({r.detail})")
        at_least(r.spliced_tokens, len(held) - d.end - rig.slack - 1, "too few tokens were moved")
        equal({s.delta for s in r.splices}, {d.delta}, "a run moved by another distance than the edit's")
        equal(r.acknowledged, (Outcome.SPLICED,), "the directive was not acknowledged as spliced")
        given(r.approximate_from, "a spliced turn does not say from where it is approximate")
        at_least(r.approximate_from, d.start, "tokens before the edit are honest")
        answers.append(answer(turn))
    equal(answers[0], answers[1], "the same splice gave two answers")
    follow = rig.ask(
        backend, (*prompt, *answer(turn), *rig.tokens(5)), lineage=r.lineage, lineage_start=r.approximate_from
    )
    at_least(
        follow.receipt.prefix_tokens, len(prompt) - rig.slack, "the next turn of a lineage must hit its last prompt"
    )
    given(follow.receipt.lineage, "the lineage was lost while its KV was used")
    equal(follow.receipt.approximate_from, r.approximate_from, "approximate_from moved without an edit")


def check_retry(rig: Rig) -> None:
    """A client that lost the answer sends the same turn again: same answer, receipt in order."""
    backend = rig.fresh()
    held = rig.opened(backend)
    script, tail = rig.middle(replacement=rig.tokens(3)), rig.tokens(5)
    _, first = rig.edited(backend, held, script, tail)
    _, again = rig.edited(backend, held, script, tail)
    equal(answer(first), answer(again), "a repeated turn gave another answer")
    equal(first.receipt.lineage, again.receipt.lineage, "a repeated turn got another lineage")


def check_several(rig: Rig) -> None:
    """Deletion, replacement and insertion in one turn move by their accumulated shift."""
    backend = rig.fresh()
    held = rig.opened(backend)
    step = rig.length // 5
    script = EditScript(
        (
            Directive(step, step + step // 2),
            Directive(2 * step, 2 * step + 3, rig.tokens(5)),
            Directive(3 * step, 3 * step, rig.tokens(2)),
        )
    )
    _, turn = rig.edited(backend, held, script, rig.tokens(5))
    r = turn.receipt
    equal(r.fallback, None, f"valid directives fell back ({r.detail})")
    deltas = [-(step // 2), 2 - step // 2, 4 - step // 2]
    equal(sorted({s.delta for s in r.splices}), deltas, "the runs moved by other distances")
    equal(r.acknowledged, (Outcome.SPLICED,) * 3, "each directive must be acknowledged as spliced")


def check_seam(rig: Rig) -> None:
    """`seam` tokens of a run are computed, not moved."""
    moved = []
    for seam in (0, 8):
        rig.seed_again()
        backend = rig.fresh()
        held = rig.opened(backend)
        _, turn = rig.edited(backend, held, rig.middle(), rig.tokens(5), seam=seam)
        moved.append(turn.receipt.spliced_tokens)
    at_least(moved[0] - moved[1], 8, f"of {moved[0]} tokens, a seam of 8 kept back too few")


def check_chain(rig: Rig) -> None:
    """Edit after edit: every turn moves the rest again, and the lineage goes on."""
    backend = rig.fresh()
    held = rig.opened(backend)
    carried: dict[str, object] = {}
    for number in range(3):
        start = 20 + 10 * number
        script = EditScript((Directive(start, start + 15, rig.tokens(2)),))
        prompt, turn = rig.edited(backend, held, script, rig.tokens(12), **carried)
        r = turn.receipt
        equal(r.fallback, None, f"edit {number} in a row fell back ({r.detail})")
        at_least(
            r.spliced_tokens, len(held) - script.directives[0].end - rig.slack - 1, f"edit {number} moved too little"
        )
        given(r.approximate_from, "a spliced turn does not say from where it is approximate")
        carried = {"lineage": r.lineage, "lineage_start": r.approximate_from}
        held = (*prompt, *answer(turn))


def check_forget(rig: Rig) -> None:
    """FORGET reuses nothing from the span on, and answers as a clean prefill does."""
    for replacement in ((), rig.tokens(4)):
        backend = rig.fresh()
        held = rig.opened(backend)
        script = rig.middle(Mode.FORGET, replacement=replacement)
        prompt, turn = rig.edited(backend, held, script, rig.tokens(6))
        r = turn.receipt
        at_most(r.prefix_tokens, script.directives[0].start + len(replacement), "FORGET reused tokens behind its span")
        equal(r.spliced_tokens, 0, "FORGET moved tokens")
        equal(r.approximate_from, None, "an honest session became approximate by a FORGET")
        equal(r.acknowledged, (Outcome.FORGOTTEN,), "the directive was not acknowledged as forgotten")
        equal(answer(turn), rig.cold(prompt), "FORGET was answered otherwise than a clean prefill")


def check_auto(rig: Rig) -> None:
    """AUTO splices or prefills: the receipt says which, and never takes what it expected to be slower."""
    backend = rig.fresh()
    held = rig.opened(backend)
    prompt, turn = rig.edited(backend, held, rig.middle(Mode.AUTO), rig.tokens(5))
    r = turn.receipt
    equal(r.fallback, None, f"AUTO fell back ({r.detail})")
    choice = given(r.choice, "the receipt does not say what AUTO took")
    for way in ("splice", "prefill"):
        one_of(way, choice.expected, "AUTO did not say what it expected of every way")
    equal(choice.expected[choice.taken], min(choice.expected.values()), "AUTO took what it expected slower")
    if choice.taken == "prefill":
        equal((r.spliced_tokens, r.acknowledged), (0, (Outcome.PREFILLED,)), "a prefill that moved tokens")
        equal(answer(turn), rig.cold(prompt), "what AUTO prefilled was answered otherwise than a clean prefill")
    else:
        at_least(r.spliced_tokens, 1, "a splice that moved nothing")
        equal(r.acknowledged, (Outcome.SPLICED,), "the directive was not acknowledged as spliced")
    _, forgot = rig.edited(backend, held, rig.middle(Mode.FORGET), rig.tokens(5))
    equal(forgot.receipt.choice, None, "FORGET leaves nothing to choose")


def check_mixed(rig: Rig) -> None:
    """Behind a FORGET nothing is moved; before it an AMORTIZE still is."""
    backend = rig.fresh()
    held = rig.opened(backend)
    step = rig.length // 5
    script = EditScript((Directive(step, step + 9), Directive(3 * step, 3 * step + 9, (), Mode.FORGET)))
    _, turn = rig.edited(backend, held, script, rig.tokens(6))
    r = turn.receipt
    at_least(r.spliced_tokens, 1, "the run between AMORTIZE and FORGET was not moved")
    at_most(max(s.end for s in r.splices), 3 * step - 9, "tokens behind a FORGET were moved")
    equal(r.acknowledged, (Outcome.SPLICED, Outcome.FORGOTTEN), "the directives were acknowledged as something else")


def check_each_directive(rig: Rig) -> None:
    """Each directive is acknowledged by what became of the run behind it; from a FORGET on every one is forgotten."""
    step = rig.length // 5
    amortize, forget = Mode.AMORTIZE, Mode.FORGET
    spliced, forgotten = Outcome.SPLICED, Outcome.FORGOTTEN
    for modes, expected in (
        ((amortize, amortize, amortize), (spliced, spliced, spliced)),
        ((amortize, forget, amortize), (spliced, forgotten, forgotten)),
        ((amortize, forget, forget), (spliced, forgotten, forgotten)),
        ((forget, amortize, amortize), (forgotten, forgotten, forgotten)),
        ((amortize, amortize, forget), (spliced, spliced, forgotten)),
    ):
        backend = rig.fresh()
        held = rig.opened(backend)
        cuts = (Directive(k * step, k * step + 9, (), mode) for k, mode in enumerate(modes, 1))
        _, turn = rig.edited(backend, held, EditScript(tuple(cuts)), rig.tokens(6))
        said = [str(mode) for mode in modes]
        equal(turn.receipt.acknowledged, expected, f"{said} were acknowledged as something else")
        equal(turn.receipt.fallback, None, f"{said} fell back ({turn.receipt.detail})")
    backend = rig.fresh()
    held = rig.opened(backend)
    script = EditScript((Directive(step, step + 9), Directive(3 * step, 3 * step + 9, (), forget)))
    _, turn = rig.edited(backend, held, script, rig.tokens(6), honest=True)
    told = turn.receipt.acknowledged
    equal(told, (Outcome.PREFILLED, forgotten), "an honest request's were acknowledged as something else")
    equal(turn.receipt.spliced_tokens, 0, "an honest request moved tokens")


def check_nothing_behind(rig: Rig) -> None:
    """Where no run stands behind a directive, as between two that touch, there is nothing to move: it is cached."""
    backend = rig.fresh()
    held = rig.opened(backend)
    step = rig.length // 5
    script = EditScript((Directive(step, step + 9), Directive(step + 9, step + 12, rig.tokens(2))))
    _, turn = rig.edited(backend, held, script, rig.tokens(6))
    told = turn.receipt.acknowledged
    equal(told, (Outcome.CACHED, Outcome.SPLICED), "two directives that touch were acknowledged as something else")
