"""Names that generated programs draw from."""

# ruff: noqa: SIM905

from __future__ import annotations

from leyline.suites.micro.outcome import NOUNS, VERBS

__all__ = ["ARGUMENTS", "LOCALS", "NOUNS", "RESULTS", "SEPARATORS", "VERBS"]

ARGUMENTS: dict[str, tuple[str, ...]] = {
    "L": tuple("values items numbers data rows entries nums points series samples records marks levels sizes".split()),
    "I": tuple("limit size bound amount level target width height step depth rate quota cap floor start stop".split()),
    "S": tuple("text word name label title phrase line key tag code".split()),
    "LS": tuple("words names labels titles tags lines keys tokens parts".split()),
    "D": tuple("table mapping stock prices scores ages totals weights book pairs".split()),
    "LL": tuple("grid table_ matrix blocks groups lanes".split()),
}
LOCALS: dict[str, tuple[str, ...]] = {
    "x": tuple("item v x elem n value entry cur one it".split()),
    "y": tuple("other y w val second count_ amt num".split()),
    "r": tuple("result total acc out res answer found output final kept".split()),
    "t": tuple("temp seen part base mid tmp rest aux state store_".split()),
    "i": tuple("i j k idx pos".split()),
}
RESULTS = tuple("given raw got made base_ inner source_ before".split())
SEPARATORS = tuple("- + * / : .. ~ # _ = -- :: ++ !".split())
