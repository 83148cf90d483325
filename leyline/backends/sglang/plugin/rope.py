"""Moving a key: `R(new - old)` applied to a key that already carries `R(old)`.

The rotation is taken from the model's own cos/sin table as the ratio of two of its rows,
`e^{i(theta_new - theta_old)} = t_new * conj(t_old)`, and normalised to unit length: whatever magnitude the table
carries (YaRN's mscale) is already in the stored key and cancels. In fp32 the result is within 1e-6 of a freshly
rotated key at any position, where a rotation by a constant delta is off by 1e-2 at position 100,000, because the
table itself is rounded there.
"""

from __future__ import annotations

from typing import Any

import torch


class Rotation:
    """The cos and sin of one move, `(tokens, rotary_dim / 2)` each, fp32."""

    __slots__ = ("cos", "neox", "sin")

    def __init__(self, cos: torch.Tensor, sin: torch.Tensor, neox: bool) -> None:
        self.cos = cos[:, None, :]
        self.sin = sin[:, None, :]
        self.neox = neox

    def apply(self, keys: torch.Tensor) -> torch.Tensor:
        """Rotate `(tokens, heads, rotary_dim)` keys: fp32 maths, the dtype of `keys` out."""
        x = keys.float()
        out = torch.empty_like(x)
        if self.neox:
            half = x.shape[-1] // 2
            a, b = x[..., :half], x[..., half:]
            out[..., :half] = a * self.cos - b * self.sin
            out[..., half:] = b * self.cos + a * self.sin
        else:
            a, b = x[..., 0::2], x[..., 1::2]
            out[..., 0::2] = a * self.cos - b * self.sin
            out[..., 1::2] = b * self.cos + a * self.sin
        return out.to(keys.dtype)


class Rope:
    """The model's rotary embedding, read through its SGLang module (the table may be replaced while it runs)."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self.neox = bool(module.is_neox_style)
        self.dim = int(module.rotary_dim)

    @property
    def positions(self) -> int:
        """How many positions the table covers."""
        return int(self.table.shape[0])

    @property
    def table(self) -> torch.Tensor:
        """`(positions, dim)`: cosines, then sines."""
        table: torch.Tensor = self._module.cos_sin_cache
        return table

    def between(self, old: torch.Tensor, new: torch.Tensor) -> Rotation:
        """The rotation from positions `old` to `new`, both `(tokens,)` int64."""
        table = self.table
        old_cos, old_sin = table[old].float().chunk(2, -1)
        new_cos, new_sin = table[new].float().chunk(2, -1)
        cos = new_cos * old_cos + new_sin * old_sin
        sin = new_sin * old_cos - new_cos * old_sin
        unit = torch.rsqrt(cos * cos + sin * sin)
        return Rotation(cos * unit, sin * unit, self.neox)
