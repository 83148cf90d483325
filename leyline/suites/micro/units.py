"""Units: the functions and classes a task's modules are made of, each drawn from a family with names and constants."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Literal

from leyline.suites.micro.families.dsl import ClassTemplate, FunctionTemplate
from leyline.suites.micro.names import ARGUMENTS, LOCALS, NOUNS, RESULTS, SEPARATORS, VERBS


@dataclass(eq=False)
class Unit:
    """One correct function or class.

    lines: its source; types, arguments, result: its signature (see `families`); variables: names a bug may confuse;
    constants: K, J, M as in the family; calls: the unit it calls, if any; first_buggable: bugs go to lines from here
    on.
    """

    kind: Literal["function", "class"]
    name: str
    family: str
    lines: tuple[str, ...]
    types: tuple[str, ...] = ()
    result: str = ""
    arguments: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    constants: tuple[int, int, int] = (2, 1, 4)
    calls: Unit | None = None
    places: dict[str, str] = field(default_factory=dict)
    template: ClassTemplate | None = None
    first_buggable: int = 0

    @property
    def header(self) -> str:
        """How its first line begins, and what to search for to find it."""
        return f"class {self.name}:" if self.kind == "class" else f"def {self.name}("


def pick_new(rng: random.Random, pool: tuple[str, ...] | list[str], used: set[str]) -> str:
    """A name of the pool not used yet (or any noun); marks it used."""
    for _ in range(20):
        name = rng.choice(pool)
        if name not in used:
            used.add(name)
            return name
    name = rng.choice(NOUNS)
    used.add(name)
    return name


def function_name(rng: random.Random, used: set[str]) -> str:
    while True:
        name = f"{rng.choice(VERBS)}_{rng.choice(NOUNS)}"
        if rng.random() < 0.25:
            name += f"_{rng.choice(NOUNS)}"
        if name not in used:
            used.add(name)
            return name


def class_name(rng: random.Random, used: set[str]) -> str:
    while True:
        name = rng.choice(NOUNS).capitalize() + rng.choice(NOUNS).capitalize()
        if name not in used:
            used.add(name)
            return name


def draw_constants(rng: random.Random, top: int = 9, step: int = 2) -> tuple[int, int, int]:
    """K, J, M with K < M."""
    k, j = rng.randint(2, top), rng.randint(1, 12)
    return k, j, k + rng.randint(step, step + 7)


def make_function(rng: random.Random, used: set[str], template: FunctionTemplate) -> Unit:
    """A function of the family with fresh names and constants."""
    taken: set[str] = set()
    places = {"f": function_name(rng, used)}
    for place, kind in zip("abc", template.types, strict=False):
        places[place] = pick_new(rng, ARGUMENTS[kind], taken)
    for place in "xyrti":
        places[place] = pick_new(rng, LOCALS[place], taken)
    constants = draw_constants(rng)
    values = {**places, **dict(zip("KJM", constants, strict=True)), "s": rng.choice(SEPARATORS)}
    doc = rng.choice(template.docs).format(**values)
    code = [line.format(**values) for line in template.code]
    return Unit(
        kind="function",
        name=places["f"],
        family=template.family,
        lines=(code[0], f'    """{doc}"""', *code[1:]),
        types=template.types,
        result=template.result,
        arguments=tuple(places[p] for p in "abc"[: len(template.types)]),
        variables=tuple(places[p] for p in "abcxyrti" if p in places and any(places[p] in line for line in code)),
        constants=constants,
    )


def make_wrapper(rng: random.Random, used: set[str], template: FunctionTemplate, helper: Unit) -> Unit:
    """A function that calls `helper` and uses its result."""
    taken: set[str] = set()
    name = function_name(rng, used)
    arguments = tuple(pick_new(rng, ARGUMENTS[t], taken) for t in helper.types)
    x, y, r = (pick_new(rng, LOCALS[p], taken) for p in "xyr")
    constants = draw_constants(rng)
    values = {
        "f": name,
        "g": helper.name,
        "ga": ", ".join(arguments),
        "x": x,
        "y": y,
        "r": r,
        "s": rng.choice(SEPARATORS),
    }
    values.update(zip("KJM", map(str, constants), strict=True))
    doc = rng.choice(template.docs).format(**values)
    lines = (f"def {name}({values['ga']}):", f'    """{doc}"""', *(line.format(**values) for line in template.code))
    return Unit(
        kind="function",
        name=name,
        family=template.family,
        lines=lines,
        types=helper.types,
        result=template.result,
        arguments=arguments,
        variables=(*arguments, *(n for n in (x, y, r) if any(n in line for line in lines[2:]))),
        constants=constants,
        calls=helper,
    )


PLACEHOLDER = "FIRST_ARGUMENT"


def make_caller(rng: random.Random, unit: Unit, helper: Unit) -> Unit:
    """`unit`, whose first argument is `PLACEHOLDER`, as a function that gets it from `helper` instead."""
    taken = {*unit.variables, unit.name}
    given = pick_new(rng, RESULTS, taken)
    own = tuple(pick_new(rng, ARGUMENTS[kind], taken) for kind in helper.types)
    arguments = (*own, *unit.arguments[1:])
    words = rng.choice(("what {} returns", "the result of {}", "the output of {}")).format(helper.name)
    doc = unit.lines[1].replace(PLACEHOLDER, words)
    return replace(
        unit,
        lines=(
            f"def {unit.name}({', '.join(arguments)}):",
            doc,
            f"    {given} = {helper.name}({', '.join(own)})",
            *(line.replace(PLACEHOLDER, given) for line in unit.lines[2:]),
        ),
        types=(*helper.types, *unit.types[1:]),
        arguments=arguments,
        variables=(*own, given, *unit.variables[1:]),
        calls=helper,
    )


def make_class(rng: random.Random, used: set[str], template: ClassTemplate, family: str) -> Unit:
    """A class of the family."""
    taken: set[str] = set()
    places = {"f": class_name(rng, used)}
    for place in ("m1", "m2", "m3", "m4"):
        places[place] = pick_new(rng, VERBS, taken)
    for place in "ab":
        places[place] = pick_new(rng, ARGUMENTS["I"], taken)
    for place in "trx":
        places[place] = pick_new(rng, NOUNS, taken)
    constants = draw_constants(rng, top=4, step=3)
    values = {**places, **dict(zip("KJM", constants, strict=True))}
    lines = tuple(template.code.strip("\n").format(**values).split("\n"))
    return Unit(
        kind="class",
        name=places["f"],
        family=family,
        lines=lines,
        result="C",
        variables=tuple(n for p, n in places.items() if p in "abx"),
        constants=constants,
        places=places,
        template=template,
    )
