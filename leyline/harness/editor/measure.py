"""What a plan takes off a prompt, and who broke the prefix that the server holds."""

from __future__ import annotations

from collections.abc import Sequence

from leyline.directives import JsonMapping, Message, MessageEdit, Rendered, undeclared_edits
from leyline.harness.session.ledger import Plan
from leyline.harness.session.pins import size
from leyline.policies.reading.history import each
from leyline.policies.reading.reread import reread
from leyline.rendering.renderer import TokenRenderer


def shed_by(
    plan: Plan, history: Sequence[Message], renderer: TokenRenderer | None, tools: Sequence[JsonMapping] | None
) -> int:
    """How much shorter the edited prompt is, in characters of messages, or in tokens where there is a renderer."""
    if renderer is not None:
        return len(renderer.render(history, tools).ids) - len(renderer.render(plan.messages, tools).ids)
    sizes = each(size, history)
    shed = sum(sizes)
    for entry in plan.view:
        whole = entry.index is not None and entry.message is history[entry.index]
        shed -= sizes[entry.index] if whole and entry.index is not None else size(entry.message)
    return shed


def size_by(history: Sequence[Message], shed: int, renderer: TokenRenderer | None, *, audit: bool) -> int:
    """Characters of the messages that are sent; 0 where tokens are counted."""
    return 0 if renderer is not None else sum(each(size, history)) - (0 if audit else shed)


def reread_by(plan: Plan, history: Sequence[Message], pinned: Sequence[MessageEdit], *, audit: bool) -> tuple[str, ...]:
    """Files that the model reads again, of which edits in force before this turn had taken the text away."""
    edited = {edit.message_index for edit in pinned if not edit.insert}
    return () if audit or plan.client else reread(history, edited)


def undeclared_by(plan: Plan, held: Rendered | None, prompt: Rendered | None) -> tuple[int, ...]:
    """Messages of the held prompt that render otherwise now, though no edit says so; see `undeclared_edits`."""
    return () if held is None or prompt is None else undeclared_edits(held, prompt, plan.edits)


def broke_by(plan: Plan, policy: str, *, audit: bool) -> str | None:
    """Who changed the earliest message that the server holds, and how. An audit changes nothing itself."""
    pairs = [pair for pair in zip(plan.edits, plan.causes, strict=True) if not audit or pair[1] == "harness"]
    if not pairs:
        return None
    edit, cause = min(pairs, key=lambda pair: pair[0].message_index)
    what = "dropped" if edit.replacement is None else "inserted" if edit.insert else "changed"
    who = {"policy": f"the policy {policy}", "harness": "the harness", "unedit": "unedit"}[cause]
    return f"message {edit.message_index} {what} by {who}"
