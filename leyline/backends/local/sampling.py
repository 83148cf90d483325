"""Choosing the next token."""

from __future__ import annotations

import torch
from torch import Tensor

from leyline.backends.contract import Sampling


class Sampler:
    """Greedy at temperature 0, else nucleus sampling from its own generator."""

    def __init__(self, settings: Sampling) -> None:
        self._temperature = settings.temperature
        self._top_p = settings.top_p
        self._generator = torch.Generator()
        if settings.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(settings.seed)

    def pick(self, logits: Tensor) -> int:
        """The next token. logits: (vocabulary,) fp32."""
        if self._temperature <= 0:
            return int(logits.argmax())
        probabilities = torch.softmax(logits.cpu() / self._temperature, dim=-1)
        if self._top_p < 1:
            ordered, order = probabilities.sort(descending=True)
            # the smallest set whose mass reaches top_p: a token stays while the mass before it is below top_p
            ordered[ordered.cumsum(0) - ordered >= self._top_p] = 0
            ordered[0] = max(float(ordered[0]), 1e-30)
            return int(order[torch.multinomial(ordered, 1, generator=self._generator)])
        return int(torch.multinomial(probabilities, 1, generator=self._generator))
