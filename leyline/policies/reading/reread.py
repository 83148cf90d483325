"""Files that the model reads again after an edit took their text away: the sign of a policy that cuts too much."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from leyline.directives import Message
from leyline.policies.reading.calls import calls
from leyline.policies.reading.effects import effect
from leyline.policies.reading.history import History
from leyline.policies.reading.seen import first_unseen


def reread(messages: Sequence[Message], edited: Collection[int]) -> tuple[str, ...]:
    """The files that the last answer looks at, and of which an earlier view was edited, in order, each once.

    edited: indices of the messages that the model did not see as they are. A file that was written to between the two
    looks is not among them: whoever changes a file looks at it again.
    """
    newest = first_unseen(messages) - 1
    if not edited or newest >= len(messages) or messages[newest].get("role") != "assistant":
        return ()
    cut: set[str] = set()
    found: dict[str, None] = {}
    for call in calls(History.of(messages)):
        seen = effect(call)
        cut -= seen.edited
        if seen.view is None:
            continue
        if call.message_index == newest and seen.view.path in cut:
            found[seen.view.path] = None
        if call.result_index in edited:
            cut.add(seen.view.path)
        elif call.message_index != newest:
            cut.discard(seen.view.path)  # it stands there whole
    return tuple(found)
