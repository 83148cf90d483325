"""One trial, from spec to record: lay the task out, run the agent, count the tokens."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from leyline.backends.contract import Backend, Sampling
from leyline.directives import LeylineError, Message, Mode
from leyline.directives.digest import config_digest
from leyline.evals.trials.energy import EnergyMeter
from leyline.evals.trials.environment import machine_name, versions
from leyline.evals.trials.record import Outcome, TrialRecord, TurnRecord
from leyline.evals.trials.schedule import TrialSpec
from leyline.evals.trials.serving import Backends
from leyline.harness.agent import Event, Limits, run_agent
from leyline.harness.session.session import Session, SessionTurn
from leyline.harness.trajectory import TrajectoryWriter
from leyline.suites import load_suite
from leyline.suites.suite import Attempt, Suite

DEFAULT_TURNS = 40


class TrialRunner:
    """Runs trials one after another in one process; suites and backends are loaded once. Close it at the end."""

    def __init__(self) -> None:
        self._backends = Backends()
        self._suites: dict[str, Suite] = {}
        self._meter = EnergyMeter()
        self._versions = versions()

    def run(self, spec: TrialSpec) -> TrialRecord:
        """Run one trial. Every failure becomes a record with outcome "error"; only KeyboardInterrupt is raised."""
        turns: list[TurnRecord] = []
        seen: list[SessionTurn] = []
        artifacts: dict[str, str] = {}
        detail: str | None = None
        device: str | None = None
        started, clock, energy = time.time(), time.monotonic(), None
        try:
            suite, backend = self._suite(spec), self._backends.open(spec.arm)
            device = backend.capabilities().device
            # A model that a worker loads for its first trial is no part of that trial.
            started, clock, energy = time.time(), time.monotonic(), self._energy(spec)
            outcome, detail = self._run(spec, suite, backend, turns, seen, artifacts)
        except LeylineError as error:
            outcome, detail = Outcome.ERROR, str(error)
        except Exception as error:  # a bug of a suite or a backend must not end the eval
            outcome, detail = Outcome.ERROR, f"{type(error).__name__}: {str(error)[:300]}"
        end = self._energy(spec)
        kept = spec.trajectory if spec.trajectory and Path(spec.directory, spec.trajectory).exists() else None
        return spec.record(
            outcome,
            detail=" ".join(detail.split())[:400] if detail else None,
            turns=tuple(turns),
            wall_s=round(time.monotonic() - clock, 4),
            started=round(started, 3),
            energy_j=round(end - energy, 3) if end is not None and energy is not None else None,
            approximate=any(t.receipt.approximate_from is not None for t in seen),
            trajectory=kept,
            artifacts=artifacts,
            machine=machine_name(device),
            versions=self._versions,
        )

    def close(self) -> None:
        self._backends.close()

    def _energy(self, spec: TrialSpec) -> float | None:
        return self._meter.read() if spec.alone else None

    def _run(
        self,
        spec: TrialSpec,
        suite: Suite,
        backend: Backend,
        turns: list[TurnRecord],
        seen: list[SessionTurn],
        artifacts: dict[str, str],
    ) -> tuple[Outcome, str | None]:
        with suite.open(spec.task.id, spec.seed) as attempt:
            session = make_session(spec, backend, attempt)
            meter = _TurnMeter(turns, seen)
            limits = Limits(spec.limits.turns or attempt.turns or DEFAULT_TURNS, spec.limits.seconds)
            with contextlib.ExitStack() as stack:
                writer = None
                if spec.trajectory is not None:
                    header = {"task": spec.task.id, "arm": spec.arm.model_dump(), "seed": spec.seed}
                    path = Path(spec.directory) / spec.trajectory
                    writer = stack.enter_context(TrajectoryWriter(path, **header, model=spec.arm.model))
                result = run_agent(
                    attempt,
                    attempt,
                    session,
                    limits=limits,
                    trajectory=writer,
                    on_event=meter,
                    prewarm=spec.arm.prewarm,
                )
            turns[:] = with_full(turns, full_lengths(backend, attempt, result.messages, len(turns)))
            artifacts.update(attempt.artifacts())
        outcome = Outcome(result.outcome)
        return outcome, None if outcome is Outcome.UNSCORED else result.reason or None

    def _suite(self, spec: TrialSpec) -> Suite:
        key = spec.suite.model_dump_json()
        if key not in self._suites:
            self._suites[key] = load_suite(spec.suite)
        return self._suites[key]


def make_session(spec: TrialSpec, backend: Backend, attempt: Attempt) -> Session:
    """The session of an arm, in a cache namespace of its own: no trial starts on what another one left behind.

    Not even on its own traces: a server outlives a run, and a trial that was killed or is run again starts cold too.
    """
    arm = spec.arm
    sampling = Sampling(
        max_tokens=spec.limits.max_tokens,
        temperature=spec.sampling.temperature,
        top_p=spec.sampling.top_p,
        seed=spec.seed if spec.sampling.temperature > 0 else None,
    )
    return Session(
        backend,
        arm.policy,
        mode=Mode.FORGET if arm.mode == "plain" else Mode(arm.mode),
        seam=arm.seam,
        honest=arm.honest,
        tools=list(attempt.tools) or None,
        sampling=sampling,
        session_id=config_digest({"key": spec.key, "attempt": spec.attempt}),
        tenant=f"trial-{uuid.uuid4().hex}",
    )


def full_lengths(backend: Backend, attempt: Attempt, history: Sequence[Message], calls: int) -> list[int]:
    """Prompt tokens of each model call had nothing been edited, from one rendering of the whole history.

    Empty where the server renders. Answers are tokenised from their text here.
    """
    renderer = backend.renderer
    if renderer is None or not history:
        return []
    tools = list(attempt.tools) or None
    opening = renderer.render(history[:1], tools)
    prompt = len(opening.ids) - opening.spans[-1][1]
    spans = renderer.render(history, tools).spans
    starts = [spans[i][0] for i, message in enumerate(history) if message.get("role") == "assistant"]
    return [start + prompt for start in starts[:calls]]


def with_full(turns: Sequence[TurnRecord], full: Sequence[int]) -> list[TurnRecord]:
    """Turn records with `full` filled in; exactly the prompt's own length until the first edit."""
    filled, edits = [], 0
    for turn, length in zip(turns, full, strict=False):
        edits += turn.edits
        filled.append(turn.model_copy(update={"full": max(length, turn.prompt) if edits else turn.prompt}))
    return filled + list(turns[len(filled) :])


class _TurnMeter:
    """Turns events into turn records."""

    def __init__(self, turns: list[TurnRecord], seen: list[SessionTurn]) -> None:
        self._turns, self._seen = turns, seen

    def __call__(self, event: Event) -> None:
        if event.kind == "receipt":
            turn: SessionTurn = event.data["turn"]
            self._seen.append(turn)
            self._turns.append(turn_record(turn))
        elif event.kind == "tool_result" and self._turns:
            last = self._turns[-1]
            spent = (last.tool_s or 0.0) + float(event.data.get("seconds", 0.0))
            self._turns[-1] = last.model_copy(update={"tool_s": round(spent, 5)})


def turn_record(turn: SessionTurn, full: int | None = None) -> TurnRecord:
    """The record of one session turn. `full` is the unedited prompt's length in tokens, where known."""
    receipt, timings = turn.receipt, turn.timings
    return TurnRecord(
        prompt=receipt.prompt_tokens,
        prefix=receipt.prefix_tokens,
        spliced=receipt.spliced_tokens,
        prefilled=receipt.prefilled_tokens,
        completion=turn.usage.completion_tokens,
        full=full,
        edits=len(turn.edits),
        directives=receipt.directives,
        fallback=receipt.fallback.value if receipt.fallback else None,
        ttft=_seconds(timings.get("ttft")),
        prefill_s=_seconds(timings.get("prefill")),
        decode_s=_seconds(timings.get("decode")),
        splice_s=_seconds(timings.get("splice")),
    )


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
