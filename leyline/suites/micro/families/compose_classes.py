"""Composed class families: a state (a number, a list or a dict) and three methods drawn from a menu for it.

A family is (state, method); a quarter of the methods is held out. Each method's docstring says what it must do.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from leyline.suites.micro.families.dsl import ClassTemplate

# key, parameters, docstring, body lines, call in a test; {m} is the method's own name
Method = tuple[str, str, str, tuple[str, ...], str]
NUMBER: tuple[Method, ...] = (
    ("add", ", {b}", "Add {b} to the {t}.", ("self.{t} += {b}",), "{i}"),
    ("add-capped", ", {b}", "Add {b} to the {t}, at most to {M}.", ("self.{t} = min(self.{t} + {b}, {M})",), "{i}"),
    ("take", ", {b}", "Take {b} off the {t}, never below 0.", ("self.{t} = max(self.{t} - {b}, 0)",), "{i}"),
    ("scale", "", "Multiply the {t} by {K} and return it.", ("self.{t} *= {K}", "return self.{t}"), ""),
    ("halve", "", "Halve the {t}, rounded down.", ("self.{t} = self.{t} // 2",), ""),
    (
        "set",
        ", {b}",
        "Set the {t} to {b} plus {J}; return the old one.",
        ("{x} = self.{t}", "self.{t} = {b} + {J}", "return {x}"),
        "{i}",
    ),
    ("raise", ", {b}", "Raise the {t} to {b} if {b} is larger.", ("if {b} > self.{t}:", "    self.{t} = {b}"), "{i}"),
    (
        "spend",
        ", {b}",
        "Take {b} off if the {t} is at least {b}; tell whether it was.",
        ("if self.{t} < {b}:", "    return False", "self.{t} -= {b}", "return True"),
        "{i}",
    ),
    ("even", "", "Tell whether the {t} is even.", ("return self.{t} % 2 == 0",), ""),
    ("room", "", "Return how far the {t} is below {M}, or 0.", ("return max({M} - self.{t}, 0)",), ""),
    ("wrap", ", {b}", "Add {b} and keep the remainder by {M}.", ("self.{t} = (self.{t} + {b}) % {M}",), "{i}"),
    (
        "label",
        "",
        "Return 'over' if the {t} is above {M}, else 'fine'.",
        ("if self.{t} > {M}:", "    return 'over'", "return 'fine'"),
        "",
    ),
    (
        "count",
        ", {b}",
        "Add {K} to the {t} if {b} is odd, else 1.",
        ("if {b} % 2 == 1:", "    self.{t} += {K}", "else:", "    self.{t} += 1"),
        "{i}",
    ),
    ("report", "", "Return the {t} and the {t} times {K}.", ("return [self.{t}, self.{t} * {K}]",), ""),
)
LIST: tuple[Method, ...] = (
    ("push", ", {b}", "Put {b} at the end of the {t}.", ("self.{t}.append({b})",), "{i}"),
    (
        "push-small",
        ", {b}",
        "Put {b} at the end of the {t} if it is below {M}.",
        ("if {b} < {M}:", "    self.{t}.append({b})"),
        "{i}",
    ),
    ("front", ", {b}", "Put {b} plus {K} in front of the {t}.", ("self.{t}.insert(0, {b} + {K})",), "{i}"),
    (
        "pop",
        "",
        "Remove and return the last of the {t}, or {J} if there is none.",
        ("if not self.{t}:", "    return {J}", "return self.{t}.pop()"),
        "",
    ),
    (
        "shift",
        "",
        "Remove and return the first of the {t}, or {J} if there is none.",
        ("if not self.{t}:", "    return {J}", "return self.{t}.pop(0)"),
        "",
    ),
    ("total", "", "Return the sum of the {t} plus {J}.", ("return sum(self.{t}) + {J}",), ""),
    (
        "large",
        "",
        "Return how many of the {t} are above {K}.",
        ("return len([{x} for {x} in self.{t} if {x} > {K}])",),
        "",
    ),
    ("trim", "", "Keep only the newest {K} of the {t}.", ("self.{t} = self.{t}[-{K}:]",), ""),
    (
        "purge",
        ", {b}",
        "Remove all of the {t} that are below {b}.",
        ("self.{t} = [{x} for {x} in self.{t} if {x} >= {b}]",),
        "{i}",
    ),
    ("sorted", "", "Return the {t} in falling order.", ("return sorted(self.{t}, reverse=True)",), ""),
    ("best", "", "Return the largest of the {t}, or 0.", ("return max(self.{t}, default=0)",), ""),
    ("has", ", {b}", "Tell whether {b} is among the {t}.", ("return {b} in self.{t}",), "{i}"),
    (
        "unique",
        ", {b}",
        "Put {b} at the end of the {t} unless it is there; return the count.",
        ("if {b} not in self.{t}:", "    self.{t}.append({b})", "return len(self.{t})"),
        "{i}",
    ),
    ("copy", "", "Return a copy of the {t} in reverse order.", ("return self.{t}[::-1]",), ""),
)
DICT: tuple[Method, ...] = (
    ("put", ", {a}, {b}", "Set {a} to {b}.", ("self.{t}[{a}] = {b}",), "'{w}', {i}"),
    (
        "add",
        ", {a}, {b}",
        "Add {b} to {a}, which starts at {J}.",
        ("self.{t}[{a}] = self.{t}.get({a}, {J}) + {b}",),
        "'{w}', {i}",
    ),
    (
        "raise",
        ", {a}, {b}",
        "Set {a} to {b} unless it already has a larger value.",
        ("if {a} not in self.{t} or {b} > self.{t}[{a}]:", "    self.{t}[{a}] = {b}"),
        "'{w}', {i}",
    ),
    (
        "get",
        ", {a}",
        "Return the value of {a} times {K}, or 0 if it is missing.",
        ("return self.{t}.get({a}, 0) * {K}",),
        "'{w}'",
    ),
    (
        "drop",
        ", {a}",
        "Remove {a} and return its value, or {J} if it is missing.",
        ("return self.{t}.pop({a}, {J})",),
        "'{w}'",
    ),
    (
        "once",
        ", {a}, {b}",
        "Set {a} to {b} if it is not there; tell whether it was set.",
        ("if {a} in self.{t}:", "    return False", "self.{t}[{a}] = {b}", "return True"),
        "'{w}', {i}",
    ),
    (
        "total",
        "",
        "Return the sum of all values above {K}.",
        ("return sum([{x} for {x} in self.{t}.values() if {x} > {K}])",),
        "",
    ),
    (
        "names",
        "",
        "Return the sorted names with a value of at least {K}.",
        ("return sorted([{x} for {x} in self.{t} if self.{t}[{x}] >= {K}])",),
        "",
    ),
    (
        "clear",
        ", {b}",
        "Remove every name with a value below {b}.",
        ("self.{t} = {{{x}: {r} for {x}, {r} in self.{t}.items() if {r} >= {b}}}",),
        "{i}",
    ),
    ("count", "", "Return the number of names plus {J}.", ("return len(self.{t}) + {J}",), ""),
    ("bump", "", "Add {K} to every value.", ("for {x} in self.{t}:", "    self.{t}[{x}] += {K}"), ""),
    ("all", "", "Tell whether all values are below {M}.", ("return all({x} < {M} for {x} in self.{t}.values())",), ""),
)
MENUS = {"number": NUMBER, "list": LIST, "dict": DICT}
STARTS = {"number": ("{a}", "Counter"), "list": ("[]", "Collection"), "dict": ("{{}}", "Register")}


@dataclass(frozen=True, slots=True)
class Parts:
    """A state and three methods of its menu."""

    state: str
    methods: tuple[Method, Method, Method]

    @property
    def families(self) -> tuple[str, ...]:
        """One a method, in order."""
        return tuple(f"class/{self.state}/{m[0]}" for m in self.methods)


ADDERS = {"number": ("add", "add-capped", "wrap", "count"), "list": ("push", "push-small", "front", "unique")}
ADDERS["dict"] = ("put", "add", "raise", "once")


def held_out(position: int) -> bool:
    """Whether training never sees the method at this place of its menu."""
    return position % 4 == 0


def draw_parts(rng: random.Random, unseen: bool) -> Parts:
    """A method that fills the state, which may be a seen one, and two others, both held out or both not."""
    state = rng.choice(("number", "list", "dict"))
    menu = MENUS[state]
    first = rng.choice([m for i, m in enumerate(menu) if m[0] in ADDERS[state] and not held_out(i)])
    others = [m for i, m in enumerate(menu) if held_out(i) == unseen and m is not first]
    second, third = rng.sample(others, 2)
    return Parts(state, (first, second, third))


def template(rng: random.Random, parts: Parts) -> ClassTemplate:
    """The class as a template for `make_class`; names and constants are still open."""
    start, word = STARTS[parts.state]
    number = parts.state == "number"
    opening = f"{word} that starts at {{a}}." if number else f"{word} of {{t}}, empty at first."
    lines = [
        "class {f}:",
        f'    """{opening}"""',
        f"    def __init__(self{', {a}' if number else ''}):",
        f"        self.{{t}} = {start}",
    ]
    steps, checks = [], ["{o}.{t}"]
    for place, (_, parameters, doc, body, call) in zip(("{m1}", "{m2}", "{m3}"), parts.methods, strict=True):
        lines += [f"    def {place}(self{parameters}):", f'        """{doc}"""', *(f"        {line}" for line in body)]
        invocation = "{o}." + place + f"({call})"
        steps.append(invocation)
        if any("return" in line for line in body):
            checks.append(invocation)
    return ClassTemplate("{i}" if number else "", tuple(steps), tuple(checks), "\n".join(lines))
