"""Episodes in worker processes: sessions, tools and tests run there, on all cores; only tokens travel to the engine.

The test runner needs the main thread of its process, so a worker's episodes are threads that hand tool calls to it.
"""

from __future__ import annotations

import multiprocessing
import queue
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any

from leyline.backends.contract import BackendError, Capabilities, Sampling, Turn, TurnInput
from leyline.directives import Message
from leyline.harness.agent import AgentResult, Event, Limits, run_agent
from leyline.harness.session.session import Session
from leyline.rendering.render import Renderer
from leyline.suites import micro
from leyline.suites.micro.env import MicroEnv
from training.batch import Conversation, Work, compute
from training.data import Encoder
from training.engine import Engine, Fault
from training.labels import Labels

PATIENCE = 0.1  # seconds without a new request after which a batch goes without its slowest quarter
ENOUGH = 0.75


@dataclass(frozen=True)
class Episode:
    """One task of a cell; `row` is its row of the engine's pool. labelled: its row brings the oracle's labels."""

    row: int
    cell: str
    seed: int
    level: str
    split: str
    policy: str
    mode: str = "amortize"
    splice: bool = True
    fault: Fault = "none"
    labelled: bool = False


@dataclass(frozen=True)
class Setting:
    """What is the same for every episode. folder: of the model, for its tokenizer and template."""

    folder: Path
    context: int
    max_tokens: int


@dataclass(frozen=True)
class Observation:
    text: str
    done: bool


class _Attempt:
    """A micro environment as the agent loop's task and toolbox; every call runs in the worker's main thread."""

    def __init__(self, worker: _Worker, episode: Episode) -> None:
        self._worker = worker
        self.task = worker.main(lambda: micro.make_task(episode.seed, episode.level, episode.split))
        self._env: MicroEnv = MicroEnv(self.task)
        self.messages: Sequence[Message] = self._env.messages
        self.labels = Labels(self.task, worker.encoder) if episode.labelled else None

    def call(self, name: str, arguments: Mapping[str, Any]) -> Observation:
        text = self._worker.main(lambda: self._env.call(name, arguments))
        return Observation(text, self._env.done or (self.labels is not None and self.labels.enough))

    def watch(self, event: Event) -> None:
        """Label a turn before it acts."""
        if self.labels is not None and event.kind == "receipt":
            labels, turn = self.labels, event.data["turn"]
            self._worker.main(lambda: labels.add(list(turn.input_messages), turn.message, self._env.files))

    def solved(self) -> bool:
        return bool(self._worker.main(self._env.solved))


class _PipeBackend:
    """The backend of one session in a worker."""

    def __init__(self, worker: _Worker, conversation: Conversation) -> None:
        self._worker, self._conversation = worker, conversation
        self.renderer = conversation.renderer

    def capabilities(self) -> Capabilities:
        return Capabilities("batch", "tiny", self._conversation.splice, True, self._conversation.context)

    def chat(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None, session: TurnInput) -> Turn:
        plan, work = self._conversation.plan(session)
        return self._conversation.conclude(session, plan, work, self._worker.compute(work))

    def prewarm(self, session: TurnInput) -> None:
        """Nothing: a batch has no idle time."""

    def close(self) -> None:
        """Nothing to release."""


class _Worker:
    def __init__(self, pipe: connection.Connection, episodes: Sequence[Episode], setting: Setting) -> None:
        self._pipe, self._episodes, self._setting = pipe, episodes, setting
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], dict[str, Any], threading.Event] | None]
        self._calls = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._answers: dict[int, tuple[threading.Event, list[list[int]]]] = {}
        self._first: Renderer | None = None
        self.encoder = Encoder()

    def run(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()
        for episode in self._episodes:
            threading.Thread(target=self._play, args=(episode,), daemon=True).start()
        while (call := self._calls.get()) is not None:
            function, box, done = call
            try:
                box["value"] = function()
            except BaseException as error:
                box["error"] = error
            done.set()

    def main(self, function: Callable[[], Any]) -> Any:
        """Run a function in the main thread."""
        box: dict[str, Any] = {}
        done = threading.Event()
        self._calls.put((function, box, done))
        done.wait()
        if "error" in box:
            raise box["error"]
        return box["value"]

    def renderer(self) -> Renderer:
        """One for each session, since it remembers a conversation; the tokenizer is shared."""
        if self._first is None:
            self._first = Renderer.from_dir(self._setting.folder)
        template = (self._setting.folder / "chat_template.jinja").read_text(encoding="utf-8")
        return Renderer(self._first.tokenizer, template, self._first.special_tokens)

    def compute(self, work: Work) -> list[int]:
        answer: tuple[threading.Event, list[list[int]]] = (threading.Event(), [])
        self._answers[work.row] = answer
        self._send(("work", work))
        answer[0].wait()
        return answer[1][0]

    def _send(self, message: Any) -> None:
        with self._lock:
            self._pipe.send(message)

    def _read(self) -> None:
        try:
            while True:
                row, out = self._pipe.recv()
                event, box = self._answers.pop(row)
                box.append(out)
                event.set()
        except (EOFError, OSError):
            self._calls.put(None)

    def _play(self, episode: Episode) -> None:
        try:
            self._send(("row", episode, self._episode(episode)))
        except BackendError as error:
            self._send(("error", episode, str(error)))
        except BaseException:
            self._send(("error", episode, traceback.format_exc()))

    def _episode(self, episode: Episode) -> dict[str, Any]:
        setting = self._setting
        attempt = _Attempt(self, episode)
        conversation = Conversation(
            episode.row,
            self.main(self.renderer),
            setting.context,
            splice=episode.splice,
            fault=episode.fault,
        )
        session = Session(
            _PipeBackend(self, conversation),
            episode.policy,
            mode=episode.mode,
            sampling=Sampling(max_tokens=setting.max_tokens),
            session_id=str(episode.row),
            tools=micro.TOOLS,
        )
        limits = Limits(turns=attempt.task.budget)
        result = run_agent(attempt, attempt, session, limits=limits, on_event=attempt.watch)
        if result.outcome == "error":
            raise BackendError(result.reason)
        row = row_of(attempt.task, session, result)
        return row if attempt.labels is None else {**row, "labels": attempt.labels.summary()}


def row_of(task: micro.MicroTask, session: Session, result: AgentResult) -> dict[str, Any]:
    """What is kept of an episode."""
    totals = result.totals
    return {
        "task": task.id,
        "seed": task.seed,
        "bugs": [bug.kind for bug in task.bugs],
        "solved": result.outcome == "solved",
        "outcome": result.outcome,
        "reason": result.reason.split(":")[0] if result.outcome == "limit" else "",
        "turns": result.turns,
        "prompt_tokens": totals.prompt_tokens,
        "cached_tokens": totals.prefix_tokens,
        "spliced_tokens": totals.spliced_tokens,
        "prefilled_tokens": totals.prefilled_tokens,
        "completion_tokens": totals.completion_tokens,
        "longest_prompt": max((turn.receipt.prompt_tokens for turn in session.turns), default=0),
        "edits": totals.edits,
        "fallbacks": dict(totals.fallbacks),
    }


def _work(pipe: connection.Connection, episodes: Sequence[Episode], setting: Setting) -> None:
    _Worker(pipe, episodes, setting).run()


def run_all(
    engine: Engine,
    stop: int,
    episodes: Sequence[Episode],
    setting: Setting,
    workers: int,
    *,
    until: float = float("inf"),
    on_row: Callable[[Episode, dict[str, Any]], None],
) -> dict[str, float]:
    """Run episodes until all have ended or the time (epoch seconds) is over; seconds by phase.

    An episode that breaks is reported and gives no row.
    """
    context = multiprocessing.get_context("spawn")
    pipes: list[connection.Connection] = []
    processes = []
    for i in range(min(workers, len(episodes))):
        mine, theirs = context.Pipe()
        processes.append(context.Process(target=_work, args=(theirs, episodes[i::workers], setting), daemon=True))
        processes[-1].start()
        theirs.close()
        pipes.append(mine)
    spent = {"prefill": 0.0, "decode": 0.0, "waiting": 0.0}
    live, waiting, last = len(episodes), [], time.time()
    mark = last
    try:
        while live and time.time() < until:
            for pipe in connection.wait(pipes, timeout=0.02):
                kind, *content = pipe.recv()  # type: ignore[union-attr]
                last = time.time()
                if kind == "work":
                    waiting.append((pipe, content[0]))
                    continue
                live -= 1
                if kind == "row":
                    on_row(content[0], content[1])
                else:
                    print(f"{content[0]} broke: {content[1]}", flush=True)
            late = len(waiting) >= ENOUGH * live and time.time() - last > PATIENCE
            if waiting and (len(waiting) >= live or late):
                began = time.time()
                outputs, prefill = compute(engine, [work for _, work in waiting], stop)
                for (pipe, work), out in zip(waiting, outputs, strict=True):
                    pipe.send((work.row, out))  # type: ignore[union-attr]
                waiting = []
                spent["waiting"] += began - mark
                spent["prefill"] += prefill
                mark = last = time.time()
                spent["decode"] += mark - began - prefill
    finally:
        for process in processes:
            process.kill()
    return {key: round(value, 1) for key, value in spent.items()}
