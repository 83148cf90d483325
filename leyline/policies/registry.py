"""The names of policies: built in, combinators, and those that installed packages add."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from leyline.policies.errors import PolicyError, nearest, one_line

GROUP = "leyline.policies"
BUILTINS = {
    "keep_all": "KeepAll",
    "truncate_older_than": "TruncateOlderThan",
    "drop_stale": "DropStale",
    "drop_failed": "DropFailed",
    "dedupe": "Dedupe",
    "keep_last": "KeepLast",
    "clear_over": "ClearOver",
    "redact": "Redact",
    "append_erratum": "AppendErratum",
}
COMBINATORS = {
    "then": "Then",
    "when": "When",
    "protect": "Protect",
    "with_mode": "WithMode",
    "cost_aware": "CostAware",
    "freeze": "Freeze",
    "at_arrival": "AtArrival",
}


@dataclass(frozen=True, slots=True)
class PolicyInfo:
    """One known name. kind: `built-in`, `combinator` or `plug-in`; origin: where its code lives."""

    name: str
    kind: str
    summary: str
    origin: str


def list_policies() -> list[PolicyInfo]:
    """Every known name: built-ins, combinators, then plug-ins; one that cannot be loaded says so in its summary."""
    found = [
        PolicyInfo(name, kind, _summary(find(name)), find(name).__module__)
        for kind, table in (("built-in", BUILTINS), ("combinator", COMBINATORS))
        for name in table
    ]
    for name, entry in sorted(_plugins().items()):
        try:
            summary = _summary(find(name))
        except PolicyError as error:
            summary = f"cannot be loaded: {error}"
        found.append(PolicyInfo(name, "plug-in", summary, entry.value))
    return found


def known_names() -> list[str]:
    """Every name that `find` takes."""
    return [*BUILTINS, *COMBINATORS, *sorted(_plugins())]


def find(name: str) -> Any:
    """What a name stands for: a class, a rule, a policy or a function. Raises PolicyError with the nearest names.

    A plug-in cannot take the name of a built-in.
    """
    for folder, table in (("builtin", BUILTINS), ("combinators", COMBINATORS)):
        if name in table:
            return getattr(import_module(f"leyline.policies.{folder}.{name}"), table[name])
    entry = _plugins().get(name)
    if entry is None:
        raise PolicyError(
            f"unknown policy {name!r}.{nearest(name, known_names())} `leyline policy list` shows all; "
            "a rule of your own is FILE.py:NAME or PACKAGE.MODULE:NAME"
        )
    try:
        return entry.load()
    except (Exception, SystemExit) as error:
        raise PolicyError(
            f"plug-in policy {name!r} ({entry.value}) cannot be loaded: {one_line(error)}; "
            "reinstall or remove its package"
        ) from error


def _plugins() -> dict[str, EntryPoint]:
    return {e.name: e for e in entry_points(group=GROUP) if e.name not in BUILTINS and e.name not in COMBINATORS}


def _summary(thing: Callable[..., object]) -> str:
    function = getattr(thing, "function", thing)
    text = (getattr(function, "__doc__", None) or "").strip()
    return text.splitlines()[0] if text else ""
