"""Recordings in the bundled models' own domain: generated debugging tasks, worked by the scripted agent."""

from __future__ import annotations

from collections.abc import Iterator

from leyline.evals.fidelity.probe import FidelityError
from leyline.evals.replay.traces import Recording
from leyline.suites import micro
from leyline.suites.spec import FIRST_SEED


def micro_trajectories(
    count: int, policy: str, *, level: str = "long", split: str = "unseen", first: int = FIRST_SEED
) -> Iterator[Recording]:
    """`count` trajectories of the scripted agent, which sees what `policy` leaves of its history. Raises FidelityError.

    first: seed of the first task; the default is far from the training data.
    """
    from leyline.suites.micro.rollout import attempt

    if level not in micro.LEVELS:
        raise FidelityError(f"unknown level {level!r}; choose from {', '.join(micro.LEVELS)}")
    if split not in micro.SPLITS:
        raise FidelityError(f"unknown split {split!r}; choose from {', '.join(micro.SPLITS)}")
    for seed in range(first, first + count):
        done = attempt(micro.make_task(seed, level, split), policy)
        status = "solved" if done.solved else "failed"
        yield Recording(done.task.id, list(done.messages), status, {"tools": micro.TOOLS})
