"""The one conformance suite of backends, through the `Backend` protocol only: for a model in process and for servers.

`run_conformance(fresh)` picks the checks by what the backend says of itself. Each check is a function that takes a
`Rig` and raises `ConformanceError`, which says what was expected and what was found; nothing here needs pytest, and
nothing is an `assert`. Answers are compared by their greedy tokens, so a model that splices must have weights of a real
scale: with dummy ones every answer is the same and nothing can fail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from leyline.backends.conformance import edits as of_edits
from leyline.backends.conformance import found as of_found
from leyline.backends.conformance import isolation
from leyline.backends.conformance.expect import ConformanceError, equal, holds
from leyline.backends.conformance.rig import Rig
from leyline.backends.contract import Backend, TurnInput
from leyline.directives import Fallback

__all__ = ["CHAT_CHECKS", "TOKEN_CHECKS", "ConformanceError", "Rig", "run_conformance"]


def check_chat(rig: Rig) -> None:
    """A backend that renders by itself: it answers, counts, and says that directives were not honoured."""
    backend = rig.fresh()
    capabilities = backend.capabilities()
    equal(capabilities.splice, False, "a backend that splices must take token ids")
    holds(capabilities.reason, "a backend that cannot splice must say why", expected="a reason")
    history: list[dict[str, object]] = [{"role": "user", "content": "Say a word."}]
    for edits in (0, 2):
        before = [dict(m) for m in history]
        request = TurnInput("conformance", edits=edits)
        backend.prewarm(request)
        turn = backend.chat(history, None, request)
        equal(history, before, "the backend changed the messages that it was given")
        equal(turn.message.get("role"), "assistant", "the answer has another role")
        r = turn.receipt
        equal(r.prefix_tokens + r.prefilled_tokens, r.prompt_tokens, "the receipt's parts do not add up")
        equal(r.spliced_tokens, 0, "a plain server moves nothing")
        equal(
            (turn.usage.prompt_tokens, turn.usage.cached_tokens),
            (r.prompt_tokens, r.prefix_tokens),
            "usage and receipt disagree",
        )
        equal((r.directives, len(r.acknowledged)), (edits, edits), "each edit must be acknowledged")
        equal(r.fallback, Fallback.BACKEND_HAS_NO_SPLICE if edits else None, f"{edits} edits gave another reason")
        history += [turn.message, {"role": "user", "content": "Another one."}]
    backend.close()


TOKEN_CHECKS: tuple[Callable[[Rig], None], ...] = (
    of_edits.check_capabilities,
    of_edits.check_prefix_cache,
    of_edits.check_amortize,
    of_edits.check_retry,
    of_edits.check_several,
    of_edits.check_seam,
    of_edits.check_forget,
    of_edits.check_mixed,
    of_edits.check_auto,
    of_edits.check_each_directive,
    of_edits.check_nothing_behind,
    isolation.check_isolation,
    isolation.check_tenants,
    of_edits.check_chain,
    isolation.check_heal,
    isolation.check_keeps_approximate,
    isolation.check_bad_directives,
    isolation.check_purge,
    of_found.check_found,
    of_found.check_found_is_the_tenants,
)
"""For backends that take token ids and splice."""

CHAT_CHECKS: tuple[Callable[[Rig], None], ...] = (check_chat,)
"""For backends that render by themselves."""


def run_conformance(
    fresh: Callable[[], Backend],
    *,
    vocabulary: Sequence[int] = range(256),
    slack: int = 64,
    length: int = 400,
    decode: int = 8,
    seed: int = 0,
    computes: bool = True,
    skip: Sequence[str] = (),
) -> list[str]:
    """Run every check that fits the backend; returns their names. Raises ConformanceError naming the one that failed.

    The parameters are those of `Rig`; `skip` names checks to leave out.
    """
    rig = Rig(fresh, vocabulary, slack, length, decode, seed, computes)
    passed = []
    for check in TOKEN_CHECKS if fresh().capabilities().tokens else CHAT_CHECKS:
        if check.__name__ in skip:
            continue
        rig.seed_again()
        try:
            check(rig)
        except ConformanceError as error:
            raise error.of(check.__name__) from error
        passed.append(check.__name__)
    return passed
