"""Checks of what a caller gives to a session or to the plug-in, so that a mistake is said where it was made."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

from leyline.dialects.plain import as_message
from leyline.directives import LeylineError, Message
from leyline.directives.wire import MAX_SEAM


class InputError(LeylineError, ValueError):
    """A setting or a history that cannot be used. The message is one line: what is wrong, and what to give instead."""


def check_settings(owner: str, *, seam: object, honest: object, purge: object, heal: object = False) -> None:
    """Raise InputError, which names `owner`, unless the settings fit into a request to a Leyline server."""
    if type(seam) is not int or not 0 <= seam <= MAX_SEAM:
        raise InputError(f"{owner}: seam is {seam!r}; give a number of tokens, an int in [0, {MAX_SEAM}]")
    for name, value in {"honest": honest, "purge": purge, "heal": heal}.items():
        if type(value) is not bool:
            raise InputError(f"{owner}: {name} is {value!r}; give True or False")


def check_counts(owner: str, **values: object) -> None:
    """Raise InputError, which names `owner`, unless each setting is a whole number of at least 1."""
    for name, value in values.items():
        if type(value) is not int or value < 1:
            raise InputError(f"{owner}: {name} is {value!r}; give a whole number of at least 1")


def as_tools(owner: str, tools: object) -> list[Mapping[str, object]] | None:
    """Tool definitions as a list of the owner's own, None if there are none. Raises InputError, which names `owner`."""
    if tools is None:
        return None
    if not isinstance(tools, Sequence) or not all(isinstance(tool, Mapping) for tool in tools):
        raise InputError(f"{owner}: tools is {tools!r:.60}; give a list of OpenAI tool definitions, each a dict")
    return copy.deepcopy(list(tools)) or None


def as_history(owner: str, messages: object) -> list[Message]:
    """A history as a new list of dicts. Raises InputError, which names `owner`, unless each has a role."""
    if not isinstance(messages, Sequence) or isinstance(messages, (str, bytes)):
        raise InputError(f"{owner}: messages is a {type(messages).__name__}; give the history as a list of messages")
    history = []
    for index, item in enumerate(messages):
        message = as_message(item)
        if message is None or not isinstance(message.get("role"), str):
            what = f"a {type(item).__name__}" if message is None else "without a role"
            raise InputError(f"{owner}: message {index} is {what}; give a dict with role and content")
        history.append(message)
    return history
