"""append_erratum: correct without editing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from leyline.directives import Message
from leyline.directives.content import content_text
from leyline.policies.base import ChangePolicy
from leyline.policies.reading.stale import stale_outputs
from leyline.policies.reading.tools import known_tools
from leyline.policies.settings import check_text, check_tools


@dataclass(frozen=True)
class AppendErratum(ChangePolicy):
    """Say in the newest output which earlier ones it puts out of date, and leave those alone.

    The note goes to the end of the output that superseded them, while that is still new: no cached token changes, and
    nothing is removed. What counts as out of date is the same as for `drop_stale`. Idempotent.

    Parameters
    ----------
    label : str
        The first word of the note.
    tools : dict
        What further tools are, by name, as in `leyline.policies.TOOLS`.

    Examples
    --------
    >>> def step(name, output, **arguments):
    ...     call = {"id": output, "type": "function", "function": {"name": name, "arguments": arguments}}
    ...     return [{"role": "assistant", "tool_calls": [call]},
    ...             {"role": "tool", "tool_call_id": output, "content": output}]
    >>> history = step("view", "a", path="m.py", start=1, end=9) + step("edit", "b", path="m.py", line=3, new_code="x")
    >>> AppendErratum().transform(history, turn=2)[3]["content"]
    'b\\n[Erratum: out of date now: the earlier view of m.py]'
    """

    reads_only: ClassVar[bool] = True
    appends: ClassVar[bool] = True
    label: str = "Erratum"
    tools: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_text(self, "label")
        check_tools(self, "tools")

    def changes(self, messages: Sequence[Message], turn: int) -> Mapping[int, Message | None]:
        notes: dict[int, list[str]] = {}
        for stale in stale_outputs(messages, known_tools(self.tools)):
            notes.setdefault(stale.by, []).append(stale.what)
        changes: dict[int, Message | None] = {}
        for index, what in notes.items():
            note = f"\n[{self.label}: out of date now: the earlier {', '.join(sorted(set(what)))}]"
            if not content_text(messages[index]).endswith(note):
                changes[index] = _append(messages[index], note)
        return changes


def _append(message: Message, note: str) -> Message:
    content = message.get("content")
    if isinstance(content, list):
        return {**message, "content": [*content, {"type": "text", "text": note}]}
    return {**message, "content": f"{content or ''}{note}"}
