"""drop_failed: remove calls that failed once their retry has worked."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from leyline.directives import Message
from leyline.policies.base import ChangePolicy
from leyline.policies.reading.calls import Call, calls, groups
from leyline.policies.reading.effects import effect
from leyline.policies.reading.text import stub
from leyline.policies.reading.tools import kind_of, known_tools
from leyline.policies.settings import check_choice, check_int, check_tools


@dataclass(frozen=True)
class DropFailed(ChangePolicy):
    """Drop a failed call and its output as soon as a retry has worked.

    A retry is a call of the same tool (of a shell the same program, of an editor the same command) among the next
    `within` calls that worked. A failing test run is a result and stays. Where the assistant made several calls at
    once, or with `how='stub'`, the output becomes a short line instead. A view or a search has failed only where its
    whole output is a short error: a file may begin with such a word. Idempotent.

    Parameters
    ----------
    within : int
        The retry is looked for among so many later calls that worked.
    how : str
        `'drop'` removes call and output, `'stub'` shortens the output only.
    tools : dict
        What further tools are, by name, as in `leyline.policies.TOOLS`: `{'sh_exec': 'shell'}`.

    Examples
    --------
    >>> def step(output, **arguments):
    ...     call = {"id": output, "type": "function", "function": {"name": "view", "arguments": arguments}}
    ...     return [{"role": "assistant", "tool_calls": [call]},
    ...             {"role": "tool", "tool_call_id": output, "content": output}]
    >>> history = step("Error: no file n.py", path="n.py") + step("import os", path="m.py")
    >>> [m.get("content") for m in DropFailed().transform(history, turn=2)]
    [None, 'import os']
    """

    reads_only: ClassVar[bool] = True
    within: int = 3
    how: str = "drop"
    tools: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int(self, "within", minimum=1)
        check_choice(self, "how", ["drop", "stub"])
        check_tools(self, "tools")

    def changes(self, messages: Sequence[Message], turn: int) -> Mapping[int, Message | None]:
        tools = known_tools(self.tools)
        made = calls(messages, tools)
        members = {group[0]: group for group in groups(messages)}
        changes: dict[int, Message | None] = {}
        siblings = Counter(call.message_index for call in made)
        worked: deque[Call] = deque(maxlen=self.within)  # the next ones, nearest first
        # From the end: counting only calls that worked keeps the window the same when failed ones are gone.
        for call in reversed(made):
            if call.result_index is None:
                continue
            if not call.failed:
                worked.appendleft(call)
                continue
            if not any(_retries(later, call, tools) for later in worked):
                continue
            if self.how == "drop" and len(members[call.message_index]) == 2 and siblings[call.message_index] == 1:
                changes.update(dict.fromkeys(members[call.message_index]))
            else:
                note = f"[{call.name} failed; a later call worked]"
                changes[call.result_index] = stub(messages[call.result_index], note)
        return changes


def _retries(later: Call, failed: Call, tools: Mapping[str, str]) -> bool:
    """Whether `later`, which worked, is the same thing tried again."""
    before = effect(failed, tools)
    if later.name != failed.name or before.tested:
        return False
    if kind_of(failed.name, failed.arguments, tools) != "shell":
        return bool(later.arguments.get("command") == failed.arguments.get("command"))
    # A reply with several commands is refused unread; any command that ran is its retry.
    return before.program in ("", effect(later, tools).program)
