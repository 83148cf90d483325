"""Workers on a Ray cluster: the machines of `RAY_ADDRESS`, or a local cluster where it is not set.

Every machine needs leyline with the extras the arms need, and whatever the suite reads (task folders, rows). Nothing
is shared otherwise: a trajectory travels back with its record and is written on this side.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from leyline.evals.trials.config import ConfigError, cores
from leyline.evals.trials.pool import POLL_SECONDS, Control, Runner, died, make_runner
from leyline.evals.trials.ray_crew import Crew
from leyline.evals.trials.record import TrialKey, TrialRecord
from leyline.evals.trials.schedule import TrialSpec

MOST_NODES = 5
"""How many nodes may be lost under one trial: one that takes its node down every time is recorded as an error."""


class RayExecutor:
    """`workers` actors of one processor each, or one for each of the cluster's processors where None is given.

    Trials go to actors that live: one that finds no free processor waits for it and keeps nobody up. An actor that dies
    is replaced and its trial starts again, once; a trial whose node was lost runs elsewhere, unless `MOST_NODES` were.
    """

    def __init__(self, workers: int | None, factory: Callable[[], Runner] = make_runner) -> None:
        try:
            import ray
        except ImportError:
            raise ConfigError("--executor ray needs Ray: pip install 'leyline-kv[ray]'") from None
        self._ray: Any = ray
        self._count = workers
        self._factory = factory

    def run(self, specs: Sequence[TrialSpec], control: Control) -> Iterator[TrialRecord]:
        ray = self._ray
        if ray.is_initialized():
            yield from self._run(specs, control)
            return
        # Ray's sockets lie in its folder, and a socket's path has at most 107 bytes: $TMPDIR may be too long.
        short = "/tmp" if Path("/tmp").is_dir() else None
        with (
            tempfile.TemporaryDirectory(prefix="ray-", dir=short, ignore_cleanup_errors=True) as folder,
            contextlib.redirect_stdout(sys.stderr),  # Ray prints its notices to where a script reads our JSON
        ):
            try:
                self._connect(folder)
                yield from self._run(specs, control)
            finally:
                ray.shutdown()

    def _connect(self, folder: str) -> None:
        address = os.environ.get("RAY_ADDRESS")
        local = {} if address else {"num_cpus": self._count or cores(), "include_dashboard": False, "_temp_dir": folder}
        try:
            self._ray.init(address=address, log_to_driver=False, logging_level="warning", **local)
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(f"cannot reach a Ray cluster at {address or 'this machine'}: {error}") from None

    def _run(self, specs: Sequence[TrialSpec], control: Control) -> Iterator[TrialRecord]:
        queue = deque(specs)
        crew = Crew(self._ray, self._factory, min(self._count or _processors(self._ray), len(queue)))
        deaths: Counter[TrialKey] = Counter()
        lost: Counter[TrialKey] = Counter()
        running: dict[Any, tuple[Any, TrialSpec]] = {}
        try:
            while True:
                stopped = control.stopped()
                while crew.idle and queue and not stopped and control.more():
                    worker, spec = crew.idle.pop(), queue.popleft()
                    running[worker.run.remote(spec)] = (worker, spec)
                if not running and (stopped or not queue or not control.more()):
                    return
                for future in crew.wait(list(running), 0 if stopped else POLL_SECONDS):
                    worker, spec = running.pop(future)
                    try:
                        record, trajectory = self._ray.get(future)
                    except crew.losses:
                        # With a node go its workers, whatever they ran, and what of their results was not fetched.
                        count = lost if crew.lose(worker) else deaths
                        count[spec.key] += 1
                        if stopped:
                            continue
                        if deaths[spec.key] < 2 and lost[spec.key] < MOST_NODES:
                            queue.appendleft(spec)
                        else:
                            yield died(spec, None)
                        continue
                    crew.idle.append(worker)
                    _keep(spec, record, trajectory)
                    yield record
                if stopped:
                    return
        finally:
            crew.dismiss([worker for worker, _ in running.values()])


def _processors(ray: Any) -> int:
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _keep(spec: TrialSpec, record: TrialRecord, trajectory: bytes | None) -> None:
    if trajectory is not None and record.trajectory is not None:
        path = Path(spec.directory) / record.trajectory
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(trajectory)
