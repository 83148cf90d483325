"""The policies inside a combinator."""

from __future__ import annotations

from leyline.policies.base import Policy
from leyline.policies.errors import PolicyError


def as_policy(value: object, combinator: str) -> Policy:
    """A policy from itself or its spec. Raises PolicyError naming the combinator."""
    if isinstance(value, str):
        # The loader knows the combinators by name; importing it on first use keeps the two modules free of a cycle.
        from leyline.policies.loading import load_policy

        return load_policy(value)
    if isinstance(value, Policy) and not isinstance(value, type):
        return value
    raise PolicyError(f"{combinator}: {value!r} is not a policy; give one such as drop_stale() or its name")
