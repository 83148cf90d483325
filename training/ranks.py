"""Data parallel training: a process a GPU, each with rows of its own, and one update for all.

Started by `python -m torch.distributed.run --standalone --nproc-per-node N -m training.train ...`; alone, a process is
the only rank and nothing travels.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Ranks:
    """This process among the others. rank: 0 writes checkpoints and curves, and its clock is everyone's."""

    def __init__(self, device: str) -> None:
        self.rank, self.count = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        self.device = device
        if device.startswith("cuda") and self.count > 1:
            self.device = f"cuda:{os.environ['LOCAL_RANK']}"
            torch.cuda.set_device(self.device)
        if self.count > 1:
            dist.init_process_group("cpu:gloo,cuda:nccl" if self.device != "cpu" else "gloo")

    @property
    def first(self) -> bool:
        return self.rank == 0

    def agree(self, *values: float) -> list[float]:
        """What rank 0 says, on every rank. It travels between the CPUs, so that no GPU has to be waited for."""
        if self.count == 1:
            return list(values)
        told = torch.tensor(values, dtype=torch.float64)
        dist.broadcast(told, 0)
        return [float(value) for value in told.tolist()]

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the ranks."""
        if self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in gradients])
        dist.all_reduce(flat)
        flat /= self.count
        parts: list[Tensor] = list(flat.split([g.numel() for g in gradients]))
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def close(self) -> None:
        """Wait for the others and part: a rank that just ends takes those with it that still talk to it."""
        if self.count > 1:
            dist.barrier()
            dist.destroy_process_group()
