"""Two scripts in a row as one."""

from __future__ import annotations

from collections.abc import Sequence

from leyline.directives.directive import Directive, Mode


def merge(earlier: Sequence[Directive], later: Sequence[Directive]) -> tuple[Directive, ...]:
    """Compose two valid scripts: `earlier` leads from a to b, `later` from b to c, the result from a to c.

    Both are laid over b. Spans that overlap or touch there form one group, and a group becomes one directive: every
    token of b inside it is either part of an earlier replacement or removed by a later directive.
    """
    result: list[Directive] = []
    shift = 0
    i = j = 0
    while i < len(earlier) or j < len(later):
        starts = [d.start + shift for d in earlier[i : i + 1]] + [d.start for d in later[j : j + 1]]
        low = high = min(starts)
        group_shift = shift
        # The group's tokens in b. Tokens of a among them are all removed, so any value stands for one.
        between: list[int] = []
        removals: list[Directive] = []
        mode = Mode.AMORTIZE
        while True:
            if i < len(earlier) and earlier[i].start + shift <= high:
                d = earlier[i]
                start = d.start + shift
                between.extend([0] * (start - low - len(between)))
                between.extend(d.replacement)
                high = max(high, start + len(d.replacement))
                shift += d.delta
                i += 1
            elif j < len(later) and later[j].start <= high:
                d = later[j]
                removals.append(d)
                high = max(high, d.end)
                j += 1
            else:
                break
            if mode is not Mode.FORGET and d.mode is not Mode.AMORTIZE:
                mode = d.mode
        start, end = low - group_shift, high - shift
        replacement: list[int] = []
        position = 0
        for d in removals:
            replacement.extend(between[position : d.start - low])
            replacement.extend(d.replacement)
            position = d.end - low
        replacement.extend(between[position:])
        if start < end or replacement or mode is Mode.FORGET:
            result.append(Directive(start, end, tuple(replacement), mode))
    return tuple(result)
