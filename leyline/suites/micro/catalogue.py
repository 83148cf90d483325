"""Every program family, and which of them training never sees.

Written families are held out by position (every fourth of each list, and one list as a whole), composed ones by a hash
of their parts (27 in 100), methods of composed classes by position. Of every kind at least a quarter is held out.
"""

from __future__ import annotations

import functools
import random
import zlib
from dataclasses import dataclass
from typing import Literal

from leyline.suites.micro.families import (
    classes_basic,
    classes_machines,
    classes_more,
    compose_classes,
    compose_ints,
    compose_scans,
    compose_steps,
    compose_text,
    functions_algorithms,
    functions_basic,
    functions_more,
    functions_numbers,
    functions_pairs,
    functions_unseen,
    wrappers,
)
from leyline.suites.micro.families.dsl import ClassTemplate, FunctionTemplate, parse
from leyline.suites.micro.units import (
    PLACEHOLDER,
    Unit,
    make_caller,
    make_class,
    make_function,
    make_wrapper,
)

Split = Literal["seen", "unseen", "train"]

METHODS = {f"class/{state}/{m[0]}": i for state, menu in compose_classes.MENUS.items() for i, m in enumerate(menu)}


@dataclass(frozen=True)
class Written:
    """The written families. functions, wrappers and classes are all of them; held_out names the unseen ones."""

    functions: tuple[FunctionTemplate, ...]
    wrappers: tuple[FunctionTemplate, ...]
    classes: tuple[tuple[str, ClassTemplate], ...]
    held_out: frozenset[str]

    @functools.cached_property
    def seen_functions(self) -> tuple[FunctionTemplate, ...]:
        return tuple(t for t in self.functions if t.family not in self.held_out)

    @functools.cached_property
    def unseen_functions(self) -> tuple[FunctionTemplate, ...]:
        return tuple(t for t in self.functions if t.family in self.held_out)


@functools.cache
def written() -> Written:
    """Reads every template once, when the first task is drawn: whoever only imports the suite does not wait for it."""
    basic = functions_basic.TEMPLATES + functions_pairs.TEMPLATES.lstrip("\n")
    more = (functions_more, functions_algorithms, functions_numbers)
    both = parse(basic, "basic") + parse("".join(m.TEMPLATES.lstrip("\n") for m in more), "more")
    extra = parse(functions_unseen.TEMPLATES, "unseen")
    callers = parse(wrappers.TEMPLATES, "wrapper")
    templates = classes_basic.CLASSES + classes_more.CLASSES + classes_machines.CLASSES
    classes = tuple((f"class-{i:02d}", t) for i, t in enumerate(templates))
    unseen = [t.family for t in (*both[3::4], *extra, *callers[::4])] + [family for family, _ in classes[::4]]
    return Written(both + extra, callers, classes, frozenset(unseen))


def held_out(family: str) -> bool:
    """Whether training never sees the family."""
    if family.startswith("class/"):
        return compose_classes.held_out(METHODS[family])
    if "/" in family:
        return zlib.crc32(family.encode()) % 100 < 27
    return family in written().held_out


# Kinds of composed families by what their first argument is; a kind that stands twice is drawn twice as often.
COMPOSED = (
    ("ints", "L"),
    ("ints", "L"),
    ("scan", "L"),
    ("scan", "L"),
    ("text", "S"),
    ("text", "LS"),
    ("steps", "I"),
    ("steps", "D"),
    ("steps", "L"),
)


def draw_unit(rng: random.Random, used: set[str], helpers: list[Unit], split: Split) -> Unit | None:
    """The next unit of a module that may call `helpers`; None when the draw cannot be used there.

    In the unseen split half of the units are of held-out families, else none.
    """
    unseen = split == "unseen" and rng.random() < 0.5
    x = rng.random()
    if x < 0.13:
        return _draw_class(rng, used, unseen)
    if x < 0.37 and helpers:
        return _draw_caller(rng, used, rng.choice(helpers), unseen)
    if x < 0.55:
        return make_function(rng, used, rng.choice(written().unseen_functions if unseen else written().seen_functions))
    return _draw_composed(rng, used, unseen, rng.choice(COMPOSED))


def _draw_caller(rng: random.Random, used: set[str], helper: Unit, unseen: bool) -> Unit | None:
    """A function that works on the result of `helper`: of a written family, or a composed one whose input it is."""
    kinds = [kind for kind, result in COMPOSED if result == helper.result]
    if kinds and rng.random() < 0.6:
        unit = _draw_composed(rng, used, unseen, (rng.choice(kinds), helper.result), PLACEHOLDER)
        return make_caller(rng, unit, helper)
    fitting = [t for t in written().wrappers if t.types[0] == helper.result and held_out(t.family) == unseen]
    return make_wrapper(rng, used, rng.choice(fitting), helper) if fitting else None


def _draw_composed(
    rng: random.Random, used: set[str], unseen: bool, kind: tuple[str, str], first: str | None = None
) -> Unit:
    """A function of a composed family, drawn until it is on the wanted side and takes the wanted input."""
    while True:
        unit = _compose(rng, set(used), kind[0], first)
        if held_out(unit.family) == unseen and unit.types[0] == kind[1]:
            used.add(unit.name)
            return unit


def _compose(rng: random.Random, used: set[str], kind: str, first: str | None) -> Unit:
    if kind == "ints":
        return compose_ints.build(rng, used, compose_ints.draw_parts(rng), first)
    if kind == "scan":
        return compose_scans.build(rng, used, compose_scans.draw_parts(rng), first)
    if kind == "text":
        return compose_text.build(rng, used, compose_text.draw_parts(rng), first)
    return compose_steps.build(rng, used, compose_steps.draw_parts(rng), first)


def _draw_class(rng: random.Random, used: set[str], unseen: bool) -> Unit:
    if rng.random() < 0.5:
        family, template = rng.choice([c for c in written().classes if held_out(c[0]) == unseen])
        return make_class(rng, used, template, family)
    parts = compose_classes.draw_parts(rng, unseen)
    unit = make_class(rng, used, compose_classes.template(rng, parts), parts.families[1])
    if unseen:
        unit.first_buggable = next(i for i, line in enumerate(unit.lines) if f"def {unit.places['m2']}(" in line)
    return unit


def counts() -> dict[str, tuple[int, int]]:
    """How many written families there are by kind: (seen, held out)."""
    kinds: dict[str, list[str]] = {
        "functions": [t.family for t in written().functions],
        "wrappers": [t.family for t in written().wrappers],
        "classes": [family for family, _ in written().classes],
        "methods of composed classes": list(METHODS),
    }
    out = {kind: (sum(not held_out(f) for f in fs), sum(held_out(f) for f in fs)) for kind, fs in kinds.items()}
    composed = {
        "composed over numbers": {
            f"ints/{a[0]}/{c[0]}/{v[0]}"
            for a in compose_ints.AGGREGATES
            for c in compose_ints.CONDITIONS
            for v in compose_ints.CHANGES
        },
        "composed walks": {f"scan/{w.key}/{c[0]}" for w in compose_scans.WALKS for c in compose_ints.CONDITIONS},
    }
    for kind, families in composed.items():
        out[kind] = (sum(not held_out(f) for f in families), sum(held_out(f) for f in families))
    return out
