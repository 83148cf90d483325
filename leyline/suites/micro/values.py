"""Inputs for generated tests: arguments near a unit's own constants, and call sequences for classes."""

from __future__ import annotations

import random

from leyline.suites.micro.names import NOUNS
from leyline.suites.micro.units import Unit

Value = int | str | list[int] | list[str] | list[list[int]] | dict[str, int]


def draw(rng: random.Random, kind: str, constants: tuple[int, int, int]) -> Value:
    """A value of the type, often at the edges K, J, M where comparisons change."""
    k, j, m = constants

    def number() -> int:
        return rng.choice([k - 1, k, k + 1, j, m, m + 1]) if rng.random() < 0.35 else rng.randint(-3, 15)

    if kind == "L":
        return [number() for _ in range(rng.choice([0, 1, 2, 3, 4, 4, 5, 6]))]
    if kind == "I":
        return rng.choice([k - 1, k, k + 1, j, m - 1, m, m + 1]) if rng.random() < 0.4 else rng.randint(0, 20)
    if kind == "S":
        x = rng.random()
        if x < 0.06:
            return "".join(rng.choice("(())ab") for _ in range(rng.randint(0, 7)))
        if x < 0.14:
            return "".join(rng.choice("abc ") * rng.choice([1, 1, 2, 3]) for _ in range(rng.randint(1, 4)))
        if x < 0.24:
            return " ".join(rng.choice(NOUNS)[: rng.randint(1, 6)] for _ in range(rng.randint(2, 4)))
        word = rng.choice(NOUNS)
        if rng.random() < 0.3:
            word += " " + rng.choice(NOUNS)
        if rng.random() < 0.2:
            word = word[:3] + word[:3][::-1]
        if rng.random() < 0.25:
            word = word.capitalize()
        return word[: rng.choice([3, 4, 5, 9, 12])]
    if kind == "LS":
        return [rng.choice(NOUNS)[: rng.choice([2, 3, 4, 5, 6, 7])] for _ in range(rng.choice([0, 1, 2, 3, 4, 5]))]
    if kind == "LL":
        return [[number() for _ in range(rng.choice([0, 1, 2, 3]))] for _ in range(rng.choice([0, 1, 2, 3]))]
    if kind == "D":
        return {rng.choice("abcdefgh"): number() for _ in range(rng.choice([1, 2, 3, 4]))}
    raise ValueError(f"no values of type {kind!r}")


def draw_case(rng: random.Random, unit: Unit) -> tuple[list[str], str]:
    """Statements that set a test up, and the expression it asserts on."""
    if unit.template is not None:
        return _class_case(rng, unit)
    constants = unit.constants
    if unit.calls is not None and rng.random() < 0.6:
        helper = unit.calls
        while helper.calls is not None and rng.random() < 0.5:
            helper = helper.calls
        constants = helper.constants
    return [], f"{unit.name}({', '.join(repr(draw(rng, kind, constants)) for kind in unit.types)})"


def _class_case(rng: random.Random, unit: Unit) -> tuple[list[str], str]:
    template = unit.template
    assert template is not None
    k, j, m = unit.constants

    def fill(text: str) -> str:
        number = rng.choice([k, j, m, m + 1, m - 1]) if rng.random() < 0.35 else rng.randint(0, 15)
        return text.format(o="obj", i=number, w=rng.choice(["ab", "cd", "ef"]), **unit.places)

    setup = [f"obj = {unit.name}({fill(template.init)})"]
    setup += [fill(rng.choice(template.steps)) for _ in range(rng.randint(1, 6))]
    return setup, fill(rng.choice(template.checks))
