"""A backend for many sessions at once: it waits until every live session has asked, then serves all in one batch.

Planning and receipts are the local backend's own (`leyline.backends.local.reuse`); only the arithmetic is batched.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from leyline.backends.contract import BackendError, Capabilities, ContextOverflowError, Turn, TurnInput, Usage
from leyline.backends.local.prefix_cache import CachedSequence, PrefixCache
from leyline.backends.local.reuse import ReusePlan, Rules, plan_turn
from leyline.directives import Message, Receipt, Splice
from leyline.rendering.render import Renderer
from leyline.rendering.toolcalls import parse_output
from training.engine import Engine, Fault, Job, Move, Run
from training.models import TinyLM

RULES = Rules(page=64, generation_limit=8, reuse_generated=True, secret=b"leyline-local")


@dataclass(frozen=True)
class Work:
    """What a turn asks of the engine. row: of the pool; length: of the prompt; room: tokens to decode."""

    row: int
    runs: tuple[Run, ...]
    tokens: tuple[int, ...]
    positions: tuple[int, ...]
    length: int
    room: int
    fault: Fault = "none"


class Conversation:
    """One session as the local backend's planner sees it: what its row of the pool holds."""

    def __init__(
        self, row: int, renderer: Renderer, context: int, *, splice: bool = True, fault: Fault = "none"
    ) -> None:
        self.row, self.renderer, self.context, self.splice, self.fault = row, renderer, context, splice, fault
        self.cache = PrefixCache(1 << 30)

    def plan(self, turn: TurnInput) -> tuple[ReusePlan, Work]:
        """Raises `ContextOverflowError`."""
        assert turn.prompt is not None
        prompt = turn.prompt.ids
        if len(prompt) >= self.context:
            raise ContextOverflowError(f"the prompt has {len(prompt)} tokens, the context is {self.context}")
        plan = plan_turn(self.cache, prompt, turn if self.splice else _without_script(turn), RULES)
        places = tuple(_computed(plan, len(prompt)))
        runs = tuple(Run(m.source, m.target, m.length) for m in plan.moves)
        room = min(turn.sampling.max_tokens, self.context - len(prompt))
        tokens = tuple(prompt[p] for p in places)
        return plan, Work(self.row, runs, tokens, places, len(prompt), room, self.fault)

    def conclude(self, turn: TurnInput, plan: ReusePlan, work: Work, out: list[int]) -> Turn:
        """Remember what the row holds now, and make the answer."""
        assert turn.prompt is not None
        prompt = turn.prompt.ids
        sequence = _sequence(plan, prompt, turn.tenant)
        sequence.ids.extend(out)
        sequence.move_counts.extend(bytes(len(out)))
        self.cache.clear()
        self.cache.insert(sequence)
        spliced = sum(m.length for m in plan.moves)
        receipt = Receipt(
            prompt_tokens=len(prompt),
            prefix_tokens=plan.prefix,
            spliced_tokens=spliced,
            prefilled_tokens=len(prompt) - plan.prefix - spliced,
            splices=tuple(Splice(m.target, m.target + m.length, m.target - m.source, 0.0) for m in plan.moves),
            approximate_from=plan.approximate_from,
            lineage=plan.lineage,
            fallback=plan.fallback,
            detail=plan.detail,
            directives=len(turn.script) if self.splice else 0,
            acknowledged=plan.outcomes,
        )
        parsed = parse_output(self.renderer.decode(out), seed=f"{len(prompt)}:{hash(prompt)}")
        reason = "length" if len(out) >= work.room else "stop"
        return Turn(
            message=parsed.message(),
            usage=Usage(len(prompt), plan.prefix + spliced, len(out)),
            receipt=receipt,
            output_ids=tuple(out),
            finish_reason="tool_calls" if parsed.tool_calls else reason,
        )


def compute(engine: Engine, batch: Sequence[Work], stop: int) -> tuple[list[list[int]], float]:
    """Move, prefill and decode a batch; the generated tokens of each, and the seconds until decoding began."""
    began = time.time()
    engine.move([Move(w.row, w.runs, w.fault) for w in batch])
    logits = engine.prefill([Job(w.row, w.tokens, w.positions) for w in batch])
    if engine.device.type == "cuda":
        torch.cuda.synchronize(engine.device)
    spent = time.time() - began
    out = engine.decode([w.row for w in batch], [w.length for w in batch], logits, [w.room for w in batch], stop)
    return out, spent


@dataclass
class _Request:
    work: Work
    ready: threading.Event = field(default_factory=threading.Event)
    out: list[int] | None = None
    error: Exception | None = None


class BatchBackend:
    """Serves up to `rows` sessions, each from its own thread, while `serve` runs in the main one.

    splice: False ignores directives, as a server without the plug-in does.
    """

    def __init__(
        self, model: TinyLM, renderer: Renderer, rows: int, *, splice: bool = True, fault: Fault = "none"
    ) -> None:
        self.renderer: Renderer = renderer
        self.engine = Engine(model, rows)
        self.fault = fault
        self.stop_token = int(renderer.eos_token_id or 0)
        self.max_context = model.shape.positions
        self.seconds = {"prefill": 0.0, "decode": 0.0, "waiting": 0.0}
        self._splice = splice
        self._free = list(range(rows))
        self.conversations: dict[str, Conversation] = {}
        self._changed = threading.Condition()
        self._live = 0
        self._waiting: list[_Request] = []
        self._stopped: Exception | None = None

    def capabilities(self) -> Capabilities:
        return Capabilities("batch", self.engine.shape.kind, self._splice, True, self.max_context)

    def join(self) -> None:
        """Count one more session; call before its thread starts."""
        with self._changed:
            self._live += 1

    def leave(self, session_id: str) -> None:
        """A session is over: its row is free again."""
        with self._changed:
            self._live -= 1
            gone = self.conversations.pop(session_id, None)
            if gone is not None:
                self._free.append(gone.row)
            self._changed.notify_all()

    def chat(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None, session: TurnInput) -> Turn:
        conversation = self._conversation(session.session_id)
        plan, work = conversation.plan(session)
        request = _Request(work)
        with self._changed:
            if self._stopped is not None:
                raise BackendError(f"the evaluation was stopped: {self._stopped}")
            self._waiting.append(request)
            self._changed.notify_all()
        request.ready.wait()
        if request.error is not None:
            raise request.error
        return conversation.conclude(session, plan, work, request.out or [])

    def prewarm(self, session: TurnInput) -> None:
        """Nothing: a batch has no idle time."""

    def close(self) -> None:
        """Nothing to release."""

    def serve(self, until: float) -> bool:
        """Serve until every session has left, or the time (epoch seconds) is over; False when it was cut short."""
        while True:
            began = time.time()
            with self._changed:
                self._changed.wait_for(lambda: len(self._waiting) >= self._live, timeout=60)
                batch, self._waiting = self._waiting, []
                live = self._live
            self.seconds["waiting"] += time.time() - began
            if not live:
                return True
            if time.time() >= until:
                self._stop(batch, TimeoutError("out of time"))
                return False
            if batch:
                try:
                    self._serve(batch)
                except Exception as error:
                    self._stop(batch, error)
                    raise

    def _stop(self, batch: Sequence[_Request], error: Exception) -> None:
        with self._changed:
            self._stopped = error
            batch = [*batch, *self._waiting]
            self._waiting = []
        for request in batch:
            request.error = BackendError(f"the evaluation was stopped: {error}")
            request.ready.set()

    def _conversation(self, session_id: str) -> Conversation:
        with self._changed:
            if session_id not in self.conversations:
                row = self._free.pop()
                made = Conversation(row, self.renderer, self.max_context, splice=self._splice)
                self.conversations[session_id] = made
            found = self.conversations[session_id]
        found.fault = self.fault
        return found

    def _serve(self, batch: Sequence[_Request]) -> None:
        began = time.time()
        outputs, prefill = compute(self.engine, [request.work for request in batch], self.stop_token)
        self.seconds["prefill"] += prefill
        self.seconds["decode"] += time.time() - began - prefill
        for request, out in zip(batch, outputs, strict=True):
            request.out = out
            request.ready.set()


def _without_script(turn: TurnInput) -> TurnInput:
    return TurnInput(session_id=turn.session_id, prompt=turn.prompt, tenant=turn.tenant, sampling=turn.sampling)


def _computed(plan: ReusePlan, length: int) -> list[int]:
    """The positions of a prompt that are neither cached nor moved."""
    places, start = [], plan.prefix
    for move in plan.moves:
        places += range(start, move.target)
        start = move.target + move.length
    return [*places, *range(start, length)]


def _sequence(plan: ReusePlan, prompt: Sequence[int], tenant: str | None) -> CachedSequence:
    """What the row holds once the plan is carried out, before decoding; as `local.engine.carry_out` keeps it."""
    move_counts = bytearray(len(prompt))
    if plan.base is not None:
        move_counts[: plan.prefix] = plan.base.move_counts[: plan.prefix]
    if plan.donor is not None:
        for move in plan.moves:
            old = plan.donor.move_counts[move.source : move.source + move.length]
            move_counts[move.target : move.target + move.length] = bytes(min(g + 1, 255) for g in old)
    prefilled = min(plan.base.prefilled, plan.prefix) if plan.base is not None else 0
    exact = min(plan.base.exact, plan.prefix) if plan.base is not None else 0
    first = plan.moves[0].target if plan.moves else len(prompt)
    if prefilled == plan.prefix:
        prefilled = first
    if exact == plan.prefix:
        exact = max(exact, first // RULES.page * RULES.page)
    return CachedSequence(
        kv=None,  # type: ignore[arg-type]
        tenant=tenant,
        ids=list(prompt),
        lineage=plan.lineage,
        approximate_from=plan.approximate_from,
        prefilled=prefilled,
        exact=exact,
        move_counts=move_counts,
    )
