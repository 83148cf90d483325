"""From command-line words to tasks and backends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from leyline.backends.contract import Backend
from leyline.directives import LeylineError
from leyline.harness.tasks import Task

DEFAULT_MODEL = "tiny-gqa"  # of the two it solves more: see its model card


class UsageError(LeylineError):
    """The command line asks for something that is not there."""


def check_sandbox(no_sandbox: bool, needed: Callable[[], bool] = lambda: True) -> None:
    """Raise UsageError where an agent's commands would not be confined, though `needed`, and nobody asked for that."""
    from leyline.harness.sandbox.consent import allow_unconfined, refusal

    if no_sandbox:
        allow_unconfined()
    elif (line := refusal()) is not None and needed():
        raise UsageError(line)


def micro_tasks(count: int, level: str, split: str, seed: int) -> list[Task]:
    """`count` generated tasks with consecutive seeds."""
    from leyline.suites import micro
    from leyline.suites.micro.episodes import as_task

    if level not in micro.LEVELS:
        raise UsageError(f"unknown level {level!r}; choose one of {', '.join(micro.LEVELS)}")
    if split not in micro.SPLITS:
        raise UsageError(f"unknown split {split!r}; choose one of {', '.join(micro.SPLITS)}")
    return [as_task(micro.make_task(seed + i, level, split)) for i in range(count)]


def path_tasks(
    path: Path, description: str | None, test_command: str | None, protect: Sequence[str] = ()
) -> list[Task]:
    """A debug-gym folder, a folder of them, or a repository with a description (a text, or a file that holds it)."""
    from leyline.suites import repository
    from leyline.suites.debug_gym import gym_suite as debug_gym
    from leyline.suites.suite import SuiteError

    if not path.is_dir():
        raise UsageError(f"{path} is not a folder; give a debug-gym folder, a repository, or --suite micro")
    if description is None and test_command is not None:
        raise UsageError("--test-command is for a repository; say what to do there with --description")
    if description is None and protect:
        raise UsageError("--protect is for a repository; say what to do there with --description")
    if description is None:
        try:
            return list(debug_gym.load(path))
        except SuiteError as error:
            raise UsageError(f"{error}; for a repository, say what to do with --description") from None
    task = repository.RepositoryTask(path, repository.request_of(description), test_command, tuple(protect))
    task.check_test()
    return [task]


def make_backend(
    kind: str, model: str | None, base_url: str | None, api_key: str | None, gate: Path | None = None
) -> Backend:
    """Start the backend that serves `model`; the bundled agent is the local default. gate: what it may splice."""
    from leyline.backends.connect import KINDS, behind_gate, connect

    if kind not in KINDS:
        raise UsageError(f"unknown backend {kind!r}; choose one of {', '.join(KINDS)}")
    if kind == "sglang" and base_url is None:
        raise UsageError("--backend sglang needs --base-url, such as http://localhost:30000; start it: leyline serve")
    if kind == "local":
        model = model or DEFAULT_MODEL
    served = connect(kind, model, base_url, api_key=api_key)
    return served if gate is None else behind_gate(served, gate, kind, model)
