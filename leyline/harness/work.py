"""One agent on one task: session, trajectory and loop, put together the same way wherever an agent is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from leyline.backends.contract import Backend, Sampling
from leyline.directives import Mode
from leyline.harness.agent import AgentResult, Assignment, Event, Limits, Toolbox, run_agent
from leyline.harness.session.session import Session
from leyline.harness.trajectory import TrajectoryWriter

DEFAULT_TURNS = 40


class Work(Assignment, Toolbox, Protocol):
    """A task laid out for an agent: what to do, the tools for it, and whether it is done."""

    @property
    def tools(self) -> Sequence[Mapping[str, object]]:
        """Tool definitions in the OpenAI form."""

    @property
    def turns(self) -> int | None:
        """The most model calls it is worth; None where it has no say."""


@dataclass(frozen=True)
class Setup:
    """How an agent works on a task, whatever the task is.

    turns, seconds: where it ends by itself; None takes the task's own limit, and none.
    """

    policy: str = "keep_all"
    mode: Mode = Mode.AMORTIZE
    seam: int = 0
    honest: bool = False
    heal: bool = False
    sampling: Sampling = field(default_factory=Sampling)
    turns: int | None = None
    seconds: float | None = None
    prewarm: bool = False

    def trajectory(self, path: Path, backend: Backend, **header: object) -> TrajectoryWriter:
        """The trajectory of a run with this setup. header: what names the task. Raises TrajectoryError."""
        from leyline import __version__

        found = backend.capabilities()
        about: dict[str, object] = {
            "policy": self.policy,
            "mode": self.mode.value,
            "seam": self.seam,
            "honest": self.honest,
        }
        if self.heal:
            about["heal"] = True
        known = {"model": found.model, "backend": found.name, **about, "versions": {"leyline": __version__}}
        return TrajectoryWriter(path, **{**known, **header})


def work(
    task: Work,
    backend: Backend,
    setup: Setup,
    *,
    trajectory: TrajectoryWriter | None = None,
    on_event: Callable[[Event], None] | None = None,
    session_id: str | None = None,
    tenant: str | None = None,
) -> AgentResult:
    """Let an agent work on a task, in a session of its own. Raises what `Session` and `run_agent` raise."""
    session = Session(
        backend,
        setup.policy,
        mode=setup.mode,
        seam=setup.seam,
        honest=setup.honest,
        heal=setup.heal,
        tools=list(task.tools) or None,
        sampling=setup.sampling,
        session_id=session_id,
        tenant=tenant,
    )
    limits = Limits(setup.turns or task.turns or DEFAULT_TURNS, setup.seconds)
    return run_agent(
        task, task, session, limits=limits, trajectory=trajectory, on_event=on_event, prewarm=setup.prewarm
    )
