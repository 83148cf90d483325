"""redact: take secrets out of the history, and out of what was computed from them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from leyline.directives import Json, Message, Mode
from leyline.directives.content import THOUGHTS, is_signed
from leyline.policies.base import ChangePolicy
from leyline.policies.errors import PolicyError
from leyline.policies.reading.history import each
from leyline.policies.settings import check_text, compiled

# Not text, but what ties messages together: changing it would break a pair.
_STRUCTURE = frozenset({"role", "id", "tool_call_id", "type", "name"})


@dataclass(frozen=True)
class Redact(ChangePolicy):
    """Replace every match of a regular expression, in every message and in the arguments of calls.

    Thinking that its API has signed is left out where it matches.

    Always FORGET: nothing computed while the text was visible is reused, whatever mode the session runs in.
    Idempotent.

    Parameters
    ----------
    pattern : str
        What to remove, as a Python regular expression. Must not match the empty string.
    replacement : str
        What stands in its place. Must not match `pattern`.

    Examples
    --------
    >>> Redact(r"sk-\\w+").transform([{"role": "user", "content": "my key is sk-123"}], turn=0)
    [{'role': 'user', 'content': 'my key is [redacted]'}]
    """

    reads_only: ClassVar[bool] = True
    pattern: str
    replacement: str = "[redacted]"
    mode: Mode | None = field(default=Mode.FORGET, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_text(self, "replacement")
        if compiled(self, "pattern").search(self.replacement):
            raise PolicyError(f"redact: the replacement {self.replacement!r} matches the pattern; choose another one")
        if self.mode is not Mode.FORGET:
            raise PolicyError("redact: always works in mode 'forget'; leave mode out")

    def changes(self, messages: Sequence[Message], turn: int) -> Mapping[int, Message | None]:
        clean = each(self._is_clean, messages)
        return {i: self._cleaned(message) for i, message in enumerate(messages) if not clean[i]}

    def _is_clean(self, message: Message) -> bool:
        return bool(self._cleaned(message) == message)

    def _cleaned(self, message: Message) -> Message:
        cleaned: Message = self._message(self._without_signed(message))
        return cleaned

    def _without_signed(self, message: Message) -> Message:
        """Without those pieces of signed thinking that match: they cannot be changed, only left out whole."""
        changed = dict(message)
        for key in ("content", *THOUGHTS):
            pieces = message.get(key)
            if isinstance(pieces, list):
                changed[key] = [p for p in pieces if not (is_signed(p) and self._message(p) != p)]
        return changed

    def _message(self, value: Any, key: str = "") -> Any:
        """A message or a part of it, with its structure left alone."""
        if key == "arguments":
            return self._arguments(value)
        if isinstance(value, str):
            return value if key in _STRUCTURE else self._text(value)
        if isinstance(value, dict):
            return {k: self._message(v, k) for k, v in value.items()}
        return [self._message(item) for item in value] if isinstance(value, list) else value

    def _data(self, value: Json) -> Json:
        """Any JSON value: every string, keys included."""
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, dict):
            return {self._text(k): self._data(v) for k, v in value.items()}
        return [self._data(item) for item in value] if isinstance(value, list) else value

    def _arguments(self, value: Json) -> Json:
        """The arguments of a call, mostly JSON in a string: replace inside its values, so that it stays JSON."""
        if not isinstance(value, str):
            return self._data(value)
        try:
            data = json.loads(value)
        except (ValueError, RecursionError):
            return self._text(value)
        clean = self._data(data)
        result = value if clean == data else json.dumps(clean, ensure_ascii=False)
        # A match left over spans keys or punctuation: nothing of such arguments is safe to keep.
        return "{}" if compiled(self, "pattern").search(result) else result

    def _text(self, text: str) -> str:
        pattern = compiled(self, "pattern")
        # Removing one match can join its neighbours into another.
        for _ in range(100):
            if not pattern.search(text):
                return text
            text = pattern.sub(lambda _: self.replacement, text)
        raise PolicyError(f"redact: replacing {self.pattern!r} keeps making new matches; choose another replacement")
