"""The actors of a Ray cluster that run trials: those that live, those that wait for a processor, and how they end."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from leyline.directives.counts import count
from leyline.evals.trials.config import ConfigError
from leyline.evals.trials.pool import Runner
from leyline.evals.trials.record import TrialRecord
from leyline.evals.trials.schedule import TrialSpec

log = logging.getLogger("leyline.evals")

PATIENCE_SECONDS = 15.0
"""How long a worker may wait for a processor before it is said."""
FAILED_STARTS = 3
REACH_SECONDS, SETTLE_SECONDS = 2.0, 1.0

_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


class RayWorker:
    """One worker process: what Ray makes an actor of."""

    def __init__(self, factory: Callable[[], Runner]) -> None:
        os.environ.update(_ENVIRONMENT)
        self._runner = factory()

    def node(self) -> str:
        """The node it runs on; the first answer says that it runs."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def run(self, spec: TrialSpec) -> tuple[TrialRecord, bytes | None]:
        """The record, and the content of the trajectory."""
        with tempfile.TemporaryDirectory(prefix="leyline-ray-") as folder:
            record = self._runner.run(replace(spec, directory=folder))
            kept = Path(folder, record.trajectory) if record.trajectory else None
            return record, kept.read_bytes() if kept is not None else None


class Crew:
    """Up to `size` actors. idle: those that live and have no trial. losses: what `ray.get` raises for a lost one."""

    def __init__(self, ray: Any, factory: Callable[[], Runner], size: int) -> None:
        self._ray, self._factory = ray, factory
        self._make = ray.remote(num_cpus=1, max_restarts=0)(RayWorker)
        self._size, self._failed, self._said = size, 0, False
        self._nodes: dict[Any, str] = {}
        self._starting: dict[Any, Any] = {}
        self._since = time.monotonic()
        self.idle: list[Any] = []
        errors = ray.exceptions
        self.losses = (errors.RayActorError, errors.ObjectLostError, errors.NodeDiedError, errors.WorkerCrashedError)
        for _ in range(size):
            self._start()

    def _start(self) -> None:
        worker = self._make.remote(self._factory)
        self._starting[worker.node.remote()] = worker

    def wait(self, running: Sequence[Any], seconds: float) -> list[Any]:
        """Those of `running` that are done, after at most so many seconds; workers that came up meanwhile are idle.

        Raises ConfigError where no worker can start.
        """
        futures = [*running, *self._starting]
        ready, _ = self._ray.wait(futures, num_returns=len(futures), timeout=seconds) if futures else ([], [])
        for future in [future for future in ready if future in self._starting]:
            worker = self._starting.pop(future)
            try:
                self._nodes[worker] = self._ray.get(future)
            except self.losses as error:
                self._failed += 1
                if self._failed >= FAILED_STARTS and not self._nodes:
                    said = " ".join(str(error).split())[:300]
                    raise ConfigError(f"no worker can start on the Ray cluster: {said}") from None
                self._start()
                continue
            self._failed = 0
            self.idle.append(worker)
        self._say()
        return [future for future in ready if future in running]

    def _say(self) -> None:
        """Once, what is waited for."""
        if self._said or not self._starting or time.monotonic() - self._since < PATIENCE_SECONDS:
            return
        self._said = True
        have = int(self._ray.cluster_resources().get("CPU", 0))
        free = int(self._ray.available_resources().get("CPU", 0))
        log.warning(
            "%d of %s run: the others wait for a free processor of the Ray cluster, which has %d (%d free); "
            "add nodes, or ask for fewer --workers",
            len(self._nodes),
            count(self._size, "worker"),
            have,
            free,
        )

    def lose(self, worker: Any) -> bool:
        """Replace a worker that is gone; whether its node is gone as well."""
        node = self._nodes.pop(worker)
        self._kill(worker)  # one that was only out of reach must not go on
        self._since, self._said = time.monotonic(), False
        self._start()
        if not self._lives(node):
            return True
        time.sleep(SETTLE_SECONDS)  # a machine that goes down may end its processes one by one
        return not self._lives(node)

    def _lives(self, node: str) -> bool:
        """Whether a node does, by what the cluster knows and by its own port: the cluster learns it seconds later."""
        known = next((entry for entry in self._ray.nodes() if entry["NodeID"] == node), None)
        if known is None or not known["Alive"]:
            return False
        try:
            with socket.create_connection((known["NodeManagerAddress"], known["NodeManagerPort"]), REACH_SECONDS):
                return True
        except OSError:
            return False

    def dismiss(self, running: Sequence[Any]) -> None:
        """End all of them."""
        for worker in [*self.idle, *running, *self._starting.values()]:
            self._kill(worker)

    def _kill(self, worker: Any) -> None:
        try:
            self._ray.kill(worker)
        except Exception:  # gone already, or its node is
            log.debug("a Ray worker could not be ended", exc_info=True)
