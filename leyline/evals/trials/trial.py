"""One trial, from spec to record: lay the task out, run the agent, count the tokens."""

from __future__ import annotations

import contextlib
import time
import uuid
from pathlib import Path

from leyline.backends.contract import Backend, BackendError, Sampling
from leyline.directives import LeylineError, Mode
from leyline.directives.digest import config_digest
from leyline.evals.trials.energy import EnergyMeter
from leyline.evals.trials.environment import machine_name, versions
from leyline.evals.trials.record import TrialOutcome, TrialRecord
from leyline.evals.trials.schedule import TrialSpec
from leyline.evals.trials.serving import Backends
from leyline.evals.trials.turns import TurnMeter, full_lengths, with_full
from leyline.harness.work import Setup, work
from leyline.suites import load_suite
from leyline.suites.suite import Suite


class TrialRunner:
    """Runs trials one after another in one process; suites and backends are loaded once. Close it at the end."""

    def __init__(self) -> None:
        self._backends = Backends()
        self._suites: dict[str, Suite] = {}
        self._meter = EnergyMeter()
        self._versions = versions()

    def run(self, spec: TrialSpec) -> TrialRecord:
        """Run one trial. Every failure becomes a record with outcome "error"; only KeyboardInterrupt is raised."""
        meter = TurnMeter()
        artifacts: dict[str, str] = {}
        detail: str | None = None
        final = False
        device: str | None = None
        started, clock, energy = time.time(), time.monotonic(), None
        try:
            suite, backend = self._suite(spec), self._backends.open(spec.arm)
            device = backend.capabilities().device
            # A model that a worker loads for its first trial is no part of that trial.
            started, clock, energy = time.time(), time.monotonic(), self._energy(spec)
            outcome, detail, final = self._run(spec, suite, backend, meter, artifacts)
        except LeylineError as error:
            outcome, detail = TrialOutcome.ERROR, str(error)
            final = isinstance(error, BackendError) and error.final
        except Exception as error:  # a bug of a suite or a backend must not end the eval
            outcome, detail = TrialOutcome.ERROR, f"{type(error).__name__}: {str(error)[:300]}"
        end = self._energy(spec)
        kept = spec.trajectory if spec.trajectory and Path(spec.directory, spec.trajectory).exists() else None
        return spec.record(
            outcome,
            detail=" ".join(detail.split())[:400] if detail else None,
            final=final,
            turns=tuple(meter.turns),
            wall_s=round(time.monotonic() - clock, 4),
            started=round(started, 3),
            energy_j=round(end - energy, 3) if end is not None and energy is not None else None,
            approximate=any(t.receipt.approximate_from is not None for t in meter.seen),
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
        self, spec: TrialSpec, suite: Suite, backend: Backend, meter: TurnMeter, artifacts: dict[str, str]
    ) -> tuple[TrialOutcome, str | None, bool]:
        setup = setup_of(spec)
        with suite.open(spec.task.id, spec.seed) as attempt:
            with contextlib.ExitStack() as stack:
                writer = None
                if spec.trajectory is not None:
                    path = Path(spec.directory) / spec.trajectory
                    about = {"task": spec.task.id, "arm": spec.arm.model_dump(), "seed": spec.seed}
                    writer = stack.enter_context(setup.trajectory(path, backend, **about, model=spec.arm.model))
                result = work(
                    attempt,
                    backend,
                    setup,
                    trajectory=writer,
                    on_event=meter,
                    session_id=config_digest({"key": spec.key, "attempt": spec.attempt}),
                    # A cache namespace of its own: no trial starts on what another one left behind, and one that was
                    # killed or is run again starts cold too, though a server outlives a run.
                    tenant=f"trial-{uuid.uuid4().hex}",
                )
            full = full_lengths(backend.renderer, result.messages, list(attempt.tools) or None)
            meter.turns[:] = with_full(meter.turns, full[: len(meter.turns)])
            artifacts.update(attempt.artifacts())
        outcome = TrialOutcome(result.outcome)
        return outcome, None if outcome is TrialOutcome.UNSCORED else result.reason or None, result.final

    def _suite(self, spec: TrialSpec) -> Suite:
        key = spec.suite.model_dump_json()
        if key not in self._suites:
            self._suites[key] = load_suite(spec.suite)
        return self._suites[key]


def setup_of(spec: TrialSpec) -> Setup:
    """How the agent of a trial works."""
    arm, sampling = spec.arm, spec.sampling
    return Setup(
        policy=arm.policy,
        mode=Mode.FORGET if arm.mode == "plain" else Mode(arm.mode),  # plain: the backend is never told
        seam=arm.seam,
        honest=arm.honest,
        heal=arm.heal,
        sampling=Sampling(
            max_tokens=spec.limits.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=spec.seed if sampling.temperature > 0 else None,
        ),
        turns=spec.limits.turns,
        seconds=spec.limits.seconds,
        prewarm=arm.prewarm or arm.heal,
    )
