"""Poison: a value was printed, an edit took it away, and then it is asked for. Does the model still say it?

AMORTIZE keeps the KV of the text behind an edit, which was computed while the removed value was visible. A probe is a
conversation of which one message is edited before its last turn, so that nothing of what the model then reads says the
removed value; only KV can. The conversation is served as it was, answers as recorded, and the last turn is answered by
the model, greedily, in each way of serving. FORGET promises that it never says what was removed.

Format `leyline-poison/1`: one JSON line a probe and way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from leyline.backends.local import LocalBackend
from leyline.directives import Message, Mode
from leyline.evals.fidelity.lab import Answer, Probe, compare
from leyline.evals.fidelity.probe import FidelityError
from leyline.evals.trials.turns import answer_places
from leyline.harness.session.session import Session
from leyline.policies import Policy

FORMAT: Final = "leyline-poison/1"
SEAMS = (0, 8, 32, 128)


@dataclass(frozen=True)
class PoisonProbe:
    """One conversation. messages: as served, up to the last turn's prompt; edited: message `place` in that turn.

    removed: what only message `place` said, right: what stands there after the edit instead, None where nothing does.
    behind: characters between the edited message and the last one.
    """

    id: str
    kind: str
    messages: Sequence[Message]
    place: int
    edited: Message
    removed: str
    right: str | None
    tools: Sequence[Mapping[str, object]] | None = None

    @property
    def behind(self) -> int:
        return sum(len(str(m.get("content") or "")) for m in self.messages[self.place + 1 : -1])

    def check(self) -> None:
        """Raise FidelityError unless the removed value stands in the edited message alone and no edit leaves it."""
        after = [*self.messages[: self.place], self.edited, *self.messages[self.place + 1 :]]
        if says(str(after), self.removed) or not says(str(self.messages[self.place]), self.removed):
            raise FidelityError(f"{self.id}: {self.removed!r} must stand in message {self.place} and nowhere else")


class PoisonRecord(BaseModel):
    """What a model said to one probe, served in one way. `way`: full, honest, forget, or seam K for AMORTIZE."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["leyline-poison/1"] = FORMAT
    model: str
    probe: str
    kind: str
    way: str
    behind: int = Field(description="Characters between the edited message and the question.")
    prompt: int = Field(description="Tokens of the prompt.")
    spliced: int = Field(description="Tokens moved in the last turn.")
    removed: str
    right: str | None
    answer: str
    kl_honest: float = Field(description="KL(honest || this way) of the first token, in nats.")
    agree_honest: bool = Field(description="The first token is that of the honest prefill.")

    @property
    def says_removed(self) -> bool:
        """The answer holds the value that was removed."""
        return says(self.answer, self.removed)

    @property
    def says_right(self) -> bool:
        """The answer holds the value that stands there now, and not the removed one."""
        return self.right is not None and says(self.answer, self.right) and not self.says_removed


def says(text: str, value: str) -> bool:
    """Whether a text holds a value as a word of its own."""
    return re.search(rf"(?<![A-Za-z0-9_]){re.escape(value)}(?![A-Za-z0-9_])", text) is not None


@dataclass(frozen=True)
class _Replaces:
    """Replaces message `place` once the history has `length` messages."""

    place: int
    message: Message
    length: int
    name: str = "poison"

    def transform(self, messages: Sequence[Message], turn: int) -> list[Message]:
        if len(messages) < self.length:
            return list(messages)
        return [*messages[: self.place], dict(self.message), *messages[self.place + 1 :]]


def ask(
    backend: LocalBackend,
    probe: PoisonProbe,
    *,
    seams: Sequence[int] = SEAMS,
    tokens: int = 24,
    model: str | None = None,
) -> Iterator[PoisonRecord]:
    """The records of one probe: full history, honest prefill, FORGET, and AMORTIZE at each seam. Raises BackendError.

    tokens: of the greedy answer.
    """
    probe.check()
    edit = _Replaces(probe.place, probe.edited, len(probe.messages))
    ways: dict[str, tuple[Policy | str, dict[str, object]]] = {
        "full": ("keep_all", {"honest": True}),
        "honest": (edit, {"honest": True}),
        "forget": (edit, {"mode": Mode.FORGET}),
        **{f"seam {seam}": (edit, {"mode": Mode.AMORTIZE, "seam": seam}) for seam in sorted(set(seams))},
    }
    found = {way: _answer(backend, probe, policy, tokens, settings) for way, (policy, settings) in ways.items()}
    renderer = backend.renderer
    assert renderer is not None  # `Probe` has rendered with it
    honest = found["honest"][0]
    for way, (answer, prompt, spliced) in found.items():
        if way.startswith("seam") and not spliced:
            continue  # nothing was moved: the suffix is shorter than the seam
        same = compare(honest, honest, answer)
        yield PoisonRecord(
            model=model or backend.capabilities().model,
            probe=probe.id,
            kind=probe.kind,
            way=way,
            behind=probe.behind,
            prompt=prompt,
            spliced=spliced,
            removed=probe.removed,
            right=probe.right,
            answer=renderer.decode([token for token in answer.ids if token >= 0]),
            kl_honest=same["kl_honest"],
            agree_honest=same["agree_honest"],
        )


def _answer(
    backend: LocalBackend, probe: PoisonProbe, policy: Policy | str, tokens: int, settings: Mapping[str, object]
) -> tuple[Answer, int, int]:
    """The answer to the last turn, the tokens of its prompt and how many of them were moved."""
    places = answer_places(probe.messages)
    recorded = [probe.messages[place] for place in places]
    asked = Probe(backend, [*recorded, {"role": "assistant", "content": ""}], tokens)
    talk = Session(asked, policy, tools=probe.tools, session_id=f"poison/{probe.id}", **settings)  # type: ignore[arg-type]
    backend.close()  # empties the cache
    for place in places:
        talk.turn(probe.messages[:place])
        asked.keep()
    done = talk.turn(probe.messages)
    answer = asked.listen()
    backend.close()
    return replace(answer), done.receipt.prompt_tokens, done.receipt.spliced_tokens
