"""What two sequences share at either end: of token ids, of text, of bytes, of anything that compares."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_FIRST, _LARGEST = 64, 1 << 16  # items compared at a time; the step doubles as long as they are equal


def common_prefix(a: Sequence[object], b: Sequence[object], a_start: int = 0, b_start: int = 0, limit: int = -1) -> int:
    """How many items `a[a_start:]` and `b[b_start:]` share at their start; at most `limit`, if it is not negative.

    Slices are compared, so that a long run costs a few passes in C. A list and a tuple may be compared too.
    """

    def equal(low: int, high: int) -> bool:
        return _equal(a[a_start + low : a_start + high], b[b_start + low : b_start + high])

    return _reach(equal, min(len(a) - a_start, len(b) - b_start), limit)


def common_suffix(a: Sequence[object], b: Sequence[object], a_end: int, b_end: int, limit: int = -1) -> int:
    """How many items `a[:a_end]` and `b[:b_end]` share at their end; at most `limit`, if it is not negative."""

    def equal(low: int, high: int) -> bool:
        return _equal(a[a_end - high : a_end - low], b[b_end - high : b_end - low])

    return _reach(equal, min(a_end, b_end), limit)


def _reach(equal: Callable[[int, int], bool], bound: int, limit: int) -> int:
    """The largest n for which `equal(0, n)` holds, counted from the end that the caller looks from."""
    bound = max(0, bound) if limit < 0 else max(0, min(bound, limit))
    low, step = 0, _FIRST
    while low < bound:
        high = min(low + step, bound)
        if not equal(low, high):
            break
        low, step = high, min(2 * step, _LARGEST)
    else:
        return bound
    while high - low > 1:
        middle = (low + high) // 2
        if equal(low, middle):
            low = middle
        else:
            high = middle
    return low


def _equal(x: Sequence[object], y: Sequence[object]) -> bool:
    return bool(x == y) if type(x) is type(y) else list(x) == list(y)
