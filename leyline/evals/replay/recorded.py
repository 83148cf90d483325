"""A real backend that is made to say what the recording says, so that its cache sees the recorded traffic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from leyline.backends.contract import Backend, BackendError, Capabilities, TokenRenderer, Turn, TurnInput, Usage
from leyline.backends.simulated.backend import answer_ids
from leyline.directives import EditScript, Message, Receipt, Rendered


class RecordedBackend:
    """Asks `inner` for one token a turn, counts what hit, and answers with the recording.

    Where tokens can be sent, the recorded answer is prefilled behind the prompt afterwards, so that it is in the cache
    as it would be had the model generated it. A server that renders by itself never sees the answers before the next
    turn: there they count as uncached, and `warms` is false. Serves one trajectory after the other.
    """

    def __init__(self, inner: Backend) -> None:
        self._inner = inner
        self._answers: list[Message] = []
        self._next = 0

    @property
    def warms(self) -> bool:
        return self._inner.renderer is not None

    @property
    def renderer(self) -> TokenRenderer | None:
        return self._inner.renderer

    def begin(self, answers: Sequence[Message]) -> None:
        """Start a trajectory."""
        self._answers, self._next = list(answers), 0

    def capabilities(self) -> Capabilities:
        return self._inner.capabilities()

    def chat(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, object]] | None, session: TurnInput
    ) -> Turn:
        if self._next >= len(self._answers):
            raise BackendError("the recording has no further answer: begin the trajectory again")
        answer = self._answers[self._next]
        sampling = replace(session.sampling, max_tokens=1, temperature=0.0, stop=())
        turn = self._inner.chat(messages, tools, replace(session, sampling=sampling))
        self._next += 1
        output: tuple[int, ...] | None = None
        if self._inner.renderer is not None and session.prompt is not None:
            output = answer_ids(self._inner.renderer, messages, answer, tools)
            self._inner.prewarm(with_answer(session, session.prompt, output, turn.receipt))
        usage = Usage(turn.usage.prompt_tokens, turn.usage.cached_tokens, len(output or ()))
        return replace(turn, message=answer, output_ids=output, usage=usage, finish_reason="stop")

    def prewarm(self, session: TurnInput) -> None:
        self._inner.prewarm(session)

    def close(self) -> None:
        self._inner.close()


def with_answer(session: TurnInput, prompt: Rendered, output: Sequence[int], receipt: Receipt) -> TurnInput:
    """What puts an answer into the cache behind the prompt that was just served, as if it had been generated.

    No directives: the prompt is in the cache as its turn left it, under the lineage of its receipt.
    """
    return replace(
        session,
        prompt=Rendered((*prompt.ids, *output), prompt.spans),
        source=None,
        script=EditScript(()),
        lineage=receipt.lineage,
        lineage_start=receipt.approximate_from,
        seam=0,
    )
