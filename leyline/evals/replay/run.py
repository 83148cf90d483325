"""A whole replay: every trajectory under every setting, over worker processes."""

from __future__ import annotations

import multiprocessing
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from leyline._lazy import with_old_names
from leyline.backends.contract import Backend, TokenRenderer
from leyline.evals.replay.recorded import RecordedBackend
from leyline.evals.replay.replayed import ReplayRecord
from leyline.evals.replay.traces import Recording, load_trajectories
from leyline.evals.replay.walk import Setting, replay_on, replay_together
from leyline.evals.trials.arms import FILTERED, FROZEN
from leyline.evals.trials.turns import answer_places
from leyline.models.find import load_renderer
from leyline.policies import load_policy
from leyline.policies.registry import BUILTINS
from leyline.rendering.tokenizer import tokenisable

_SETTINGS = {
    "truncate_older_than": "truncate_older_than(n=2, max_chars=200)",
    "keep_last": "keep_last(n=5)",
    "clear_over": "clear_over(trigger=8000, keep=3, at_least=2000)",
    "redact": "redact(pattern='(?i)(api[_-]?key|token|password|secret)=\\\\S+')",
}
BUILTIN_POLICIES = (*(_SETTINGS.get(name, name) for name in BUILTINS), FROZEN, FILTERED)
"""Every built-in policy; `redact` has no defaults, so it looks for credentials."""


@dataclass(frozen=True)
class ReplayPlan:
    """What to replay.

    files: trajectory files, in order. ids: only these trajectories; empty for all. limit: at most this many.
    tokenizer: as of `load_renderer`. concurrency: sessions that share one cache; 1 gives each trajectory its own.
    """

    files: tuple[str, ...]
    settings: tuple[Setting, ...]
    ids: frozenset[str] = field(default_factory=frozenset)
    limit: int | None = None
    tokenizer: str | None = None
    concurrency: int = 1

    def trajectories(self) -> list[Recording]:
        """Raises TraceError."""
        return list(_chosen(self.files, self.ids, self.limit))

    def check(self) -> None:
        """Load what can be wrong before anything runs. Raises LeylineError."""
        for setting in self.settings:
            load_policy(setting.policy)
        load_renderer(self.tokenizer)


@lru_cache(maxsize=1)
def _chosen(files: tuple[str, ...], ids: frozenset[str], limit: int | None) -> tuple[Recording, ...]:
    found = [(t, file) for file in files for t in load_trajectories(file) if not ids or t.id in ids]
    told = _told_apart(found if limit is None else found[:limit])
    # What was recorded was sent: half of an emoji must not end the replay of a folder.
    return tuple(replace(one, messages=tokenisable(one.messages), meta=tokenisable(one.meta)) for one in told)


def _told_apart(found: Sequence[tuple[Recording, str]]) -> list[Recording]:
    """Trajectories of one name, such as those of one task under several arms, with their files' names added."""
    names = Counter(trajectory.id for trajectory, _ in found)
    seen: Counter[str] = Counter()
    told = []
    for trajectory, file in found:
        name = trajectory.id
        if names[name] > 1:
            name = f"{name} ({'/'.join(Path(file).parts[-2:])})"
        seen[name] += 1
        name = name if seen[name] == 1 else f"{name} #{seen[name]}"
        told.append(trajectory if name == trajectory.id else replace(trajectory, id=name))
    return told


@lru_cache(maxsize=1)
def _renderer(tokenizer: str | None) -> TokenRenderer:
    return load_renderer(tokenizer)


def run_plan(plan: ReplayPlan, *, workers: int = 1) -> Iterator[list[ReplayRecord]]:
    """Replay in the simulated cache; yields the records of each finished piece of work, in any order.

    With concurrency 1 a piece is one trajectory under every setting, else one setting with every trajectory. workers: 0
    or 1 runs in this process. Raises LeylineError.
    """
    pieces = _pieces(plan)
    if workers < 2 or len(pieces) < 2:
        for piece in pieces:
            yield _work(plan, piece)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(pieces)), mp_context=context, initializer=_ignore_interrupt)
    try:
        running: set[Future[list[ReplayRecord]]] = {pool.submit(_work, plan, piece) for piece in pieces}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def run_on_backend(
    plan: ReplayPlan, backend: Backend, *, on_turn: Callable[[], None] | None = None
) -> Iterator[list[ReplayRecord]]:
    """Replay through a real backend, one trajectory after the other; yields one record at a time."""
    recorded = RecordedBackend(backend)
    for trajectory in plan.trajectories():
        for setting in plan.settings:
            recorded.begin([trajectory.messages[place] for place in answer_places(trajectory.messages)])
            yield [replay_on(trajectory, setting, recorded, on_turn=on_turn)]


def _pieces(plan: ReplayPlan) -> list[int]:
    return list(range(len(plan.trajectories() if plan.concurrency == 1 else plan.settings)))


def _work(plan: ReplayPlan, piece: int) -> list[ReplayRecord]:
    trajectories = _chosen(plan.files, plan.ids, plan.limit)
    renderer = _renderer(plan.tokenizer)
    name = plan.tokenizer or "bundled"
    if plan.concurrency == 1:
        todo = [(setting, trajectories[piece : piece + 1]) for setting in plan.settings]
    else:
        todo = [(plan.settings[piece], trajectories)]
    return [
        record
        for setting, group in todo
        for record in replay_together(group, setting, renderer, concurrency=plan.concurrency, tokenizer=name)
    ]


def _ignore_interrupt() -> None:
    # Ctrl-C reaches the whole process group; the parent alone says what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


__getattr__ = with_old_names(__name__, Plan="ReplayPlan")
