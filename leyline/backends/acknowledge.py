"""What a backend says of each directive, and why it refuses a script: the same of every backend that decides here."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from leyline.backends.contract import TurnInput
from leyline.directives import Directive, DirectiveError, EditScript, Fallback, Mode, Outcome


def refusal(prompt: Sequence[int], turn: TurnInput) -> tuple[Fallback, str] | None:
    """Why the turn's directives do not lead from its source to the prompt, or None: they do."""
    if turn.source is None:
        return Fallback.SOURCE_MISMATCH, "the turn has directives but names no source"
    try:
        target = turn.script.apply(turn.source)
        turn.script.segments(len(turn.source), seam=turn.seam)
    except DirectiveError as error:
        return error.reason, str(error)
    if list(prompt[: len(target)]) != target:
        return Fallback.TARGET_MISMATCH, "the directives do not lead from the source to the prompt"
    return None


def outcomes(script: EditScript, source: int, wanted: Collection[int], moved: Collection[int]) -> tuple[Outcome, ...]:
    """What becomes of each directive: look at the run of the source that stands behind it.

    source: tokens of the source. wanted, moved: where in the source the runs start that were to be moved, and those
    that were. Behind the first FORGET nothing is reused, so every directive from there on counts as forgotten. Where
    nothing of a run was wanted, all of it is in the prefix, or there is nothing but what is always computed.
    """
    found: list[Outcome] = []
    forgotten = False
    for index, d in enumerate(script.directives):
        forgotten = forgotten or d.mode is Mode.FORGET
        end = script.directives[index + 1].start if index + 1 < len(script) else source
        if forgotten:
            found.append(Outcome.FORGOTTEN)
        elif any(d.end <= start < end for start in moved):
            found.append(Outcome.SPLICED)
        elif not any(d.end <= start < end for start in wanted):
            found.append(Outcome.CACHED)
        else:
            found.append(Outcome.PREFILLED)
    return tuple(found)


def unspliced(directive: Directive) -> Outcome:
    """What becomes of a directive of a request that wants nothing approximate."""
    return Outcome.FORGOTTEN if directive.mode is Mode.FORGET else Outcome.PREFILLED


def forget_point(script: EditScript) -> int | None:
    """Where the first FORGET stands in the target, or None."""
    shift = 0
    for d in script:
        if d.mode is Mode.FORGET:
            return d.start + shift
        shift += d.delta
    return None
