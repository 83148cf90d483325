"""Records of an editor's requests on the disk, a line each, from which `leyline report` makes its page.

A line says all that is known of a request so far; where its usage comes later, a further line of the same `writer` and
`number` takes its place. Lines of several processes may stand in one file.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from leyline.harness.session.inputs import InputError

if TYPE_CHECKING:
    from leyline.harness.editor.account import EditorTurn

FORMAT = "leyline-traffic/1"


class Records:
    """The lines of one editor. Raises InputError for a file that cannot be written.

    policy, mode: of the editor. writer: its name, which no other has.
    """

    def __init__(self, path: str | Path, owner: str, *, policy: str, mode: str, writer: str) -> None:
        self._about = {"format": FORMAT, "writer": writer, "policy": policy, "mode": mode}
        self._path, self._started = Path(path), dict[int, float]()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.open("ab").close()
        except OSError as error:
            raise InputError(f"{owner}: cannot write records to {path}: {error.strerror}; give another file") from None

    def write(self, number: int, turn: EditorTurn) -> None:
        """Append the line of a request, in one write. What cannot be written is left out: the request goes on."""
        started = self._started.setdefault(number, time.time())
        for old in list(self._started)[: -_LATE or None]:
            del self._started[old]
        receipt = turn.receipt
        facts = {
            **self._about,
            "number": number,
            "started": round(started, 3),
            "model": turn.model,
            "conversation": turn.conversation,
            "turn": turn.turn,
            "edits": turn.edits,
            "shed": turn.shed,
            "size": turn.size,
            "unit": turn.unit,
            "audit": turn.audit,
            "broke": turn.broke,
            "reread": list(turn.reread),
            "prompt": turn.prompt_tokens,
            "cached": turn.cached_tokens,
            "spliced": turn.spliced_tokens,
            "completion": turn.completion_tokens,
            "directives": receipt.directives if receipt is not None else 0,
            "fallback": receipt.fallback.value if receipt is not None and receipt.fallback is not None else None,
            "approximate": receipt is not None and receipt.approximate_from is not None,
        }
        # Opened each time: a file that was moved away is begun anew.
        with suppress(OSError), self._path.open("ab", buffering=0) as file:
            file.write(json.dumps(facts).encode() + b"\n")


_LATE = 1000  # requests whose usage may still come
