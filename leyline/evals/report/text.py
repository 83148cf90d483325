"""Numbers as people read them. A missing value is a dash, never a zero."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from leyline.evals.stats.clustered import Interval

NONE = "–"
EQUAL = "all pairs equal: nothing can be told"


def percent(value: float | None) -> str:
    """A share as a percentage with one decimal."""
    return NONE if value is None or math.isnan(value) else f"{100 * value:.1f}%"


def percent_interval(value: Interval | None) -> str:
    """`92.0% [88.1, 94.8]`, without brackets where the data gives no interval."""
    if value is None or math.isnan(value.estimate):
        return NONE
    if math.isnan(value.low):
        return f"{percent(value.estimate)} [no interval]"
    return f"{percent(value.estimate)} [{100 * value.low:.1f}, {100 * value.high:.1f}]"


def points(value: Interval | None, *, equal: bool = False) -> str:
    """A difference of shares in percentage points: `+2.0 [−4.5, +8.5]`. equal: all pairs are."""
    if value is None or math.isnan(value.estimate):
        return NONE
    if math.isnan(value.low):
        return f"{_signed(100 * value.estimate, 1)} {_no_interval(equal)}"
    return f"{_signed(100 * value.estimate, 1)} [{_signed(100 * value.low, 1)}, {_signed(100 * value.high, 1)}]"


def tokens(value: float | None) -> str:
    return NONE if value is None or math.isnan(value) else f"{value:,.0f}"


def tokens_interval(value: Interval | None, *, signed: bool = False, equal: bool = False) -> str:
    """A mean number of tokens with its interval. signed: of a difference. equal: all its pairs are."""
    if value is None or math.isnan(value.estimate):
        return NONE
    texts = [_signed(n, 0) if signed else tokens(n) for n in (value.estimate, value.low, value.high)]
    return f"{texts[0]} {_no_interval(equal)}" if math.isnan(value.low) else "{} [{}, {}]".format(*texts)


def seconds(value: float | None) -> str:
    """Three significant digits, in the unit that reads best."""
    if value is None:
        return NONE
    if value < 0.9995:
        return f"{1000 * value:.3g} ms" if value < 0.1 else f"{1000 * value:.0f} ms"
    if value < 120:
        return f"{value:.3g} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def joules(value: float | None) -> str:
    if value is None:
        return NONE
    return f"{value:,.0f} J" if value < 100_000 else f"{value / 3.6e6:.3g} kWh"


def p_value(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def counts(values: dict[str, int]) -> str:
    """`donor_missing 25, overlap 1`."""
    return ", ".join(f"{name} {count:,}" for name, count in values.items()) or "none"


def day(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _no_interval(equal: bool = False) -> str:
    return f"[{EQUAL}]" if equal else "[no interval]"


def _signed(value: float, digits: int) -> str:
    text = f"{abs(value):,.{digits}f}"
    if not text.strip("0.,"):
        return text
    return f"{'+' if value > 0 else '−'}{text}"
