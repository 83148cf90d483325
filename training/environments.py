"""Micro environments in worker processes: the test runner needs a main thread of its own, and there are many cores."""

from __future__ import annotations

import multiprocessing
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from leyline.directives import Message


class WorkerError(RuntimeError):
    """A worker failed; the message is its traceback."""


def _serve(pipe: Connection) -> None:
    from leyline.evals.suites import micro
    from leyline.evals.suites.micro.env import MicroEnv
    from leyline.evals.suites.micro.oracle import Oracle

    environments: dict[str, Any] = {}
    oracles: dict[str, Any] = {}

    def answer(method: str, key: str, arguments: tuple[Any, ...]) -> Any:
        if method == "open":
            task = micro.make_task(*arguments)
            environments[key] = MicroEnv(task)
            oracles[key] = Oracle(task)
            bugs = [{"kind": bug.kind, "family": bug.family} for bug in task.bugs]
            return environments[key].messages, task.budget, task.id, bugs
        environment = environments[key]
        if method == "call":
            return environment.call(*arguments), environment.done
        if method == "solved":
            return environment.solved()
        if method == "relabel":
            action = oracles[key].relabel(arguments[0], environment.files)
            return None if action is None else action.text
        if method == "close":
            del environments[key], oracles[key]
            return None
        raise ValueError(method)

    while True:
        try:
            request = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((True, answer(*request)))
        except Exception:
            pipe.send((False, traceback.format_exc()))


class _Worker:
    def __init__(self, context: Any) -> None:
        self._pipe, other = context.Pipe()
        self._lock = threading.Lock()
        self.process = context.Process(target=_serve, args=(other,), daemon=True)
        self.process.start()
        other.close()

    def ask(self, method: str, key: str, *arguments: Any) -> Any:
        with self._lock:
            self._pipe.send((method, key, arguments))
            fine, value = self._pipe.recv()
        if not fine:
            raise WorkerError(value)
        return value

    def close(self) -> None:
        self._pipe.close()
        self.process.join(5)


@dataclass(frozen=True)
class Observation:
    """A tool's output; done: the agent has submitted."""

    text: str
    done: bool


class Attempt:
    """One attempt at a task: both the task and the toolbox that `leyline.harness.agent.run_agent` takes."""

    def __init__(self, worker: _Worker, key: str, seed: int, level: str, split: str) -> None:
        self._worker, self._key = worker, key
        opened: tuple[list[Message], int, str, list[dict[str, str]]] = worker.ask("open", key, seed, level, split)
        self.messages, self.budget, self.id, self.bugs = opened

    def call(self, name: str, arguments: Mapping[str, Any]) -> Observation:
        text, done = self._worker.ask("call", self._key, name, dict(arguments))
        return Observation(text, done)

    def solved(self) -> bool:
        return bool(self._worker.ask("solved", self._key))

    def relabel(self, messages: list[Message]) -> str | None:
        """What the oracle would do on what the model sees, or None."""
        text: str | None = self._worker.ask("relabel", self._key, messages)
        return text

    def close(self) -> None:
        self._worker.ask("close", self._key)


class Environments:
    """A pool of worker processes; attempts are spread over them."""

    def __init__(self, workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._workers = [_Worker(context) for _ in range(workers)]
        self._opened = 0
        self._lock = threading.Lock()

    def open(self, seed: int, level: str, split: str) -> Attempt:
        with self._lock:
            number = self._opened
            self._opened += 1
        return Attempt(self._workers[number % len(self._workers)], str(number), seed, level, split)

    def close(self) -> None:
        for worker in self._workers:
            worker.close()
