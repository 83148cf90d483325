"""What the model has seen: everything up to its last answer."""

from __future__ import annotations

from collections.abc import Sequence

from leyline.directives import Message


def first_unseen(messages: Sequence[Message]) -> int:
    """Index of the first message that the model has not seen: the one behind its last answer.

    A history without an answer holds nothing that a turn has added; there the index is its length.
    """
    for index in range(len(messages) - 1, -1, -1):
        if messages[index].get("role") == "assistant":
            return index + 1
    return len(messages)
