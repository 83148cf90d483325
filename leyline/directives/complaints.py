"""What is wrong with what a person wrote, in a person's words: pydantic's complaints, and the name that was meant."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

_WORDS = [
    (re.compile(pattern), words)
    for pattern, words in (
        (r"Value error, ", ""),
        (r"Input should be a valid integer(, .*)?", "give a whole number"),
        (r"Input should be a valid number(, .*)?", "give a number"),
        (r"Input should be a finite number", "give a finite number"),
        (r"Input should be a valid boolean(, .*)?", "give true or false"),
        (r"Input should be a valid string", "give a text"),
        (r"Input should be a valid (list|tuple|array)\b.*", "give a list"),
        (r"Input should be (a valid dictionary|an object)\b.*", "give settings, each as `name: value`"),
        (r"Input should be greater than or equal to (\S+)", r"give at least \1"),
        (r"Input should be greater than (\S+)", r"give more than \1"),
        (r"Input should be less than or equal to (\S+)", r"give at most \1"),
        (r"Input should be less than (\S+)", r"give less than \1"),
        (r"Input should be ('.*)", r"give \1"),
        (r"(?:String|List|Tuple) should have at least 1 (?:character|item).*", "must not be empty"),
        (r"Extra inputs are not permitted", "there is no such setting"),
        (r"Field required", "is missing"),
    )
]


def plain_complaint(text: str) -> str:
    """The same complaint without the library's own terms; what is not known stays as it is."""
    for pattern, words in _WORDS:
        text = pattern.sub(words, text)
    return text


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean NAME?`, or nothing where no known name is near."""
    near = get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""
