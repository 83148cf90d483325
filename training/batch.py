"""A backend for many sessions at once: it waits until every live session has asked, then serves all in one batch.

Planning and receipts are the local backend's own (`leyline.backends.local.plan`); only the arithmetic is batched.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from leyline.backends.base import BackendError, Capabilities, ContextOverflowError, Turn, TurnInput, Usage
from leyline.backends.local.plan import Plan, Rules, plan_turn
from leyline.backends.local.prefix_cache import CachedSequence, PrefixCache
from leyline.backends.render import Renderer
from leyline.backends.toolcalls import parse_output
from leyline.directives import EditScript, Message, Receipt, Splice
from training.engine import Engine, Fault, Job, Run
from training.models import TinyLM

RULES = Rules(page=64, generation_limit=8, reuse_generated=True, secret=b"leyline-local")


@dataclass
class _Row:
    """A row of the pool: what it holds, in the terms of the local backend's planner."""

    number: int
    cache: PrefixCache = field(default_factory=lambda: PrefixCache(1 << 30))


@dataclass
class _Request:
    turn: TurnInput
    prompt: tuple[int, ...]
    room: int
    ready: threading.Event = field(default_factory=threading.Event)
    answer: Turn | None = None
    error: Exception | None = None


class BatchBackend:
    """Serves up to `rows` sessions, each from its own thread, while `serve` runs in the main one.

    splice: False ignores directives, as a server without the plug-in does.
    """

    def __init__(
        self, model: TinyLM, renderer: Renderer, rows: int, *, splice: bool = True, fault: Fault = "none"
    ) -> None:
        self.renderer: Renderer = renderer
        self.engine = Engine(model, rows, fault=fault)
        self.stop_token = int(renderer.eos_token_id or 0)
        self.max_context = model.shape.positions
        self.seconds = {"prefill": 0.0, "decode": 0.0, "waiting": 0.0}
        self._splice = splice
        self._free = list(range(rows))
        self._rows: dict[str, _Row] = {}
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
            row = self._rows.pop(session_id, None)
            if row is not None:
                self._free.append(row.number)
            self._changed.notify_all()

    def chat(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None, session: TurnInput) -> Turn:
        assert session.prompt is not None
        prompt = session.prompt.ids
        if len(prompt) >= self.max_context:
            raise ContextOverflowError(f"the prompt has {len(prompt)} tokens, the context is {self.max_context}")
        request = _Request(session, prompt, min(session.sampling.max_tokens, self.max_context - len(prompt)))
        with self._changed:
            if self._stopped is not None:
                raise BackendError(f"the evaluation was stopped: {self._stopped}")
            self._waiting.append(request)
            self._changed.notify_all()
        request.ready.wait()
        if request.error is not None:
            raise request.error
        assert request.answer is not None
        return request.answer

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

    def _row(self, session_id: str) -> _Row:
        with self._changed:
            if session_id not in self._rows:
                self._rows[session_id] = _Row(self._free.pop())
            return self._rows[session_id]

    def _serve(self, batch: Sequence[_Request]) -> None:
        began = time.time()
        rows = [self._row(request.turn.session_id) for request in batch]
        plans, sequences, jobs = [], [], []
        for request, row in zip(batch, rows, strict=True):
            turn = request.turn if self._splice else _without_script(request.turn)
            plan = plan_turn(row.cache, request.prompt, turn, RULES)
            self.engine.move(row.number, [Run(m.source, m.target, m.length) for m in plan.moves])
            places = _computed(plan, len(request.prompt))
            plans.append(plan)
            sequences.append(_sequence(plan, request))
            jobs.append(Job(row.number, [request.prompt[p] for p in places], places))
        logits = self.engine.prefill(jobs)
        self._synchronise()
        middle = time.time()
        numbers, lengths = [row.number for row in rows], [len(request.prompt) for request in batch]
        outputs = self.engine.decode(numbers, lengths, logits, [r.room for r in batch], self.stop_token)
        self._synchronise()
        self.seconds["prefill"] += middle - began
        self.seconds["decode"] += time.time() - middle
        for request, row, plan, sequence, out in zip(batch, rows, plans, sequences, outputs, strict=True):
            sequence.ids.extend(out)
            sequence.generations.extend(bytes(len(out)))
            row.cache.clear()
            row.cache.insert(sequence)
            request.answer = self._answer(request, plan, out)
            request.ready.set()

    def _synchronise(self) -> None:
        if self.engine.device.type == "cuda":
            torch.cuda.synchronize(self.engine.device)

    def _answer(self, request: _Request, plan: Plan, out: list[int]) -> Turn:
        prompt, spliced = request.prompt, sum(m.length for m in plan.moves)
        receipt = Receipt(
            prompt_tokens=len(prompt),
            prefix_tokens=plan.prefix,
            spliced_tokens=spliced,
            prefilled_tokens=len(prompt) - plan.prefix - spliced,
            splices=tuple(Splice(m.target, m.target + m.length, m.target - m.source, 0.0) for m in plan.moves),
            approximate_from=plan.honest,
            lineage=plan.lineage,
            fallback=plan.fallback,
            detail=plan.detail,
            directives=len(request.turn.script) if self._splice else 0,
            acknowledged=plan.outcomes,
        )
        parsed = parse_output(self.renderer.decode(out), seed=f"{len(prompt)}:{hash(prompt)}")
        reason = "length" if len(out) >= request.room else "stop"
        return Turn(
            message=parsed.message(),
            usage=Usage(len(prompt), plan.prefix + spliced, len(out)),
            receipt=receipt,
            output_ids=tuple(out),
            finish_reason="tool_calls" if parsed.tool_calls else reason,
        )


def _without_script(turn: TurnInput) -> TurnInput:
    return TurnInput(session_id=turn.session_id, prompt=turn.prompt, tenant=turn.tenant, sampling=turn.sampling)


def _computed(plan: Plan, length: int) -> list[int]:
    """The positions of a prompt that are neither cached nor moved."""
    places, start = [], plan.prefix
    for move in plan.moves:
        places += range(start, move.target)
        start = move.target + move.length
    return [*places, *range(start, length)]


def _sequence(plan: Plan, request: _Request) -> CachedSequence:
    """What the row holds once the plan is carried out, before decoding; as `local.engine.carry_out` keeps it."""
    generations = bytearray(len(request.prompt))
    if plan.base is not None:
        generations[: plan.prefix] = plan.base.generations[: plan.prefix]
    if plan.donor is not None:
        for move in plan.moves:
            old = plan.donor.generations[move.source : move.source + move.length]
            generations[move.target : move.target + move.length] = bytes(min(g + 1, 255) for g in old)
    prefilled = min(plan.base.prefilled, plan.prefix) if plan.base is not None else 0
    exact = min(plan.base.exact, plan.prefix) if plan.base is not None else 0
    first = plan.moves[0].target if plan.moves else len(request.prompt)
    if prefilled == plan.prefix:
        prefilled = first
    if exact == plan.prefix:
        exact = max(exact, first // RULES.page * RULES.page)
    return CachedSequence(
        kv=None,  # type: ignore[arg-type]
        tenant=request.turn.tenant,
        ids=list(request.prompt),
        lineage=plan.lineage,
        honest=plan.honest,
        prefilled=prefilled,
        exact=exact,
        generations=generations,
    )


__all__ = ["BatchBackend", "EditScript"]
