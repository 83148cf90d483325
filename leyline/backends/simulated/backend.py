"""A backend that serves nothing but the accounting: a radix cache, with or without splices, and a script of answers.

It is a `Backend` like any other, so a session drives it with the very code that drives a real server. Hits are counted
as SGLang counts them: the last prompt token is always computed, and the stop token never enters the cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leyline.backends.contract import BackendError, Capabilities, TokenRenderer, Turn, TurnInput, Usage
from leyline.backends.memory import SessionMemory, remember_turn, with_found
from leyline.backends.simulated.radix import WIDTH, RadixCache, key_of, mark, marked_key
from leyline.directives import (
    Choice,
    Costs,
    EditScript,
    Fallback,
    Message,
    Mode,
    Outcome,
    Receipt,
    Splice,
    choose,
    reusable,
)
from leyline.directives.common import common_prefix
from leyline.rendering.textrender import TextRenderer

DEFAULT_COSTS = Costs()
GENERATION_LIMIT = 32
"""How often the SGLang plugin moves one token's KV before it is prefilled again."""


@dataclass(frozen=True, slots=True)
class Served:
    """What a prompt found in the cache, in tokens; `runs` are the spliced ones as (start, end, delta).

    generations: how often each token's KV of the prompt and its output was moved. worn: tokens that were not moved
    because they had been moved as often as allowed. choice: what AUTO took.
    """

    prompt: int
    prefix: int
    runs: tuple[tuple[int, int, int], ...] = ()
    lineage: str | None = None
    approximate_from: int | None = None
    generations: bytes = b""
    worn: int = 0
    choice: Choice | None = None

    @property
    def spliced(self) -> int:
        return sum(end - start for start, end, _ in self.runs)


def serve(
    cache: RadixCache,
    request: TurnInput,
    prompt: Sequence[int],
    output: Sequence[int],
    splice: bool,
    *,
    generations: bytes = b"",
    limit: int = GENERATION_LIMIT,
    chunk: int | None = None,
    costs: Costs = DEFAULT_COSTS,
) -> Served:
    """Serve one request and cache it with its output (without the stop token). Changes `cache`.

    With `splice` the request's directives are honoured by `EditScript.segments`: runs behind AMORTIZE edits are reused
    as far as the cache holds the source, and from the first such token on the cache entry is private to the lineage.

    generations: of the source's tokens, as the last `Served` gave them. limit: moves allowed for one token. chunk: as
    of `RadixCache.hold`. costs: of the server, for AUTO.
    """
    script = request.script if splice else EditScript(())
    lineage, start = (request.lineage, request.lineage_start) if splice else (None, None)
    forget = min((d.start for d in script if d.mode is Mode.FORGET), default=None)
    if start is not None and forget is not None and forget <= start:
        lineage = start = None
    key = key_of([*prompt, *output])
    last = max(0, len(prompt) - 1)  # the last token is always computed
    prefix = cache.match(mark(key[: last * WIDTH], lineage, start))
    ages = bytearray(generations[:prefix].ljust(prefix, b"\0")) if lineage is not None else bytearray(prefix)
    ages.extend(bytes(len(prompt) + len(output) - prefix))
    runs: list[tuple[int, int, int]] = []
    worn = 0
    if script and request.source is not None:
        held = cache.match(marked_key(request.source, request.lineage, request.lineage_start))
        for segment in script.segments(len(request.source), seam=request.seam):
            if segment.kind == "reuse":
                begin, end = max(segment.target_start, prefix), min(segment.target_end, held + segment.delta, last)
                for run in _young(begin, end, segment.delta, generations, limit):
                    worn -= run[1] - run[0]
                    first, stop = _whole_pages(*run, cache.page_size)
                    if first < stop:
                        runs.append((first, stop, segment.delta))
                worn += max(0, end - begin)
    choice = None
    if script.chooses:
        choice, taken = choose(costs, prefix, len(prompt), reusable(script, runs))
        runs = [run for run, moved in zip(runs, taken, strict=True) if moved]
    for first, stop, delta in runs:
        moved = generations[first - delta : stop - delta].ljust(stop - first, b"\0")
        ages[first:stop] = bytes(min(255, age + 1) for age in moved)
    if runs:
        start = runs[0][0] if start is None else min(start, runs[0][0])
        lineage = lineage or f"sim/{request.session_id}"
    key = mark(key, lineage, start)
    cache.hold(key, len(prompt), chunk=chunk)
    reach = runs[-1][1] if runs else prefix
    if start is None or start >= reach:
        lineage = start = None
    return Served(len(prompt), prefix, tuple(runs), lineage, start, bytes(ages), worn, choice)


def _young(begin: int, end: int, delta: int, generations: bytes, limit: int) -> list[tuple[int, int]]:
    """The parts of target `[begin, end)` whose source tokens, `delta` before, may be moved once more."""
    if end <= begin:
        return []
    ages = generations[begin - delta : end - delta].ljust(end - begin, b"\0")
    if max(ages) < limit:
        return [(begin, end)]
    parts: list[tuple[int, int]] = []
    first: int | None = None
    for at, age in enumerate([*ages, limit], begin):
        if age < limit and first is None:
            first = at
        elif age >= limit and first is not None:
            parts.append((first, at))
            first = None
    return parts


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
        self._generations = b""
        self._memory = SessionMemory()
        self._next = 0

    @property
    def renderer(self) -> TokenRenderer:
        return self._renderer

    def capabilities(self) -> Capabilities:
        return Capabilities(name="simulated", model="recorded", splice=self._splice, tokens=True)

    def chat(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None, session: TurnInput) -> Turn:
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
            generations=self._generations,
            limit=self._limit,
            chunk=self._chunk,
            costs=self._costs,
        )
        self._generations = served.generations
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
            key = key_of(session.prompt.ids)
            missing = len(session.prompt.ids) - self._cache.match(key)
            if self._cache.make_room(missing, keep=key) >= missing:
                self._cache.insert(key)

    def close(self) -> None:
        """Nothing to release."""


def answer_ids(
    renderer: TokenRenderer,
    messages: Sequence[Message],
    answer: Message,
    tools: Sequence[Mapping[str, Any]] | None = None,
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
    dropped = served.choice is not None and "splice" in served.choice.expected and served.choice.taken != "splice"
    acknowledged = []
    for directive in request.script:
        if directive.mode is Mode.FORGET:
            acknowledged.append(Outcome.FORGOTTEN)
        elif served.runs or not dropped:
            acknowledged.append(Outcome.SPLICED if served.runs else Outcome.CACHED)
        else:
            acknowledged.append(Outcome.PREFILLED)
    missing = any(o is Outcome.CACHED for o in acknowledged) and served.prefix + 1 < served.prompt
    reason = Fallback.GENERATION_LIMIT if served.worn else Fallback.DONOR_MISSING if missing else None
    return Receipt(
        prompt_tokens=served.prompt,
        prefix_tokens=served.prefix,
        spliced_tokens=served.spliced,
        prefilled_tokens=served.prompt - served.prefix - served.spliced,
        splices=tuple(Splice(start, end, delta) for start, end, delta in served.runs),
        approximate_from=served.approximate_from,
        lineage=served.lineage,
        fallback=reason,
        directives=asked,
        acknowledged=tuple(acknowledged),
        choice=served.choice,
    )


def _whole_pages(start: int, end: int, page: int) -> tuple[int, int]:
    return -(-start // page) * page, end // page * page
