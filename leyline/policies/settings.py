"""Checks of policy settings. Every failure names the policy, the setting and the fix."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Protocol

from leyline.policies.errors import PolicyError
from leyline.policies.reading.tools import KINDS


class _Named(Protocol):
    @property
    def name(self) -> str: ...


def check_int(policy: _Named, setting: str, *, minimum: int) -> None:
    """`policy.setting` is an int of at least `minimum`."""
    value = getattr(policy, setting)
    if type(value) is not int or value < minimum:
        raise PolicyError(
            f"{policy.name}: {setting} must be a whole number of at least {minimum}, got {value!r}; "
            f"write {policy.name}({setting}={max(minimum, 2)})"
        )


def check_text(policy: _Named, setting: str) -> None:
    """`policy.setting` is a string."""
    value = getattr(policy, setting)
    if not isinstance(value, str):
        raise PolicyError(f"{policy.name}: {setting} must be text, got {value!r}; write {setting}='...'")


def check_choice(policy: _Named, setting: str, choices: Iterable[str]) -> None:
    """`policy.setting` is one of `choices`."""
    value, known = getattr(policy, setting), list(choices)
    if value not in known:
        raise PolicyError(f"{policy.name}: {setting} must be one of {', '.join(map(repr, known))}, got {value!r}")


def check_tools(policy: _Named, setting: str) -> None:
    """`policy.setting` is None, or says of tools by name what they are."""
    value = getattr(policy, setting)
    if value is None:
        return
    if not isinstance(value, Mapping) or not all(isinstance(name, str) and name for name in value):
        raise PolicyError(
            f"{policy.name}: {setting} must say what tools are, got {value!r}; write {setting}={{'x': 'view'}}"
        )
    wrong = next((kind for kind in value.values() if kind not in KINDS), None)
    if wrong is not None:
        raise PolicyError(f"{policy.name}: {setting} holds the kind {wrong!r}; use {', '.join(KINDS)}")


def set_names(policy: _Named, setting: str) -> None:
    """Turn `policy.setting`, a string or a list of strings, into a tuple of strings (on a frozen dataclass)."""
    value = getattr(policy, setting)
    names = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, (list, tuple)) else None
    if names is None or not all(isinstance(name, str) and name for name in names):
        raise PolicyError(f"{policy.name}: {setting} must be a list of names, got {value!r}; write {setting}=['...']")
    object.__setattr__(policy, setting, names)


def compiled(policy: _Named, setting: str) -> re.Pattern[str]:
    """`policy.setting` as a regular expression that does not match the empty string."""
    check_text(policy, setting)
    value = getattr(policy, setting)
    try:
        pattern = re.compile(value)
    except re.error as error:
        raise PolicyError(
            f"{policy.name}: {setting} {value!r} is not a regular expression ({error}); escape it, or fix it"
        ) from None
    if pattern.search("") is not None:
        raise PolicyError(f"{policy.name}: {setting} {value!r} matches nothing at all as well; make it match some text")
    return pattern
