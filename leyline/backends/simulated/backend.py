"""A backend that serves nothing but the accounting: a radix cache, with or without splices, and a script of answers.

It is a `Backend` like any other, so a session drives it with the very code that drives a real server. Hits are counted
as SGLang counts them: the last prompt token is always computed, and the stop token never enters the cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from leyline.backends.contract import BackendError, Capabilities, TokenRenderer, Turn, TurnInput, Usage
from leyline.backends.memory import SessionMemory, remember_turn, with_found
from leyline.backends.simulated.radix import RadixCache
from leyline.backends.simulated.serve import DEFAULT_COSTS, GENERATION_LIMIT, Served, serve, tenant_key
from leyline.directives import Costs, Message, Receipt, Splice
from leyline.directives.common import common_prefix
from leyline.rendering.textrender import TextRenderer


class SimulatedBackend:
    """Answers from a script and counts what a cache would have given.

    answers: one message a turn, in order. splice: honour directives; without it the cache is stock SGLang's.
    generation_limit: how often one token's KV may be moved. chunk: tokens of prefill at a time; it matters to a cache
    that evicts. costs: of the server that is simulated, for AUTO. A backend serves one session; sessions share a
    `cache`.
    """

    def __init__(
        self,
        renderer: TokenRenderer,
        cache: RadixCache,
        answers: Sequence[Message],
        *,
        splice: bool,
        generation_limit: int = GENERATION_LIMIT,
        chunk: int | None = None,
        costs: Costs = DEFAULT_COSTS,
    ) -> None:
        self._renderer = renderer
        self._cache = cache
        self._answers = list(answers)
        self._splice = splice
        self._limit, self._chunk, self._costs = generation_limit, chunk, costs
        self._move_counts = b""
        self._memory = SessionMemory()
        self._next = 0

    @property
    def renderer(self) -> TokenRenderer:
        return self._renderer

    def capabilities(self) -> Capabilities:
        return Capabilities(name="simulated", model="recorded", splice=self._splice, tokens=True)

    def chat(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, object]] | None, session: TurnInput
    ) -> Turn:
        if session.prompt is None:
            raise BackendError("a simulated cache counts tokens: give the session a renderer")
        if self._next >= len(self._answers):
            raise BackendError("the recording has no further answer: start a new backend for a new replay")
        answer = self._answers[self._next]
        self._next += 1
        prompt = session.prompt.ids
        session, found = with_found(self._memory, session, prompt)
        output = answer_ids(self._renderer, messages, answer, tools)
        served = serve(
            self._cache,
            session,
            prompt,
            output,
            self._splice,
            move_counts=self._move_counts,
            limit=self._limit,
            chunk=self._chunk,
            costs=self._costs,
        )
        self._move_counts = served.move_counts
        receipt = _receipt(served, session, self._splice)
        return Turn(
            message=answer,
            usage=Usage(len(prompt), served.prefix + served.spliced, len(output)),
            receipt=remember_turn(self._memory, session, found, (*prompt, *output), receipt),
            output_ids=output,
        )

    def prewarm(self, session: TurnInput) -> None:
        """Cache the known part of the next prompt, honestly; it costs no hit of the turn itself."""
        if session.prompt is not None:
            key = tenant_key(session.prompt.ids, (), session.tenant)
            missing = len(session.prompt.ids) - self._cache.match(key)
            if self._cache.make_room(missing, keep=key) >= missing:
                self._cache.insert(key)

    def close(self) -> None:
        """Nothing to release."""


def answer_ids(
    renderer: TokenRenderer,
    messages: Sequence[Message],
    answer: Message,
    tools: Sequence[Mapping[str, object]] | None = None,
) -> tuple[int, ...]:
    """The tokens a model would have generated to say `answer`, without the stop token.

    They are what stands between the generation prompt and the tokens that close a turn; a renderer that frames each
    message by itself knows them without rendering the conversation.
    """
    if isinstance(renderer, TextRenderer):
        return renderer.answer_ids(answer)
    opened = renderer.render(messages, tools)
    generation = opened.ids[opened.spans[-1][1] if opened.spans else 0 :]
    spans = []
    for said in (answer, {"role": "assistant", "content": ""}):
        rendered = renderer.render([*messages, said], tools)
        start, end = rendered.spans[-1]
        spans.append(rendered.ids[start:end])
    spoken, silent = spans
    begin = common_prefix(spoken, generation)
    closing = max(0, len(silent) - common_prefix(silent, generation))
    return spoken[begin : max(begin, len(spoken) - closing)]


def _receipt(served: Served, request: TurnInput, splice: bool) -> Receipt:
    asked = len(request.script)
    if not splice:
        return Receipt.plain(served.prompt, served.prefix, directives=asked)
    return Receipt(
        prompt_tokens=served.prompt,
        prefix_tokens=served.prefix,
        spliced_tokens=served.spliced,
        prefilled_tokens=served.prompt - served.prefix - served.spliced,
        splices=tuple(Splice(start, end, delta) for start, end, delta in served.runs),
        approximate_from=served.approximate_from,
        lineage=served.lineage,
        fallback=served.fallback,
        detail=served.detail,
        directives=asked,
        acknowledged=served.outcomes,
        choice=served.choice,
        purged_tokens=served.purged,
    )
