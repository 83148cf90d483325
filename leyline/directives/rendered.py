"""From message edits to token directives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from leyline.directives.common import common_prefix, common_suffix
from leyline.directives.directive import Directive, Mode
from leyline.directives.errors import EditError
from leyline.directives.messages import MessageEdit, group_edits
from leyline.directives.script import EditScript

Span = tuple[int, int]


@dataclass(frozen=True)
class Rendered:
    """A history as the model reads it.

    ids: the tokens.
    spans: one half-open token span a message, in order. Tokens before the first span belong to no message (a preamble
        of the template); tokens after the last one are the generation prompt.
    """

    ids: tuple[int, ...]
    spans: tuple[Span, ...] = ()

    def __post_init__(self) -> None:
        if type(self.ids) is not tuple:
            object.__setattr__(self, "ids", tuple(self.ids))
        if type(self.spans) is not tuple:
            object.__setattr__(self, "spans", tuple((start, end) for start, end in self.spans))
        position = 0
        for index, (start, end) in enumerate(self.spans):
            if not position <= start <= end <= len(self.ids):
                raise EditError(
                    f"span {index} is [{start}, {end}); spans must ascend from {position} and end by {len(self.ids)}"
                )
            position = end


@dataclass(frozen=True, slots=True)
class _Pair:
    """A source region and the target region that stands for it; `edit` is None where none was declared."""

    index: int
    source: Span
    target: Span
    edit: MessageEdit | None = None


def token_script(source: Rendered, target: Rendered, edits: Sequence[MessageEdit]) -> EditScript:
    """The directives that lead from what the server holds to the new prompt.

    source: the last prompt and the tokens generated on it; its last message is the generated one, without the tokens
        that close a turn.
    target: the new prompt: the edited history and whatever was appended to it.
    edits: what was declared, in indices of the source's messages.

    An edited message gives a directive of its mode, with the tokens that both versions share at either end trimmed. A
    message that differs though no edit declares it gives a FORGET. What the target holds beyond the source is no edit.
    `token_script(...).apply(source.ids)` is always a prefix of `target.ids`. Raises `EditError`.
    """
    return token_edits(source, target, edits)[0]


def undeclared_edits(source: Rendered, target: Rendered, edits: Sequence[MessageEdit]) -> tuple[int, ...]:
    """Source message indices whose tokens changed though no edit declares it; -1 is the preamble. Raises `EditError`.

    The arguments are those of `token_script`, which turns each of these into a FORGET.
    """
    return token_edits(source, target, edits)[1]


def token_edits(source: Rendered, target: Rendered, edits: Sequence[MessageEdit]) -> tuple[EditScript, tuple[int, ...]]:
    """What `token_script` and `undeclared_edits` give, worked out once for both."""
    directives: list[Directive] = []
    undeclared: list[int] = []
    for pair in _pairs(source, target, edits):
        found = _directive(source.ids, target.ids, pair)
        if found is None:
            continue
        if pair.edit is None:
            undeclared.append(pair.index)
        last = directives[-1] if directives else None
        if last is not None and last.end == found.start and last.mode is found.mode:
            directives[-1] = Directive(last.start, found.end, last.replacement + found.replacement, last.mode)
        else:
            directives.append(found)
    return EditScript(tuple(directives)), tuple(undeclared)


def _pairs(source: Rendered, target: Rendered, edits: Sequence[MessageEdit]) -> Iterator[_Pair]:
    """Source and target regions, both in order and without gaps, up to the one that ends the source."""
    inserts, changes = group_edits(len(source.spans), edits)
    old, new = _regions(source), _regions(target)
    yield _Pair(-1, old[0], new[0])
    taken = 0
    if old[0][1] == len(source.ids):
        return

    def take() -> Span:
        nonlocal taken
        taken += 1
        return new[taken] if taken < len(new) else (len(target.ids), len(target.ids))

    for index, region in enumerate(old[1:]):
        for edit in inserts.get(index, ()) if index < len(source.spans) else ():
            yield _Pair(index, (region[0], region[0]), take(), edit)
        change = changes.get(index)
        if change is not None and change.replacement is None:
            here = new[taken][1] if taken < len(new) else len(target.ids)
            yield _Pair(index, region, (here, here), change)
        else:
            yield _Pair(index, region, take(), change)
        if region[1] == len(source.ids):
            return


def _regions(rendered: Rendered) -> list[Span]:
    """Tile the tokens: the preamble, then each message with the gap before it, then the generation prompt, if any."""
    first = rendered.spans[0][0] if rendered.spans else 0
    regions = [(0, first)]
    position = first
    for _, end in rendered.spans:
        regions.append((position, end))
        position = end
    if position < len(rendered.ids):
        regions.append((position, len(rendered.ids)))
    return regions


def _directive(source: tuple[int, ...], target: tuple[int, ...], pair: _Pair) -> Directive | None:
    """The directive of one pair of regions, or None where the target continues the source."""
    (start, end), (low, high) = pair.source, pair.target
    mode = Mode.FORGET if pair.edit is None else pair.edit.mode
    head = common_prefix(source, target, start, low, min(end - start, high - low))
    if end == len(source) and pair.edit is None:
        # Nothing follows in the source, so what the target holds beyond the shared head is an appended tail: only the
        # source's own rest has to go.
        return Directive(start + head, end, (), mode) if start + head < end else None
    if end == len(source) and start < end and start + head == end:
        return None
    if start + head == end and low + head == high:
        # The edit renders to the very same tokens. A declared FORGET still asks to heal what stands behind it.
        return Directive(start, start, (), mode) if pair.edit is not None and mode is Mode.FORGET else None
    tail = common_suffix(source, target, end, high, min(end - start, high - low) - head)
    return Directive(start + head, end - tail, target[low + head : high - tail], mode)
