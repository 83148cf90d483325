"""Composed families over text: the characters of a string, and the words of a list or of a sentence.

A family is (kind of text, aggregate, condition, change); a quarter of the families is held out.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from leyline.suites.micro.names import ARGUMENTS, LOCALS
from leyline.suites.micro.units import Unit, function_name, pick_new

Part = tuple[str, tuple[str, ...], str]
CHAR_CONDITIONS: tuple[Part, ...] = (
    ("vowel", ("that are vowels", "in 'aeiou'"), "{x} in 'aeiou'"),
    ("consonant", ("that are not vowels", "not in 'aeiou'"), "{x} not in 'aeiou'"),
    ("upper", ("in upper case", "that are capital letters"), "{x}.isupper()"),
    ("lower", ("in lower case", "that are small letters"), "{x}.islower()"),
    ("letter", ("that are letters",), "{x}.isalpha()"),
    ("space", ("other than spaces", "that are not spaces"), "{x} != ' '"),
    ("early", ("before '{w}' in the alphabet",), "{x} < '{w}'"),
    ("late", ("after '{w}' in the alphabet",), "{x} > '{w}'"),
    ("first", ("equal to the first character",), "{x} == {a}[0]"),
    ("last", ("different from the last character",), "{x} != {a}[-1]"),
    ("is", ("equal to '{w}'",), "{x} == '{w}'"),
    ("is-not", ("other than '{w}'",), "{x} != '{w}'"),
    ("in", ("that occur in {q}", "also found in {q}"), "{x} in {q}"),
    ("not-in", ("that do not occur in {q}", "missing from {q}"), "{x} not in {q}"),
    ("rare", ("that occur only once in it",), "{a}.count({x}) == 1"),
    ("frequent", ("that occur more than once in it",), "{a}.count({x}) > 1"),
    ("any", (), ""),
)
CHAR_CHANGES: tuple[Part, ...] = (
    ("plain", (), "{x}"),
    ("upper", ("in upper case", "as a capital"), "{x}.upper()"),
    ("lower", ("in lower case",), "{x}.lower()"),
    ("twice", ("twice", "doubled"), "{x} * 2"),
    ("times", ("{K} times", "repeated {K} times"), "{x} * {K}"),
    ("marked", ("followed by '{s}'",), "{x} + '{s}'"),
    ("led", ("with '{s}' in front",), "'{s}' + {x}"),
    ("bracketed", ("in square brackets",), "'[' + {x} + ']'"),
)
CHAR_AGGREGATES: tuple[tuple[str, tuple[str, ...], str, str, str, str], ...] = (
    ("string", ("a string of {n}", "the text made of {n}"), "S", "''", "{r} += {v}", "''.join({l})"),
    ("backwards", ("a string of {n} in reverse order",), "S", "''", "{r} = {v} + {r}", "''.join({l}[::-1])"),
    ("list", ("a list of {n}",), "LS", "[]", "{r}.append({v})", "{l}"),
    ("joined", ("{n} joined by '{s}'",), "S", "", "", "'{s}'.join({l})"),
    ("sorted", ("a sorted list of {n}",), "LS", "", "", "sorted({l})"),
    ("count", ("how many of {n} there are", "the number of {n}"), "I", "0", "{r} += 1", "len({l})"),
    ("counts", ("a dict that counts {n}",), "D", "{{}}", "{r}[{v}] = {r}.get({v}, 0) + 1", ""),
    ("distinct", ("the number of different ones among {n}",), "I", "", "", "len(set({l}))"),
    ("last", ("the last of {n}, or '{s}' if there are none",), "S", "'{s}'", "{r} = {v}", ""),
    ("codes", ("the sum of the character codes of {n}",), "I", "0", "{r} += ord({v})", ""),
)
WORD_CONDITIONS: tuple[Part, ...] = (
    ("longer", ("longer than {K} letters", "with more than {K} letters"), "len({x}) > {K}"),
    ("long", ("with at least {K} letters", "of {K} or more letters"), "len({x}) >= {K}"),
    ("shorter", ("shorter than {K} letters", "with fewer than {K} letters"), "len({x}) < {K}"),
    ("short", ("with at most {K} letters",), "len({x}) <= {K}"),
    ("length", ("of exactly {K} letters",), "len({x}) == {K}"),
    ("even", ("of even length",), "len({x}) % 2 == 0"),
    ("odd", ("of odd length",), "len({x}) % 2 == 1"),
    ("starts", ("that start with '{w}'", "beginning with '{w}'"), "{x}.startswith('{w}')"),
    ("ends", ("that end with '{w}'", "ending in '{w}'"), "{x}.endswith('{w}')"),
    ("has", ("that contain '{w}'", "with a '{w}' in them"), "'{w}' in {x}"),
    ("lacks", ("that do not contain '{w}'", "without a '{w}'"), "'{w}' not in {x}"),
    ("before", ("that come before '{w}' in the alphabet",), "{x} < '{w}'"),
    ("vowel", ("that start with a vowel",), "{x}[0] in 'aeiou'"),
    ("same-ends", ("that start and end with the same letter",), "{x}[0] == {x}[-1]"),
    ("is-not", ("different from {q}", "other than {q}"), "{x} != {q}"),
    ("fits", ("not longer than {q}",), "len({x}) <= len({q})"),
    ("any", (), ""),
)
WORD_CHANGES: tuple[Part, ...] = (
    ("plain", (), "{x}"),
    ("upper", ("in upper case", "in capitals"), "{x}.upper()"),
    ("reversed", ("spelled backwards", "reversed"), "{x}[::-1]"),
    ("title", ("with a capital first letter",), "{x}.capitalize()"),
    ("cut", ("cut to {K} letters", "shortened to {K} letters"), "{x}[:{K}]"),
    ("tail", ("without the first letter",), "{x}[1:]"),
    ("head", ("without the last letter",), "{x}[:-1]"),
    ("marked", ("followed by '{s}'",), "{x} + '{s}'"),
    ("led", ("with '{s}' in front",), "'{s}' + {x}"),
    ("twice", ("written twice",), "{x} * 2"),
    ("initial", ("as its first letter",), "{x}[0]"),
    ("sized", ("followed by its length",), "{x} + str(len({x}))"),
    ("replaced", ("with '{w}' replaced by '{s}'",), "{x}.replace('{w}', '{s}')"),
)
WORD_AGGREGATES: tuple[tuple[str, tuple[str, ...], str, str, str, str], ...] = (
    ("list", ("a list of {n}", "{n} in order"), "LS", "[]", "{r}.append({v})", "{l}"),
    ("backwards", ("a list of {n} from last to first",), "LS", "[]", "{r}.insert(0, {v})", "{l}[::-1]"),
    ("joined", ("{n} joined by '{s}'",), "S", "", "", "'{s}'.join({l})"),
    ("sorted", ("a sorted list of {n}",), "LS", "", "", "sorted({l})"),
    ("by-length", ("a list of {n}, shortest first",), "LS", "", "", "sorted({l}, key=len)"),
    ("count", ("how many of {n} there are", "the number of {n}"), "I", "0", "{r} += 1", "len({l})"),
    ("letters", ("the number of letters of {n} together",), "I", "0", "{r} += len({v})", ""),
    ("lengths", ("a list of the lengths of {n}",), "L", "[]", "{r}.append(len({v}))", ""),
    ("map", ("a dict from {n} to their lengths",), "D", "{{}}", "{r}[{v}] = len({v})", ""),
    ("counts", ("a dict that counts {n}",), "D", "{{}}", "{r}[{v}] = {r}.get({v}, 0) + 1", ""),
    ("last", ("the last of {n}, or '{s}' if there are none",), "S", "'{s}'", "{r} = {v}", ""),
    ("longest", ("the longest of {n}, or '' if there are none",), "S", "", "", "max({l}, key=len, default='')"),
    ("smallest", ("the first of {n} in the alphabet, or '' if there are none",), "S", "", "", "min({l}, default='')"),
    ("initials", ("a string of the first letters of {n}",), "S", "''", "{r} += {v}[0]", ""),
)


@dataclass(frozen=True, slots=True)
class Parts:
    """The drawn parts of one function; `source` is chars, words or sentence."""

    source: str
    aggregate: tuple[str, tuple[str, ...], str, str, str, str]
    condition: Part
    change: Part

    @property
    def family(self) -> str:
        return f"{self.source}/{self.aggregate[0]}/{self.condition[0]}/{self.change[0]}"


def draw_parts(rng: random.Random) -> Parts:
    source = rng.choice(("chars", "words", "words", "sentence"))
    chars = source == "chars"
    aggregate = rng.choice(CHAR_AGGREGATES if chars else WORD_AGGREGATES)
    conditions, changes = (CHAR_CONDITIONS, CHAR_CHANGES) if chars else (WORD_CONDITIONS, WORD_CHANGES)
    condition = rng.choice(conditions)
    plain = aggregate[0] in ("count", "codes", "initials") or rng.random() < 0.3
    return Parts(source, aggregate, condition, changes[0] if plain else rng.choice(changes))


def build(rng: random.Random, used: set[str], parts: Parts, first: str | None = None) -> Unit:
    """A function of the family as a loop or as a comprehension; `first` names its first argument."""
    taken: set[str] = set()
    name = function_name(rng, used)
    k, j = rng.randint(2, 6), rng.randint(1, 12)
    p: dict[str, object] = {"K": k, "J": j, "s": rng.choice("-+*/:~#_="), "w": rng.choice("abcdelmnoprst")}
    kind = "LS" if parts.source == "words" else "S"
    p["a"] = first or pick_new(rng, ARGUMENTS[kind], taken)
    for place in "xrt":
        p[place] = pick_new(rng, LOCALS[place], taken)
    arguments, types = [str(p["a"])], [kind]
    if "{q}" in parts.condition[2]:
        p["q"] = pick_new(rng, ARGUMENTS["S"], taken)
        arguments, types = [*arguments, str(p["q"])], [kind, "S"]
    _, wordings, result, start, step, whole = parts.aggregate
    noun = (
        ("the characters of {a}" if rng.random() < 0.7 else "all characters of {a}")
        if kind == "S"
        else "the words of {a}"
    )
    if parts.source == "sentence":
        noun = "the words of {a}"
    if parts.condition[1]:
        noun += " " + rng.choice(parts.condition[1])
    if parts.change[1]:
        noun += ", each " + rng.choice(parts.change[1])
    doc = rng.choice(("Return ", "Return ", "Give ", "Build ")) + rng.choice(wordings).replace("{n}", noun) + "."
    source = "{a}.split()" if parts.source == "sentence" else "{a}"
    p["src"], p["c"], p["v"] = source.format(**p), parts.condition[2].format(**p), parts.change[2].format(**p)
    x, r, t = p["x"], p["r"], p["t"]
    if step and (not whole or rng.random() < 0.6):
        inner = [step.format(**p)]
        if p["v"] != x and "{v}" in step and rng.random() < 0.35:
            inner = [f"{t} = {p['v']}", step.format(**{**p, "v": t})]
        if p["c"] and rng.random() < 0.2:
            inner = [f"if not ({p['c']}):", "    continue", *inner]
        elif p["c"]:
            inner = [f"if {p['c']}:", *(f"    {line}" for line in inner)]
        body = [
            f"{r} = {start.format(**p)}",
            f"for {x} in {p['src']}:",
            *(f"    {line}" for line in inner),
            f"return {r}",
        ]
    else:
        listing = f"[{p['v']} for {x} in {p['src']}" + (f" if {p['c']}]" if p["c"] else "]")
        if rng.random() < 0.5:
            body = [f"return {whole.format(**{**p, 'l': listing})}"]
        else:
            body = [f"{t} = {listing}", f"return {whole.format(**{**p, 'l': t})}"]
    lines = (f"def {name}({', '.join(arguments)}):", f'    """{doc.format(**p)}"""', *(f"    {line}" for line in body))
    text = "\n".join(body)
    variables = (*arguments, *(str(p[n]) for n in "xrt" if f"{p[n]}" in text))
    return Unit("function", name, parts.family, lines, tuple(types), result, tuple(arguments), variables, (k, j, k + 4))
