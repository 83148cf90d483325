"""The measurement: one trajectory walked several times over one local backend, compared turn by turn.

The splices are those of `backends/local`; nothing here moves KV. One walk has the full history, one the edited history
prefilled honestly, one for each seam the edited history spliced; each starts with an empty cache. The recording says
what the model answered before, so that all walks stand at the same place in every turn.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from leyline.backends.contract import (
    Capabilities,
    ContextOverflowError,
    Sampling,
    TokenRenderer,
    Turn,
    TurnInput,
    Usage,
)
from leyline.backends.local import LocalBackend
from leyline.backends.simulated.backend import answer_ids
from leyline.directives import JsonObject, Message, Mode, Receipt
from leyline.directives.common import common_prefix
from leyline.evals.fidelity.probe import FidelityError, FidelityRecord
from leyline.evals.replay.recorded import with_answer
from leyline.evals.replay.traces import Recording
from leyline.evals.trials.turns import answer_places
from leyline.harness.session.session import Session

SEAMS = (0, 8, 32, 128)
STOP = -1  # stands for the stop token in a continuation


@dataclass(frozen=True)
class Answer:
    """What the model would say next. logits: (vocabulary,) fp32 of the first token; ids: the greedy continuation."""

    logits: Tensor
    ids: tuple[int, ...]


class Probe:
    """A local backend that answers with the recording and tells what the model itself would have said.

    The recorded answer is prefilled behind the prompt, so that the next turn finds it in the cache as if the model had
    generated it. Serves one walk.
    """

    def __init__(self, inner: LocalBackend, answers: Sequence[Message], tokens: int) -> None:
        self._inner = inner
        self._answers = iter(answers)
        self._tokens = tokens
        self._served: tuple[TurnInput, Turn, Tensor] | None = None

    @property
    def renderer(self) -> TokenRenderer | None:
        return self._inner.renderer

    def capabilities(self) -> Capabilities:
        return self._inner.capabilities()

    def chat(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, object]] | None, session: TurnInput
    ) -> Turn:
        """Prefill or splice as asked; generate nothing."""
        if self._inner.renderer is None:
            raise FidelityError("the fidelity lab needs a model with a tokenizer and a chat template")
        answer = next(self._answers)
        logits, receipt = self._inner.first_logits(session)
        output = answer_ids(self._inner.renderer, messages, answer, tools)
        usage = Usage(receipt.prompt_tokens, receipt.prefix_tokens + receipt.spliced_tokens, len(output))
        turn = Turn(answer, usage, receipt, output)
        self._served = (session, turn, logits)
        return turn

    def listen(self) -> Answer:
        """What the model says to the turn just served. Its splice is found in the cache, not made again."""
        session, turn, logits = self._last()
        longest = self._inner.capabilities().max_context
        if longest is not None and turn.receipt.prompt_tokens + self._tokens > longest:
            # A continuation cut by the context would count as one that the model ended.
            raise ContextOverflowError(f"a continuation of {self._tokens} tokens does not fit into the context")
        greedy = replace(session, sampling=Sampling(max_tokens=self._tokens), on_text=None)
        ids = self._inner.chat((), None, greedy).output_ids or ()
        return Answer(logits, ids if len(ids) >= self._tokens else (*ids, STOP))

    def keep(self) -> None:
        """Prefill the recorded answer behind the prompt of the turn just served, under the turn's own lineage."""
        session, turn, _ = self._last()
        assert session.prompt is not None  # `first_logits` was given it
        self._inner.first_logits(with_answer(session, session.prompt, turn.output_ids or (), turn.receipt))

    def _last(self) -> tuple[TurnInput, Turn, Tensor]:
        if self._served is None:
            raise FidelityError("no turn was served yet")
        return self._served

    def prewarm(self, session: TurnInput) -> None:
        """Nothing is sent ahead here."""

    def close(self) -> None:
        """The backend belongs to the caller."""


@dataclass
class Walk:
    """What one walk gave, by turn. edits: made so far; moved: turns so far that moved a run. ended: why it was cut."""

    receipts: list[Receipt] = field(default_factory=list)
    edits: list[int] = field(default_factory=list)
    moved: list[int] = field(default_factory=list)
    answers: dict[int, Answer] = field(default_factory=dict)
    ended: str | None = None


def walk(
    backend: LocalBackend,
    trajectory: Recording,
    policy: str,
    *,
    tokens: int = 16,
    probes: Collection[int] | None = None,
    on_turn: Callable[[], None] | None = None,
    **session: object,
) -> Walk:
    """One pass over the turns of a trajectory, from an empty cache. Raises PolicyError and BackendError.

    probes: the turns at which to listen; None listens wherever some KV of the prompt is approximate. session: settings
    of the `Session`. Ends early where a prompt, or the answer behind it, no longer fits the model's context.
    """
    result = Walk()
    for _ in steps(result, backend, trajectory, policy, tokens=tokens, probes=probes, on_turn=on_turn, **session):
        pass
    return result


def steps(
    result: Walk,
    backend: LocalBackend,
    trajectory: Recording,
    policy: str,
    *,
    tokens: int = 16,
    probes: Collection[int] | None = None,
    on_turn: Callable[[], None] | None = None,
    **session: Any,
) -> Iterator[int]:
    """`walk`, step by step: fills `result` and yields each turn that was listened at."""
    places = answer_places(trajectory.messages)
    last = len(places) if probes is None else max(probes, default=-1) + 1
    probe = Probe(backend, [trajectory.messages[place] for place in places], tokens)
    talk = Session(probe, policy, tools=trajectory.tools, session_id=f"fidelity/{trajectory.id}", **session)
    edits = moved = 0
    backend.close()  # empties the cache
    try:
        for turn, place in enumerate(places[:last]):
            done = talk.turn(trajectory.messages[:place])
            edits, moved = edits + len(done.edits), moved + bool(done.receipt.spliced_tokens)
            result.receipts.append(done.receipt)
            result.edits.append(edits)
            result.moved.append(moved)
            if turn in probes if probes is not None else done.receipt.approximate_from is not None:
                result.answers[turn] = probe.listen()
                yield turn
            probe.keep()
            if on_turn is not None:
                on_turn()
    except ContextOverflowError as error:
        result.ended = str(error)
    backend.close()


def measure(
    backend: LocalBackend,
    trajectory: Recording,
    policy: str,
    *,
    seams: Sequence[int] = SEAMS,
    tokens: int = 16,
    every: int = 1,
    model: str | None = None,
    on_turn: Callable[[], None] | None = None,
) -> Iterator[FidelityRecord]:
    """Records of one trajectory, one a probe and seam, each as soon as it is known. Raises PolicyError, BackendError.

    tokens: greedy tokens compared. A turn is a probe where, at the smallest seam, some KV of its prompt is approximate;
    of these every `every`-th, as far as all walks fit the model's context. on_turn is told of each turn of each of the
    `2 + len(seams)` walks.
    """
    order = sorted(set(seams))
    if not order or order[0] < 0 or tokens < 1 or every < 1:
        raise FidelityError("give at least one seam of 0 or more, and at least one token")
    common: JsonObject = {"tokens": tokens, "on_turn": on_turn}
    first = walk(backend, trajectory, policy, mode=Mode.AMORTIZE, seam=order[0], **common)
    honest = walk(backend, trajectory, policy, honest=True, probes=sorted(first.answers)[::every], **common)
    full = Walk()

    def record(turn: int, seam: int, there: Walk) -> FidelityRecord:
        return FidelityRecord(
            model=model or backend.capabilities().model,
            trajectory=trajectory.id,
            policy=policy,
            turn=turn,
            seam=seam,
            edits=first.edits[turn],
            splices=first.moved[turn],
            full=full.receipts[turn].prompt_tokens,
            **_reuse(there.receipts[turn]),
            **compare(full.answers[turn], honest.answers[turn], there.answers[turn]),
        )

    # The full history is the longest, so it is what outgrows a context; it goes before the further seams.
    for turn in steps(full, backend, trajectory, "keep_all", honest=True, probes=sorted(honest.answers), **common):
        yield record(turn, order[0], first)
    for seam in order[1:]:
        there, probes = Walk(), sorted(full.answers)
        settings = {"mode": Mode.AMORTIZE, "seam": seam, "probes": probes, **common}
        for turn in steps(there, backend, trajectory, policy, **settings):
            yield record(turn, seam, there)


def compare(full: Answer, honest: Answer, spliced: Answer) -> JsonObject:
    """How the spliced answer agrees with both references, as fields of a record."""
    first = [int(a.logits.argmax()) for a in (full, honest, spliced)]
    return {
        "agree_full": first[2] == first[0],
        "agree_honest": first[2] == first[1],
        "references_agree": first[0] == first[1],
        "common_full": common_prefix(full.ids, spliced.ids),
        "common_honest": common_prefix(honest.ids, spliced.ids),
        "common_references": common_prefix(full.ids, honest.ids),
        "tokens_full": len(full.ids),
        "tokens_honest": len(honest.ids),
        "kl_full": kl(full.logits, spliced.logits),
        "kl_honest": kl(honest.logits, spliced.logits),
        "kl_references": kl(full.logits, honest.logits),
        "margin_full": margin(full.logits),
        "margin_honest": margin(honest.logits),
    }


def kl(p: Tensor, q: Tensor) -> float:
    """KL(softmax(p) || softmax(q)) in nats, in fp64. p, q: logits (vocabulary,)."""
    log_p, log_q = torch.log_softmax(p.double(), -1), torch.log_softmax(q.double(), -1)
    return max(0.0, float((log_p.exp() * (log_p - log_q)).sum()))


def margin(logits: Tensor) -> float:
    """Log probability of the likeliest token less that of the second. logits: (vocabulary,)."""
    first, second = logits.double().topk(2).values.tolist()
    return float(first - second)


def _reuse(receipt: Receipt) -> JsonObject:
    start = receipt.approximate_from
    return {
        "prompt": receipt.prompt_tokens,
        "spliced": receipt.spliced_tokens,
        "approximate": 0 if start is None else receipt.prompt_tokens - start,
    }
