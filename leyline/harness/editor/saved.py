"""Conversations in JSON, so that a restart re-applies the very same edits."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from leyline.directives import JsonMapping, JsonObject
from leyline.harness.editor.conversations import Conversation
from leyline.harness.session.ledger import Ledger, LedgerError

VERSION = 1


def record(conversation: Conversation) -> JsonObject:
    """A conversation as JSON-able data. What the server holds of it is left out: a restart asks honestly."""
    return {
        "version": VERSION,
        "name": conversation.name,
        "session": conversation.session,
        "model": conversation.model,
        "affinity": conversation.affinity,
        "ledger": conversation.ledger.to_dict(),
    }


def conversation(data: JsonMapping) -> Conversation:
    """Raises LedgerError if `data` is not what `record` gives."""
    try:
        if data["version"] != VERSION:
            raise LedgerError(f"a conversation of version {data['version']}: this release reads version {VERSION}")
        session, model = data["session"], data["model"]
        if not isinstance(data["name"], str) or not all(v is None or isinstance(v, str) for v in (session, model)):
            raise LedgerError("a saved conversation has no name: start it afresh")
        made = Conversation(data["name"], Ledger.from_dict(data["ledger"]), session, model)
        affinity = data.get("affinity")  # records of older releases have none
        return replace(made, affinity=affinity) if isinstance(affinity, str) else made
    except (KeyError, TypeError) as error:
        raise LedgerError(f"not a saved conversation ({error!r}): start it afresh") from None


def parsed(text: str, where: str) -> JsonMapping:
    try:
        data = json.loads(text)
    except (TypeError, ValueError) as error:
        raise LedgerError(f"{where} holds no saved conversation ({error}); give another, or delete it") from None
    if not isinstance(data, dict):
        raise LedgerError(f"{where} holds no saved conversation; give another, or delete it")
    return data


def write(path: Path, records: Sequence[Mapping[str, object]]) -> None:
    """Write conversations to a file, which is replaced whole or not at all."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with beside.open("w", encoding="utf-8") as file:
            json.dump({"leyline": "conversations", "version": VERSION, "conversations": list(records)}, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def read(path: Path) -> list[JsonMapping]:
    """The records of a file that `write` wrote. Raises LedgerError for another file."""
    try:
        data = parsed(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise LedgerError(
            f"{path}: {getattr(error, 'strerror', None) or error}; give a file that Editor.save wrote"
        ) from None
    found = data.get("conversations")
    if data.get("version") != VERSION or not isinstance(found, list):
        raise LedgerError(f"{path} holds no saved conversations; give a file that Editor.save wrote")
    return found
