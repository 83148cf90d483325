"""Trajectories through sessions: each turn resends the recorded history, and the receipt says what hit."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from leyline.backends.contract import Backend, BackendError, TokenRenderer
from leyline.backends.plain import PlainBackend
from leyline.backends.simulated.backend import SimulatedBackend
from leyline.backends.simulated.radix import RadixCache
from leyline.backends.simulated.serve import GENERATION_LIMIT
from leyline.directives import LeylineError, Mode
from leyline.evals.replay.replayed import Cache, ReplayError, ReplayRecord
from leyline.evals.replay.traces import Recording
from leyline.evals.trials.record import TurnRecord
from leyline.evals.trials.turns import answer_places, full_lengths, turn_record
from leyline.harness.session.session import Session
from leyline.policies import load_policy
from leyline.rendering.errors import RenderingError


@dataclass(frozen=True, slots=True)
class Setting:
    """One cell of a replay: a policy and a cache.

    page_size: prefixes hit in whole pages. capacity: KV slots of the cache in tokens; None never evicts. seam: tokens
    recomputed at the start of every reused run. generation_limit: moves allowed for one token. chunk: tokens of prefill
    at a time, which decides what a full cache evicts.
    """

    policy: str
    cache: Cache = "radix"
    page_size: int = 1
    capacity: int | None = None
    seam: int = 0
    generation_limit: int = GENERATION_LIMIT
    chunk: int | None = None

    @property
    def mode(self) -> Mode:
        return Mode.AMORTIZE if self.cache == "splice" else Mode.FORGET


OnTurn = Callable[[], None]
MakeBackend = Callable[[Recording], Backend]


def replay(
    trajectory: Recording, setting: Setting, renderer: TokenRenderer, *, on_turn: OnTurn | None = None
) -> ReplayRecord:
    """One trajectory through a simulated cache that is empty at its start. Raises PolicyError."""
    return replay_together([trajectory], setting, renderer, on_turn=on_turn)[0]


def replay_together(
    trajectories: Sequence[Recording],
    setting: Setting,
    renderer: TokenRenderer,
    *,
    concurrency: int = 1,
    tokenizer: str = "",
    on_turn: OnTurn | None = None,
) -> list[ReplayRecord]:
    """Trajectories through one simulated cache, `concurrency` of them at a time, a turn each in rotation.

    A trajectory that ends makes room for the next one. Records come in the trajectories' order. Raises PolicyError.
    """
    if concurrency < 1:
        raise ReplayError(f"concurrency must be at least 1, got {concurrency}")
    cache = RadixCache(page_size=setting.page_size, capacity=setting.capacity)

    def make(trajectory: Recording) -> Backend:
        answers = [trajectory.messages[place] for place in answer_places(trajectory.messages)]
        limit, chunk = setting.generation_limit, setting.chunk
        backend = SimulatedBackend(renderer, cache, answers, splice=True, generation_limit=limit, chunk=chunk)
        return PlainBackend(backend) if setting.cache == "radix" else backend

    done = interleave(trajectories, setting, make, concurrency=concurrency, on_turn=on_turn)
    about = {"tokenizer": tokenizer, "concurrency": concurrency}
    return [record.model_copy(update=about) for record in done]


def replay_on(
    trajectory: Recording, setting: Setting, backend: Backend, *, on_turn: OnTurn | None = None
) -> ReplayRecord:
    """One trajectory through a real backend, in a cache namespace of its own; see `recorded.RecordedBackend`."""
    found = backend.capabilities()
    name = f"{found.name}/{found.model}"
    served = PlainBackend(backend) if setting.cache == "radix" else backend
    record = interleave([trajectory], setting, lambda _: served, tenant=True, on_turn=on_turn)[0]
    return record.model_copy(update={"backend": name})


def interleave(
    trajectories: Sequence[Recording],
    setting: Setting,
    make: MakeBackend,
    *,
    concurrency: int = 1,
    tenant: bool = False,
    on_turn: OnTurn | None = None,
) -> list[ReplayRecord]:
    """Step the trajectories' sessions in rotation; `make` gives each its backend."""
    waiting = deque(enumerate(trajectories))
    running: deque[tuple[int, _Run]] = deque()
    finished: dict[int, ReplayRecord] = {}
    while waiting or running:
        while waiting and len(running) < concurrency:
            number, trajectory = waiting.popleft()
            running.append((number, _Run(trajectory, setting, make(trajectory), tenant)))
        number, run = running.popleft()
        if run.step():
            running.append((number, run))
            if on_turn is not None:
                on_turn()
        else:
            finished[number] = run.record()
    return [finished[number] for number in sorted(finished)]


class _Run:
    """One trajectory on its way through a session."""

    def __init__(self, trajectory: Recording, setting: Setting, backend: Backend, tenant: bool) -> None:
        self._trajectory = trajectory
        self._setting = setting
        name = f"replay/{trajectory.id}/{setting.policy}/{setting.cache}"
        self._session = Session(
            backend,
            load_policy(setting.policy),
            mode=setting.mode,
            seam=setting.seam,
            tools=trajectory.tools,
            session_id=name,
            tenant=name if tenant else None,
        )
        self._ends = answer_places(trajectory.messages)
        self._turns: list[TurnRecord] = []
        self._edits = 0
        self._stopped: str | None = None if self._ends else "the recording holds no answer of a model"
        try:
            self._full = full_lengths(backend.renderer, trajectory.messages, trajectory.tools)
        except RenderingError as error:
            self._full, self._stopped = [], _said(error)

    def step(self) -> bool:
        """Serve one turn; false where there is none left."""
        turn = len(self._turns)
        if turn >= len(self._ends) or self._stopped is not None:
            return False
        try:
            done = self._session.turn(self._trajectory.messages[: self._ends[turn]])
        except (BackendError, RenderingError) as error:
            self._stopped = f"turn {turn}: {_said(error)}"
            return False
        self._edits += len(done.edits)
        full = self._full[turn] if self._full and self._edits else done.receipt.prompt_tokens
        self._turns.append(turn_record(done, full))
        return True

    def record(self) -> ReplayRecord:
        setting = self._setting
        return ReplayRecord(
            trajectory=self._trajectory.id,
            policy=setting.policy,
            cache=setting.cache,
            page_size=setting.page_size,
            capacity=setting.capacity,
            chunk=setting.chunk,
            seam=setting.seam,
            exit_status=self._trajectory.exit_status,
            turns=tuple(self._turns),
            stopped=self._stopped,
        )


def _said(error: LeylineError) -> str:
    return " ".join(str(error).split())[:300]


def iter_settings(policies: Sequence[str], caches: Sequence[Cache], **fields: Any) -> Iterator[Setting]:
    """Every policy with every cache."""
    for policy in policies:
        for cache in caches:
            yield Setting(policy, cache, **fields)
