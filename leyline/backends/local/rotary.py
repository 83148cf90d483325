"""Moving cached keys to other positions.

A key at position i was stored as m * R(theta_i) k, with m the table's magnitude (YaRN) and theta_i the row i of the
model's own table. At position j it must be m * R(theta_j) k, so it is turned by R(theta_j - theta_i), whose cosine and
sine are products of table entries of unit length: the magnitude cancels, and rounding of the table is the same as in
a fresh prefill at position j. All of it in fp32, stored in the cache's dtype.
"""

from __future__ import annotations

import torch
from torch import Tensor

from leyline.backends.local.families import Pairing


class RotaryTable:
    """The rotary table of a model, of unit magnitude. Rows are computed by the model's own rotary module."""

    def __init__(self, rotary: torch.nn.Module, device: torch.device) -> None:
        self._rotary = rotary
        self._probe = torch.zeros(1, dtype=torch.float32, device=device)

    def rows(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Unit cosine and sine of each position. positions: (n,) int64. Returns two (n, rope_dim / 2) fp32 tensors."""
        out = self._rotary(self._probe, positions[None])
        if isinstance(out, Tensor):
            cos, sin = out[0].real.float(), out[0].imag.float()
        else:
            half = out[0].shape[-1] // 2
            cos, sin = out[0][0, :, :half].float(), out[1][0, :, :half].float()
        magnitude = torch.hypot(cos, sin)
        return cos / magnitude, sin / magnitude

    def between(self, old: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine of theta(new) - theta(old). old, new: (n,) int64. Returns two (n, rope_dim / 2) tensors."""
        cos_old, sin_old = self.rows(old)
        cos_new, sin_new = self.rows(new)
        return cos_new * cos_old + sin_new * sin_old, sin_new * cos_old - cos_new * sin_old


class StillTable(RotaryTable):
    """A table between whose positions there is no angle: moved keys keep their old phase. A negative control."""

    def between(self, old: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine 1 and sine 0, in the shape of a real table's."""
        return super().between(old, old)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, pairing: Pairing) -> Tensor:
    """Turn every pair of dimensions of each token by its angle.

    x: (..., n, rope_dim) in any float dtype; cos, sin: (n, rope_dim / 2) fp32. Returns x's shape and dtype.
    """
    wide = x.float()
    out = torch.empty_like(wide)
    if pairing == "interleaved":
        a, b = wide[..., 0::2], wide[..., 1::2]
        out[..., 0::2] = a * cos - b * sin
        out[..., 1::2] = b * cos + a * sin
    else:
        half = wide.shape[-1] // 2
        a, b = wide[..., :half], wide[..., half:]
        out[..., :half] = a * cos - b * sin
        out[..., half:] = b * cos + a * sin
    return out.to(x.dtype)
