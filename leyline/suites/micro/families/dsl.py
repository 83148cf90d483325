"""The two forms a program family is written in: text templates for functions, `ClassTemplate` for classes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FunctionTemplate:
    """One function family. `family` is its name, `types` the argument types, `result` the result type."""

    family: str
    types: tuple[str, ...]
    result: str
    docs: tuple[str, ...]
    code: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClassTemplate:
    """One class family.

    init: the constructor's arguments; steps: calls that a test strings together; checks: what a test asserts on.
    In all of them {o} is the object, {i} an integer, {w} a short word; {m1} to {m4} are methods, {t} {r} fields.
    """

    init: str
    steps: tuple[str, ...]
    checks: tuple[str, ...]
    code: str


def parse(text: str, prefix: str) -> tuple[FunctionTemplate, ...]:
    """The templates of a text; families are called `prefix-000`, `prefix-001`, ..."""
    heads: list[tuple[str, list[str]]] = []
    for line in text.strip("\n").split("\n"):
        if line.startswith("@ "):
            heads.append((line[2:], []))
        elif heads:
            heads[-1][1].append(line)
    out = []
    for number, (head, code) in enumerate(heads):
        signature, *docs = (part.strip() for part in head.split(" | "))
        types, result = signature.split("->")
        family = f"{prefix}-{number:03d}"
        out.append(FunctionTemplate(family, tuple(types.split()), result.strip(), tuple(docs), tuple(code)))
    return tuple(out)
