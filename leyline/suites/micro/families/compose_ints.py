"""Composed families over a list of numbers: which items, what is done with each, how they are put together, and after.

Each part pairs words with code, and the same meaning is written in several styles, so that what a function should do
is known only from its docstring. A family is (aggregate, condition, change); a quarter of the families is held out.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from leyline.suites.micro.names import ARGUMENTS, LOCALS
from leyline.suites.micro.units import Unit, function_name, pick_new

# key, wordings behind "items that are ...", condition on {x}; {q} is an argument or a constant
CONDITIONS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("above", ("greater than {q}", "above {q}", "over {q}", "larger than {q}"), "{x} > {q}"),
    ("least", ("at least {q}", "not below {q}", "{q} or more"), "{x} >= {q}"),
    ("below", ("less than {q}", "below {q}", "under {q}", "smaller than {q}"), "{x} < {q}"),
    ("most", ("at most {q}", "not above {q}", "{q} or less"), "{x} <= {q}"),
    ("equal", ("equal to {q}", "exactly {q}"), "{x} == {q}"),
    ("differ", ("not equal to {q}", "different from {q}", "other than {q}"), "{x} != {q}"),
    ("even", ("even",), "{x} % 2 == 0"),
    ("odd", ("odd", "not even"), "{x} % 2 == 1"),
    ("multiple", ("divisible by {K}", "multiples of {K}"), "{x} % {K} == 0"),
    ("indivisible", ("not divisible by {K}", "not multiples of {K}"), "{x} % {K} != 0"),
    ("positive", ("positive", "above zero"), "{x} > 0"),
    ("negative", ("negative", "below zero"), "{x} < 0"),
    ("nonzero", ("not zero", "nonzero"), "{x} != 0"),
    ("nonnegative", ("not negative", "zero or more"), "{x} >= 0"),
    ("within", ("from {K} to {M}, both included", "between {K} and {M} inclusive"), "{K} <= {x} and {x} <= {M}"),
    ("inside", ("strictly between {K} and {M}", "above {K} and below {M}"), "{K} < {x} and {x} < {M}"),
    ("outside", ("below {K} or above {M}", "outside the range {K} to {M}"), "{x} < {K} or {x} > {M}"),
    ("ending", ("ending in the digit {K}", "{K} in the last digit"), "{x} % 10 == {K}"),
    ("member", ("in {q2}", "also in {q2}"), "{x} in {q2}"),
    ("stranger", ("not in {q2}", "missing from {q2}"), "{x} not in {q2}"),
    ("even-or-small", ("even or below {q}",), "{x} % 2 == 0 or {x} < {q}"),
    ("odd-and-large", ("odd and above {q}",), "{x} % 2 == 1 and {x} > {q}"),
    ("far", ("more than {J} away from {q}",), "abs({x} - {q}) > {J}"),
    ("any", (), ""),
)
# key, wordings behind "each" ("each doubled"), value of an item
CHANGES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("plain", (), "{x}"),
    ("plain", (), "{x}"),
    ("times", ("times {K}", "multiplied by {K}"), "{x} * {K}"),
    ("plus", ("plus {J}", "increased by {J}", "raised by {J}"), "{x} + {J}"),
    ("minus", ("minus {J}", "reduced by {J}", "less {J}"), "{x} - {J}"),
    ("from", ("subtracted from {K}", "taken from {K}"), "{K} - {x}"),
    ("squared", ("squared", "times itself"), "{x} * {x}"),
    ("doubled", ("doubled",), "{x} * 2"),
    ("halved", ("halved and rounded down", "divided by 2, rounded down"), "{x} // 2"),
    ("divided", ("divided by {K}, rounded down",), "{x} // {K}"),
    ("absolute", ("without its sign", "as an absolute value"), "abs({x})"),
    ("negated", ("negated", "with its sign flipped"), "-{x}"),
    ("remainder", ("modulo {K}", "as the remainder of a division by {K}"), "{x} % {K}"),
    ("capped", ("capped at {M}", "but at most {M}"), "min({x}, {M})"),
    ("floored", ("raised to at least {K}", "but not less than {K}"), "max({x}, {K})"),
    ("distance", ("as its distance from {K}",), "abs({x} - {K})"),
    ("affine", ("times {K} plus {J}", "multiplied by {K} and then increased by {J}"), "{x} * {K} + {J}"),
    ("scaled-down", ("times {K} minus {J}",), "{x} * {K} - {J}"),
)
# key, wordings in front of "the items" ({n} is the noun phrase), result, start, step, final expression on a list {l}
AGGREGATES: tuple[tuple[str, tuple[str, ...], str, str, str, str], ...] = (
    ("sum", ("the sum of {n}", "the total of {n}"), "I", "0", "{r} += {v}", "sum({l})"),
    ("product", ("the product of {n}",), "I", "1", "{r} *= {v}", ""),
    ("list", ("a list of {n}", "{n} in order"), "L", "[]", "{r}.append({v})", "{l}"),
    (
        "reversed",
        ("a list of {n} from last to first", "{n} in reverse order"),
        "L",
        "[]",
        "{r}.insert(0, {v})",
        "{l}[::-1]",
    ),
    ("sorted", ("{n} sorted in rising order",), "L", "", "", "sorted({l})"),
    ("falling", ("{n} sorted in falling order",), "L", "", "", "sorted({l}, reverse=True)"),
    ("distinct", ("the number of different values among {n}",), "I", "", "", "len(set({l}))"),
    ("largest", ("the largest of {n}, or {D} if there are none",), "I", "", "", "max({l}, default={D})"),
    ("smallest", ("the smallest of {n}, or {D} if there are none",), "I", "", "", "min({l}, default={D})"),
    ("last", ("the last of {n}, or {D} if there are none",), "I", "{D}", "{r} = {v}", ""),
    ("alternating", ("the sum of {n} with alternating signs, the last one added",), "I", "0", "{r} = {v} - {r}", ""),
    ("pairs", ("a list of {n}, each twice in a row",), "L", "[]", "{r} += [{v}, {v}]", ""),
    ("text", ("{n} joined by '{s}'",), "S", "", "", "'{s}'.join([str({x}) for {x} in {l}])"),
    ("spread", ("the largest minus the smallest of {n}, or {D} if there are none",), "I", "", "", ""),
    ("mean", ("the average of {n} rounded down, or {D} if there are none",), "I", "", "", ""),
    ("totals", ("the running totals of {n}",), "L", "", "", ""),
    ("counts", ("a dict that counts {n}",), "D", "{{}}", "{r}[{v}] = {r}.get({v}, 0) + 1", ""),
    ("count", ("how many of {n} there are", "the number of {n}"), "I", "0", "{r} += 1", "len({l})"),
)
RANGES: tuple[tuple[str, str], ...] = (
    ("", "{a}"),
    ("", "{a}"),
    ("", "{a}"),
    ("", "{a}"),
    (" after the first", "{a}[1:]"),
    (" before the last", "{a}[:-1]"),
    (" at even indices", "{a}[::2]"),
    (" at odd indices", "{a}[1::2]"),
    (" from index {K} on", "{a}[{K}:]"),
)
POSTS: tuple[tuple[str, str], ...] = (
    (", plus {J}", "{r} + {J}"),
    (", minus {J}", "{r} - {J}"),
    (", times {K}", "{r} * {K}"),
    (", but at most {M}", "min({r}, {M})"),
    (", but at least {J}", "max({r}, {J})"),
    (", modulo {K}", "{r} % {K}"),
)
VERBS = ("Return", "Compute", "Give", "Work out")


@dataclass(frozen=True, slots=True)
class Parts:
    """The drawn parts of one function."""

    aggregate: tuple[str, tuple[str, ...], str, str, str, str]
    condition: tuple[str, tuple[str, ...], str]
    change: tuple[str, tuple[str, ...], str]

    @property
    def family(self) -> str:
        return f"ints/{self.aggregate[0]}/{self.condition[0]}/{self.change[0]}"


def draw_parts(rng: random.Random) -> Parts:
    aggregate = rng.choice(AGGREGATES)
    change = CHANGES[0] if aggregate[0] == "count" else rng.choice(CHANGES)
    condition = CONDITIONS[-1] if rng.random() < 0.12 else rng.choice(CONDITIONS[:-1])
    return Parts(aggregate, condition, change)


def build(rng: random.Random, used: set[str], parts: Parts, first: str | None = None) -> Unit:
    """A function of the family in one of the styles that can express it; `first` names its first argument."""
    taken: set[str] = set()
    name = function_name(rng, used)
    k, j = rng.randint(2, 9), rng.randint(1, 12)
    m, d = k + rng.randint(2, 9), rng.choice([0, -1, rng.randint(1, 12)])
    p: dict[str, object] = {"K": k, "J": j, "M": m, "D": d, "s": rng.choice("-+*/:~#_=")}
    p["a"] = first or pick_new(rng, ARGUMENTS["L"], taken)
    for place in "xrti":
        p[place] = pick_new(rng, LOCALS[place], taken)
    arguments, types = [str(p["a"])], ["L"]
    _, phrases, condition = parts.condition
    if "{q2}" in condition:
        p["q2"] = pick_new(rng, ARGUMENTS["L"], taken)
        arguments, types = [*arguments, str(p["q2"])], ["L", "L"]
    if "{q}" in condition:
        p["q"] = rng.choice([k, m, 0]) if rng.random() < 0.4 else pick_new(rng, ARGUMENTS["I"], taken)
        if isinstance(p["q"], str):
            arguments, types = [*arguments, p["q"]], ["L", "I"]
    where, source = rng.choice(RANGES if k <= 3 else RANGES[:-1])
    _, wordings, result, _, _, _ = parts.aggregate
    noun = rng.choice(("the items", "the numbers", "the values")) + " of {a}" + where
    if phrases:
        noun += rng.choice((" that are ", " which are ")) + rng.choice(phrases)
    if parts.change[1]:
        noun += rng.choice((", each ", ", every one ")) + rng.choice(parts.change[1])
    doc = rng.choice(VERBS) + " " + rng.choice(wordings).replace("{n}", noun)
    post = rng.choice(POSTS) if result == "I" and rng.random() < 0.2 else None
    p["post"] = post[1].format(**p) if post else p["r"]
    doc += (post[0] if post else "") + "."
    p["v"] = parts.change[2].format(**p)
    p["c"] = condition.format(**p)
    p["src"] = source.format(**p)
    body = _body(rng, parts, p)
    lines = [f"def {name}({', '.join(arguments)}):", f'    """{doc.format(**p)}"""', *(f"    {line}" for line in body)]
    text = "\n".join(body)
    variables = [*arguments, *(str(p[n]) for n in "xrti" if f"{p[n]}" in text)]
    return Unit(
        "function",
        name,
        parts.family,
        tuple(lines),
        tuple(types),
        result,
        tuple(arguments),
        tuple(variables),
        (k, j, m),
    )


def _body(rng: random.Random, parts: Parts, p: dict[str, object]) -> list[str]:
    key, _, _, start, step, whole = parts.aggregate
    styles = (["loop"] * 3 if step else []) + (["list"] * 2 if whole else [])
    style = rng.choice(styles or ["gather"])
    plain = str(p["v"]) == str(p["x"])
    if style == "list":
        kept = f" if {p['c']}" if p["c"] else ""
        listing = f"[{p['v']} for {p['x']} in {p['src']}{kept}]" if kept or not plain else f"list({p['src']})"
        if rng.random() < 0.5:
            final = whole.format(**{**p, "l": listing})
            return _finish(rng, p, final)
        return [f"{p['t']} = {listing}", *_finish(rng, p, whole.format(**{**p, "l": p["t"]}))]
    if style == "loop":
        inner = [step.format(**p)]
        if not plain and "{v}" in step and rng.random() < 0.3:
            inner = [f"{p['t']} = {p['v']}", step.format(**{**p, "v": p["t"]})]
        return [f"{p['r']} = {start.format(**p)}", *_loop(rng, p, inner), f"return {p['post']}"]
    t, r, x = p["t"], p["r"], p["x"]
    gather = [f"{t} = []", *_loop(rng, p, [f"{t}.append({p['v']})"])]
    if rng.random() < 0.4:
        kept = f" if {p['c']}" if p["c"] else ""
        gather = [f"{t} = [{p['v']} for {x} in {p['src']}{kept}]"]
    if key == "totals":
        return [
            *gather,
            f"{r} = []",
            f"for {x} in {t}:",
            f"    {r}.append({x} + ({r}[-1] if {r} else 0))",
            f"return {r}",
        ]
    value = f"max({t}) - min({t})" if key == "spread" else f"sum({t}) // len({t})"
    post = [f"{r} = {value}", f"return {p['post']}"] if p["post"] != r else [f"return {value}"]
    if p["post"] != r:
        return [*gather, f"{r} = {p['D']}", f"if {t}:", f"    {r} = {value}", f"return {p['post']}"]
    return [*gather, f"if not {t}:", f"    return {p['D']}", *post]


def _finish(rng: random.Random, p: dict[str, object], value: str) -> list[str]:
    if p["post"] != p["r"] or rng.random() < 0.3:
        return [f"{p['r']} = {value}", f"return {p['post']}"]
    return [f"return {value}"]


def _loop(rng: random.Random, p: dict[str, object], inner: list[str]) -> list[str]:
    """A loop over the source that runs `inner` on items that meet the condition."""
    x, i, condition = p["x"], p["i"], str(p["c"])
    shape = rng.random()
    if shape < 0.65 or p["src"] != p["a"]:
        head = [f"for {x} in {p['src']}:"]
        body: list[str] = []
    elif shape < 0.85:
        head = [f"for {i} in range(len({p['a']})):"]
        body = [f"{x} = {p['a']}[{i}]"]
    else:
        if not condition or rng.random() < 0.5:
            guarded = [f"if {condition}:", *(f"    {line}" for line in inner)] if condition else inner
            loop = [f"while {i} < len({p['a']}):", f"    {x} = {p['a']}[{i}]", *(f"    {g}" for g in guarded)]
            return [f"{i} = 0", *loop, f"    {i} += 1"]
        head = [f"for {i}, {x} in enumerate({p['a']}):"]
        body = []
    if condition and rng.random() < 0.2:
        body += [f"if not ({condition}):", "    continue", *inner]
    elif condition:
        body += [f"if {condition}:", *(f"    {line}" for line in inner)]
    else:
        body += inner
    return [*head, *(f"    {line}" for line in body)]
