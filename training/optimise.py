"""Muon for the matrices of the layers, AdamW for embedding and norms.

Muon: momentum, then the update is brought near the closest orthogonal matrix by five Newton-Schulz steps (Jordan et
al., 2024, https://kellerjordan.github.io/posts/muon/), scaled to the RMS of an Adam update (Moonlight, arXiv
2502.16982).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

MUON_RATE, ADAM_RATE = 3e-3, 2e-3
DECAY = 0.05
MOMENTUM = 0.95


def orthogonal(update: Tensor) -> Tensor:
    """Newton-Schulz of a batch of matrices (n, rows, columns); bf16 on a GPU."""
    x = update.bfloat16() if update.is_cuda else update
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
    return (x.mT if tall else x).float()


class Optimiser:
    """Both together, with one learning-rate factor."""

    def __init__(self, model: nn.Module) -> None:
        groups: dict[tuple[str, tuple[int, ...]], list[nn.Parameter]] = {}
        self.rest: list[nn.Parameter] = []
        for name, p in model.named_parameters():
            if p.ndim == 2 and ".layers." in name:
                groups.setdefault((name.split(".")[-2], tuple(p.shape)), []).append(p)
            else:
                self.rest.append(p)
        self.groups = list(groups.values())
        self.momenta = [torch.zeros(len(g), *g[0].shape, device=g[0].device) for g in self.groups]
        self.adam = torch.optim.AdamW(
            self.rest, lr=ADAM_RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=self.rest[0].is_cuda
        )

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """One update at `factor` times the full rates; gradients are consumed."""
        nn.utils.clip_grad_norm_(self.rest, 1.0)
        for group in self.adam.param_groups:
            group["lr"] = ADAM_RATE * factor
        self.adam.step()
        rate = MUON_RATE * factor
        for group, momentum in zip(self.groups, self.momenta, strict=True):
            gradient = torch.stack([p.grad for p in group if p.grad is not None])
            momentum.lerp_(gradient, 1 - MOMENTUM)
            update = orthogonal(gradient.lerp(momentum, MOMENTUM))
            weights = [p.data for p in group]
            torch._foreach_mul_(weights, 1 - rate * DECAY)
            scale = rate * 0.2 * math.sqrt(max(group[0].shape))
            torch._foreach_add_(weights, list((update * -scale).unbind(0)))
        for p in [*self.rest, *(p for g in self.groups for p in g)]:
            p.grad = None

    def state_dict(self) -> dict[str, Any]:
        return {"adam": self.adam.state_dict(), "momenta": self.momenta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adam.load_state_dict(state["adam"])
        for mine, saved in zip(self.momenta, state["momenta"], strict=True):
            mine.copy_(saved)
