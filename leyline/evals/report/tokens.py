"""A turn's exact model input as coloured text: which token came from the cache, was spliced, prefilled, or edited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tokenizers import Tokenizer

from leyline.directives import JsonMapping, LeylineError
from leyline.models.find import find_tokenizer

PREFIX, SPLICED, PREFILLED, UNKNOWN = range(4)


@dataclass(frozen=True)
class Mark:
    """An edit in the prompt, `[start, end)` in its tokens; empty where the edit left nothing behind.

    turn: the turn that made it. removed: tokens it took out, and their text as far as it is known.
    """

    start: int
    end: int
    turn: int
    mode: str
    removed: int
    text: str


@dataclass(frozen=True)
class Segment:
    """A run of text in one state. mark: index into the turn's marks, or None."""

    text: str
    state: int
    mark: int | None = None


def tokenizer_of(model: str, folder: Path | None = None) -> Tokenizer | None:
    """The tokenizer of a model folder or a bundled model; `folder` takes precedence. None where there is none."""
    try:
        return find_tokenizer(folder or model)
    except LeylineError:
        return None


def follow_edits(
    marks: Sequence[Mark],
    directives: Sequence[JsonMapping],
    source: Sequence[int],
    target: Sequence[int],
    turn: int,
    tokenizer: Tokenizer,
) -> list[Mark]:
    """The marks of a turn: those of the last one where they stand now, and one for each directive.

    source: the last prompt; directives are in its coordinates (and may reach into the answer behind it). A directive
    whose replacement is not in the target where it should be is left out.
    """
    shift = 0
    made: list[Mark] = []
    moved = list(marks)
    for directive in directives:
        start, end, replacement = directive["start"], directive["end"], list(directive["replacement"])
        at = start + shift
        change = len(replacement) - (end - start)
        moved = [mark for mark in moved if mark.end <= start or mark.start >= end]
        if list(target[at : at + len(replacement)]) == replacement and (replacement or end > start):
            text = decode(tokenizer, source[start:end]) + ("…" if end > len(source) else "")
            made.append(Mark(at, at + len(replacement), turn, str(directive["mode"]), end - start, text))
        shift += change
    kept = [_moved(mark, directives) for mark in moved]
    return sorted([*kept, *made], key=lambda mark: (mark.start, mark.end))


def segments(
    ids: Sequence[int], receipt: Mapping[str, object], marks: Sequence[Mark], tokenizer: Tokenizer
) -> list[Segment]:
    """The text of a prompt in runs of one state. Joined, the texts are the decoded prompt."""
    length = len(ids)
    states = _states(length, receipt)
    cuts = {0, length} | {cut for start, end, _ in states for cut in (start, end)}
    cuts |= {min(cut, length) for mark in marks for cut in (mark.start, mark.end)}
    approximate = receipt.get("approximate_from")
    if isinstance(approximate, int):
        cuts.add(min(approximate, length))
    bounds = sorted(cuts)
    pieces = _pieces(tokenizer, ids, bounds)
    made = []
    for (start, end), text in zip(pairwise(bounds), pieces, strict=True):
        made += [Segment("", PREFILLED, k) for k, mark in enumerate(marks) if mark.start == mark.end == start]
        state = next((state for low, high, state in states if low <= start < high), PREFILLED)
        mark = next((k for k, mark in enumerate(marks) if mark.start <= start and end <= mark.end), None)
        made.append(Segment(text, state, mark))
    made += [Segment("", PREFILLED, k) for k, mark in enumerate(marks) if mark.start == mark.end == length]
    return made


def decode(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False)) if ids else ""


def _states(length: int, receipt: JsonMapping) -> list[tuple[int, int, int]]:
    """Half-open runs of cached and spliced tokens; everything else was prefilled."""
    runs = [(0, min(int(receipt.get("prefix_tokens") or 0), length), PREFIX)]
    for splice in receipt.get("splices") or ():
        start, end = max(runs[-1][1], int(splice["start"])), min(int(splice["end"]), length)
        if start < end:
            runs.append((start, end, SPLICED))
    return [run for run in runs if run[0] < run[1]]


def _pieces(tokenizer: Tokenizer, ids: Sequence[int], bounds: Sequence[int]) -> list[str]:
    """The text between bounds. A bound inside a character is put before it."""
    whole = decode(tokenizer, ids)
    pieces = [decode(tokenizer, ids[start:end]) for start, end in pairwise(bounds)]
    if "".join(pieces) == whole:
        return pieces
    places = [0]
    for bound in bounds[1:-1]:
        text = decode(tokenizer, ids[:bound]).rstrip("\ufffd")
        places.append(max(places[-1], min(len(text), len(whole))))
    places.append(len(whole))
    return [whole[start:end] for start, end in pairwise(places)]


def _moved(mark: Mark, directives: Sequence[JsonMapping]) -> Mark:
    shift = sum(len(d["replacement"]) - (d["end"] - d["start"]) for d in directives if d["end"] <= mark.start)
    return Mark(mark.start + shift, mark.end + shift, mark.turn, mark.mode, mark.removed, mark.text)
