"""Composed families that walk a list with some state: where a condition first holds, runs, prefixes, splits, resets.

A family is (walk, condition), with the conditions of `compose_ints`; a quarter of the families is held out.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from leyline.suites.micro.families.compose_ints import CONDITIONS
from leyline.suites.micro.names import ARGUMENTS, LOCALS
from leyline.suites.micro.units import Unit, function_name, pick_new


@dataclass(frozen=True, slots=True)
class Walk:
    """docs: wordings with {p} for the condition's words; forms: bodies with {c} for its code. result: its type."""

    key: str
    docs: tuple[str, ...]
    result: str
    forms: tuple[str, ...]


WALKS: tuple[Walk, ...] = (
    Walk(
        "first-index",
        (
            "Return the index of the first item of {a} that is {p}, or -1.",
            "Find where {a} first holds an item {p}, else -1.",
        ),
        "I",
        (
            "for {i}, {x} in enumerate({a}):\n    if {c}:\n        return {i}\nreturn -1",
            "for {i} in range(len({a})):\n    {x} = {a}[{i}]\n    if {c}:\n        return {i}\nreturn -1",
        ),
    ),
    Walk(
        "last-index",
        ("Return the index of the last item of {a} that is {p}, or -1.",),
        "I",
        (
            "{r} = -1\nfor {i}, {x} in enumerate({a}):\n    if {c}:\n        {r} = {i}\nreturn {r}",
            "for {i} in range(len({a}) - 1, -1, -1):\n    {x} = {a}[{i}]\n    if {c}:\n        return {i}\nreturn -1",
        ),
    ),
    Walk(
        "indices",
        ("List the indices of the items of {a} that are {p}.", "Return at which indices {a} holds an item {p}."),
        "L",
        (
            "{r} = []\nfor {i}, {x} in enumerate({a}):\n    if {c}:\n        {r}.append({i})\nreturn {r}",
            "return [{i} for {i}, {x} in enumerate({a}) if {c}]",
        ),
    ),
    Walk(
        "any",
        ("Tell whether any item of {a} is {p}.",),
        "B",
        ("for {x} in {a}:\n    if {c}:\n        return True\nreturn False", "return any({c} for {x} in {a})"),
    ),
    Walk(
        "all",
        ("Tell whether all items of {a} are {p}.",),
        "B",
        ("for {x} in {a}:\n    if not ({c}):\n        return False\nreturn True", "return all({c} for {x} in {a})"),
    ),
    Walk(
        "most",
        ("Tell whether more than half of the items of {a} are {p}.",),
        "B",
        ("{r} = 0\nfor {x} in {a}:\n    if {c}:\n        {r} += 1\nreturn {r} * 2 > len({a})",),
    ),
    Walk(
        "longest-run",
        ("Return the length of the longest run of items of {a} that are {p}.",),
        "I",
        (
            "{r} = 0\n{t} = 0\nfor {x} in {a}:\n    if {c}:\n        {t} += 1\n        {r} = max({r}, {t})\n"
            "    else:\n        {t} = 0\nreturn {r}",
            "{r} = 0\n{t} = 0\nfor {x} in {a}:\n    {t} = {t} + 1 if {c} else 0\n"
            "    if {t} > {r}:\n        {r} = {t}\nreturn {r}",
        ),
    ),
    Walk(
        "before",
        ("Return the items of {a} before the first one that is {p}.",),
        "L",
        (
            "{r} = []\nfor {x} in {a}:\n    if {c}:\n        break\n    {r}.append({x})\nreturn {r}",
            "for {i}, {x} in enumerate({a}):\n    if {c}:\n        return {a}[:{i}]\nreturn list({a})",
        ),
    ),
    Walk(
        "from",
        ("Return the items of {a} from the first one on that is {p}.",),
        "L",
        (
            "{r} = []\nfor {x} in {a}:\n    if {r} or {c}:\n        {r}.append({x})\nreturn {r}",
            "for {i}, {x} in enumerate({a}):\n    if {c}:\n        return {a}[{i}:]\nreturn []",
        ),
    ),
    Walk(
        "sum-before",
        ("Add up the items of {a} before the first one that is {p}.",),
        "I",
        ("{r} = 0\nfor {x} in {a}:\n    if {c}:\n        break\n    {r} += {x}\nreturn {r}",),
    ),
    Walk(
        "up-to",
        ("Return the items of {a} up to and with the first one that is {p}.",),
        "L",
        ("{r} = []\nfor {x} in {a}:\n    {r}.append({x})\n    if {c}:\n        break\nreturn {r}",),
    ),
    Walk(
        "partition",
        ("Return the items of {a} that are {p}, then all others.",),
        "L",
        (
            "{r} = []\n{t} = []\nfor {x} in {a}:\n    if {c}:\n        {r}.append({x})\n"
            "    else:\n        {t}.append({x})\n"
            "return {r} + {t}",
        ),
    ),
    Walk(
        "split",
        ("Split {a} at each item that is {p}, which is left out.",),
        "LL",
        (
            "{r} = [[]]\nfor {x} in {a}:\n    if {c}:\n        {r}.append([])\n    else:\n"
            "        {r}[-1].append({x})\nreturn {r}",
        ),
    ),
    Walk(
        "replace",
        ("Return {a} with each item that is {p} replaced by {N}.",),
        "L",
        (
            "return [{N} if {c} else {x} for {x} in {a}]",
            "{r} = list({a})\nfor {i}, {x} in enumerate({a}):\n    if {c}:\n        {r}[{i}] = {N}\nreturn {r}",
        ),
    ),
    Walk(
        "restart",
        ("Return the running totals of {a}; the total restarts at 0 before each item that is {p}.",),
        "L",
        (
            "{r} = []\n{t} = 0\nfor {x} in {a}:\n    if {c}:\n        {t} = 0\n    {t} += {x}\n"
            "    {r}.append({t})\nreturn {r}",
        ),
    ),
    Walk(
        "balance",
        ("Add {N} for each item of {a} that is {p} and take off 1 for every other.",),
        "I",
        ("{r} = 0\nfor {x} in {a}:\n    if {c}:\n        {r} += {N}\n    else:\n        {r} -= 1\nreturn {r}",),
    ),
    Walk(
        "after",
        ("List the items of {a} that come directly after one that is {p}.",),
        "L",
        (
            "{r} = []\nfor {i} in range(1, len({a})):\n    {x} = {a}[{i} - 1]\n    if {c}:\n"
            "        {r}.append({a}[{i}])\nreturn {r}",
        ),
    ),
    Walk(
        "weighted",
        ("Add up the indices of the items of {a} that are {p}, plus {N}.",),
        "I",
        ("{r} = {N}\nfor {i}, {x} in enumerate({a}):\n    if {c}:\n        {r} += {i}\nreturn {r}",),
    ),
    Walk(
        "difference",
        ("Return how many more items of {a} are {p} than are not.",),
        "I",
        (
            "{r} = 0\n{t} = 0\nfor {x} in {a}:\n    if {c}:\n        {r} += 1\n    else:\n"
            "        {t} += 1\nreturn {r} - {t}",
            "{t} = len([{x} for {x} in {a} if {c}])\nreturn {t} - (len({a}) - {t})",
        ),
    ),
)
_CONDITIONS = tuple(c for c in CONDITIONS if c[0] != "any")


def draw_parts(rng: random.Random) -> tuple[str, str]:
    """The keys of walk and condition."""
    return rng.choice(WALKS).key, rng.choice(_CONDITIONS)[0]


def family(parts: tuple[str, str]) -> str:
    return f"scan/{parts[0]}/{parts[1]}"


def build(rng: random.Random, used: set[str], parts: tuple[str, str], first: str | None = None) -> Unit:
    """A function of the family; `first` names its first argument."""
    walk = next(w for w in WALKS if w.key == parts[0])
    _, phrases, condition = next(c for c in _CONDITIONS if c[0] == parts[1])
    taken: set[str] = set()
    name = function_name(rng, used)
    k, j = rng.randint(2, 9), rng.randint(1, 12)
    m = k + rng.randint(2, 9)
    p: dict[str, object] = {"K": k, "J": j, "M": m, "N": rng.randint(2, 9)}
    p["a"] = first or pick_new(rng, ARGUMENTS["L"], taken)
    for place in "xrti":
        p[place] = pick_new(rng, LOCALS[place], taken)
    arguments, types = [str(p["a"])], ["L"]
    if "{q2}" in condition:
        p["q2"] = pick_new(rng, ARGUMENTS["L"], taken)
        arguments, types = [*arguments, str(p["q2"])], ["L", "L"]
    if "{q}" in condition:
        p["q"] = rng.choice([k, m, 0]) if rng.random() < 0.4 else pick_new(rng, ARGUMENTS["I"], taken)
        if isinstance(p["q"], str):
            arguments, types = [*arguments, p["q"]], ["L", "I"]
    p["c"], p["p"] = condition.format(**p), rng.choice(phrases).format(**p)
    body = rng.choice(walk.forms).format(**p).split("\n")
    lines = (
        f"def {name}({', '.join(arguments)}):",
        f'    """{rng.choice(walk.docs).format(**p)}"""',
        *(f"    {line}" for line in body),
    )
    text = "\n".join(body)
    return Unit(
        kind="function",
        name=name,
        family=family(parts),
        lines=lines,
        types=tuple(types),
        result=walk.result,
        arguments=tuple(arguments),
        variables=(*arguments, *(str(p[n]) for n in "xrti" if str(p[n]) in text)),
        constants=(k, j, m),
    )
