"""A harness's own message objects through an `Editor`: told as blocks of the messages dialect, and back as objects.

An adapter says how its parts read as blocks, and how a part is made of an edited block (`Form`). Each block carries its
place, so that an edited one finds the part that it was; what is not edited is the very object that the harness has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Generic, Literal, Protocol, TypeVar

from leyline.directives import JsonObject
from leyline.harness.editor import EditPlan

Role = Literal["system", "user", "assistant"]
Native = Any
"""An object of the harness's own: a part of one of its messages."""

M = TypeVar("M")
P = TypeVar("P")

PLACE = "leyline_part"
"""The field of a block that says which part of its message it is."""


@dataclass(frozen=True)
class Run(Generic[P]):
    """Parts of one message that one speaker says. owner: the message's place in its list; blocks: one for each part."""

    owner: int
    role: Role
    parts: list[P]
    blocks: list[JsonObject]


class Form(Protocol[M, P]):
    """How a harness's messages read, and how they are made."""

    def read(self, message: M) -> list[tuple[Role, P, JsonObject]]:
        """Its parts, each with its speaker and as a block. Raises DialectError for what cannot be read."""

    def rewrite(self, part: P, block: JsonObject) -> P:
        """A part as an edited block says it."""

    def added(self, role: Role, text: str) -> P:
        """A part that a policy put in."""

    def rebuilt(self, message: M, parts: list[P]) -> M:
        """A message with other parts."""

    def fresh(self, role: Role, parts: list[P]) -> M:
        """A message that a policy put in."""


class Told(Generic[M, P]):
    """A harness's messages as an `Editor` takes them: `plan(told.history, dialect="messages")`."""

    def __init__(self, form: Form[M, P], messages: Sequence[M]) -> None:
        self._form, self._messages = form, messages
        self._runs: list[Run[P]] = []
        for owner, message in enumerate(messages):
            for role, part, block in form.read(message):
                if not self._runs or self._runs[-1].owner != owner or self._runs[-1].role != role:
                    self._runs.append(Run(owner, role, [], []))
                self._runs[-1].parts.append(part)
                self._runs[-1].blocks.append({**block, PLACE: len(self._runs[-1].blocks)})
        self.history: list[JsonObject] = [{"role": run.role, "content": run.blocks} for run in self._runs]

    def edited(self, plan: EditPlan) -> list[M]:
        """The messages as a plan has them; those without an edit are the very objects that were given."""
        if plan.messages is self.history:
            return list(self._messages)
        owners: list[int | None] = []
        groups: list[tuple[Role, list[P]]] = []
        for message, origin in zip(plan.messages, plan.view, strict=True):
            run = self._runs[origin.index] if origin.index is not None else None
            owner, role = (run.owner, run.role) if run is not None else (None, message["role"])
            kept = run is not None and not origin.edited
            parts = run.parts if run is not None and kept else _parts(self._form, role, message["content"], run)
            if owner is not None and owners and owners[-1] == owner:
                groups[-1][1].extend(parts)
            else:
                owners.append(owner)
                groups.append((role, list(parts)))
        made: list[M] = []
        for owner, (role, parts) in zip(owners, groups, strict=True):
            if owner is None:
                made.append(self._form.fresh(role, parts))
            elif self._is_whole(owner, parts):
                made.append(self._messages[owner])
            elif parts:
                made.append(self._form.rebuilt(self._messages[owner], parts))
        return made

    def _is_whole(self, owner: int, parts: Sequence[P]) -> bool:
        whole = [part for run in self._runs if run.owner == owner for part in run.parts]
        return len(whole) == len(parts) and all(a is b for a, b in zip(whole, parts, strict=True))


def _parts(form: Form[M, P], role: Role, content: str | list[JsonObject], run: Run[P] | None) -> list[P]:
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    known = {block[PLACE]: k for k, block in enumerate(run.blocks)} if run is not None else {}
    texts = [k for k, block in enumerate(run.blocks) if block["type"] == "text"] if run is not None else []
    made: list[P] = []
    for block in blocks:
        k = known.get(block.get(PLACE), texts[0] if isinstance(content, str) and texts else None)
        if k is None or run is None:
            made.append(form.added(role, str(block.get("text") or "")))
        elif block is run.blocks[k]:
            made.append(run.parts[k])
        else:
            made.append(form.rewrite(run.parts[k], block))
    return made


def opaque(part: object, text: str | bytes | None = None) -> JsonObject:
    """A part without text that a policy could edit, as a block: it stays or goes, and is told from others."""
    said = repr(part) if text is None else text
    data = said if isinstance(said, bytes) else said.encode(errors="backslashreplace")
    return {"type": "image", "source": {"type": "digest", "data": blake2b(data, digest_size=16).hexdigest()}}


def text_of(content: object) -> str:
    """The text of an edited block's content: of a tool result, text or blocks."""
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    return "\n".join(str(block["text"]) for block in blocks if isinstance(block.get("text"), str))
