"""AUTO on one rank: which moves pay, by costs that the rank's own passes keep up to date."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from leyline.backends.sglang.plugin.runs import Plan
from leyline.backends.sglang.plugin.staging import Move
from leyline.directives import Costs, CostsError, Load, Mode, Reusable, choose

log = logging.getLogger("leyline")

COSTS_VARIABLE = "LEYLINE_COSTS"
_UNREAD = 64
"""Passes that may be timed before the first of them is through; further ones go untimed."""


class Auto:
    """The costs of one server, and the choices that are made by them."""

    def __init__(self, costs: Costs, device: torch.device | str = "cpu", *, learns: bool = True) -> None:
        """learns: whether this rank's passes may change the costs. Ranks that serve together have to choose alike."""
        self.costs = costs
        self.learns = learns
        self._clock = Clock(torch.device(device))

    def choose(self, plan: Plan, found: list[Move], held: int, length: int, ahead: int) -> list[Move]:
        """The moves among `found` that are taken; the plan is told, and skips the runs of the others.

        held: tokens in the request's own path. length: of the prompt. ahead: what its pass computes for others.
        """
        directives = plan.script.directives
        runs = [Reusable(m.start, m.end, directives[m.run.directive].mode is not Mode.AUTO) for m in found]
        plan.choice, taken = choose(self.costs, held, length, runs, Load(ahead))
        plan.chosen_at = time.perf_counter()
        plan.skipped.update(move.run for move, moved in zip(found, taken, strict=True) if not moved)
        return [move for move, moved in zip(found, taken, strict=True) if moved]

    def took(self, plan: Plan) -> bool:
        """The request has its first token: note how long it took since the choice. Whether there was one to note."""
        if plan.choice is None or plan.choice.seconds is not None:
            return False
        plan.choice = replace(plan.choice, seconds=round(time.perf_counter() - plan.chosen_at, 6))
        return True

    @contextmanager
    def timed_pass(self, blocks: Sequence[tuple[int, int]]) -> Iterator[None]:
        """Learn from the forward pass inside, which computes `blocks`."""
        with self._clock.timing(lambda seconds: self._learn(self.costs.learn_prefill(blocks, seconds))):
            yield

    @contextmanager
    def timed_move(self, tokens: int, planning: float) -> Iterator[None]:
        """Learn from the move inside, behind `planning` seconds on the scheduler."""
        with self._clock.timing(lambda seconds: self._learn(self.costs.learn_move(tokens, seconds + planning))):
            yield

    def _learn(self, costs: Costs) -> None:
        if self.learns:
            self.costs = costs


class Clock:
    """Times what is launched on the current stream, without waiting for it: a GPU's times are read when they are in."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._open: deque[tuple[torch.cuda.Event, torch.cuda.Event, Callable[[float], None]]] = deque()

    @contextmanager
    def timing(self, tell: Callable[[float], None]) -> Iterator[None]:
        """`tell` is called with the seconds of what is inside, at once or when a later time is taken."""
        if not self._cuda:
            began = time.perf_counter()
            yield
            tell(time.perf_counter() - began)
            return
        while self._open and self._open[0][1].query():  # type: ignore[no-untyped-call]
            first, last, heard = self._open.popleft()
            heard(first.elapsed_time(last) / 1e3)
        if len(self._open) >= _UNREAD:
            yield
            return
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        first.record()
        yield
        last.record()
        self._open.append((first, last, tell))


def first_costs(token_bytes: int, chunk: int) -> Costs:
    """The costs to begin with: those of the file in LEYLINE_COSTS, else a guess; the server's own sizes in any case.

    chunk: tokens of one pass, 0 where it has no bound. A file that cannot be read is told in the log.
    """
    costs = Costs()
    path = os.environ.get(COSTS_VARIABLE)
    if path:
        try:
            costs = Costs.read(path)
            if costs.token_bytes == 1:  # measured by a client that was not told: `byte` is of a token
                costs = replace(costs, byte=costs.byte / token_bytes)
        except CostsError as error:
            log.warning("leyline: %s; AUTO begins with a guess", error)
    return replace(costs, token_bytes=max(1, token_bytes), chunk=chunk if chunk > 0 else 2**20)


def token_bytes(pool: Any) -> int:
    """KV bytes of one token, all layers."""
    buffers = pool.kv_buffer if hasattr(pool, "kv_lora_rank") else [*pool.k_buffer, *pool.v_buffer]
    return sum(buffer[0].numel() * buffer.element_size() for buffer in buffers)
