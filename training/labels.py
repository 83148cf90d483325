"""On-policy labels: what the oracle would do at each turn of a model's episode, as training documents."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from leyline.directives import Message
from leyline.suites.micro.corpus import ASSISTANT_HEAD, render_message
from leyline.suites.micro.oracle import Oracle
from leyline.suites.micro.task import MicroTask
from training.data import LENGTH, Encoder
from training.packing import ANSWER, NONE, Encoded

MOST = 8  # documents of turns on which model and oracle differ; after so many the episode may end
AGREED = 0.1  # share of the turns on which both agree that become documents
CLOSE = "<|im_end|>\n"


class Labels:
    """The labels of one episode; `documents` grows turn by turn."""

    def __init__(self, task: MicroTask, encoder: Encoder) -> None:
        self.documents: list[Encoded] = []
        self.turns = self.differing = self.unknown = 0
        self._oracle = Oracle(task)
        self._encoder = encoder
        self._rng = random.Random(task.id)

    @property
    def enough(self) -> bool:
        """Whether the model has left the oracle's way so often that more of the episode teaches little."""
        return self.differing >= MOST

    def summary(self) -> dict[str, Any]:
        """What travels to the process that packs."""
        counts = {"turns": self.turns, "differing": self.differing, "unlabelled": self.unknown}
        return {**counts, "documents": self.documents}

    def add(self, view: Sequence[Message], said: Message, files: Mapping[str, str]) -> None:
        """Label a turn. view: what the model saw; said: its answer; files: as they were before it acted."""
        self.turns += 1
        action = self._oracle.relabel(view, files)
        if action is None:
            self.unknown += 1
            return
        wanted = f"{ASSISTANT_HEAD}{action.text}{CLOSE}"
        if wanted != render_message(said):
            self.differing += 1
        elif self._rng.random() >= AGREED:
            return
        pieces = [(render_message(message), NONE) for message in view]
        document = self._encoder.document([*pieces, (wanted, ANSWER)], ASSISTANT_HEAD)
        if len(document[0]) <= LENGTH:
            self.documents.append(document)
