"""drop_stale: stub outputs that a later call made out of date."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from leyline.directives import Message
from leyline.policies.base import ChangePolicy
from leyline.policies.reading.stale import stale_outputs
from leyline.policies.reading.text import stub
from leyline.policies.reading.tools import known_tools
from leyline.policies.settings import check_tools


@dataclass(frozen=True)
class DropStale(ChangePolicy):
    """Replace outputs that are out of date by a line that says so. The call itself stays, so pairs stay whole.

    Out of date is a view of a file that was edited later or seen again at least as wide, and a test run repeated by a
    later one. Shell commands are read by their look: `cat`, `nl`, `head` and `sed -n` of one file are views; `sed -i`,
    redirections, `tee`, `mv`, `rm` and `git checkout` are edits; pytest, unittest, tox and the like are test runs.
    A run in another directory, one that leaves tests out (`--lf`, `--ignore`) and one whose output is redirected or
    goes through `grep` or `head` replace nothing; behind `tail` the result is taken to be there.

    Which lines a view tool shows is read from `start` and `end`, `start_line` and `end_line`, `view_range`, or `offset`
    and `limit`. With any other argument beside the path that is unknown, and only an edit supersedes such a view.
    Idempotent. Outputs shorter than the line stay as they are.

    Parameters
    ----------
    tools : dict
        What further tools are, by name, as in `leyline.policies.TOOLS`: `{'peek': 'view', 'poke': 'edit'}`.

    Examples
    --------
    >>> def step(name, output, **arguments):
    ...     call = {"id": output, "type": "function", "function": {"name": name, "arguments": arguments}}
    ...     return [{"role": "assistant", "tool_calls": [call]},
    ...             {"role": "tool", "tool_call_id": output, "content": output * 100}]
    >>> history = step("view", "a", path="m.py", start=1, end=9) + step("edit", "b", path="m.py", line=3, new_code="x")
    >>> DropStale().transform(history, turn=2)[1]["content"]
    '[view of m.py: superseded by a later edit of that file]'
    """

    reads_only: ClassVar[bool] = True
    tools: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_tools(self, "tools")

    def changes(self, messages: Sequence[Message], turn: int) -> Mapping[int, Message | None]:
        found = stale_outputs(messages, known_tools(self.tools))
        return {s.index: stub(messages[s.index], f"[{s.what}: superseded by {s.why}]") for s in found}
