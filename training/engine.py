"""Batched greedy decoding over one KV pool, with the splices of the local backend.

Held equal to `leyline.backends.local` by tests/training/test_evaluate.py: in fp32 the same episode gives the same
tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from leyline.backends.local.rotary import RotaryTable, rotate
from training.models import TinyLM

GROWTH = 512  # tokens the pool grows by
STEP_ROUND = 128  # decode attends over a multiple of it
ALIGNED = 64  # prefill attends over a multiple of it, as fused kernels with a mask want
BUDGET = 16384  # new tokens computed at once
Fault = Literal["none", "unrotated", "shifted", "slipped"]


@dataclass(frozen=True)
class Run:
    """Tokens [source, source + length) of a row become its tokens [target, target + length)."""

    source: int
    target: int
    length: int


@dataclass(frozen=True)
class Job:
    """New tokens of a row, and the position of each, ascending; the last one is the last of the row's prompt."""

    row: int
    tokens: Sequence[int]
    positions: Sequence[int]


class Engine:
    """KV of `rows` sequences."""

    def __init__(self, model: TinyLM, rows: int) -> None:
        self.model, self.shape, self.rows = model, model.shape, rows
        weight = model.model.embed_tokens.weight
        self.device, self.dtype = weight.device, weight.dtype
        self.attention = type(model.model.layers[0].self_attn)
        self.table = RotaryTable(model.rotary, self.device)
        self.capacity = 0
        dims = self.attention.cache_dims(self.shape)
        self.cache = [
            torch.empty(self.shape.layers, rows, heads, 0, dim, device=self.device, dtype=self.dtype)
            for heads, dim in dims
        ]

    def reserve(self, tokens: int) -> None:
        """Make room for `tokens` in every row."""
        if tokens <= self.capacity:
            return
        more = -(-tokens // GROWTH) * GROWTH - self.capacity
        self.cache = [F.pad(c, (0, 0, 0, more)) for c in self.cache]
        self.capacity += more

    @torch.no_grad()
    def move(self, row: int, runs: Sequence[Run], fault: Fault = "none") -> None:
        """Move runs of a row to their places, turned to their new positions. Sources are read before any is written.

        fault: what is broken on purpose. unrotated: keys keep their old angle; shifted: the tensor that does not turn
        (values, or MLA's latent) is taken one token too late, so it belongs to the neighbour; slipped: whole tokens are
        taken one too late.
        """
        if not runs:
            return
        self.reserve(max(max(r.source, r.target) + r.length for r in runs) + 1)
        source = torch.cat([torch.arange(r.source, r.source + r.length) for r in runs]).to(self.device)
        target = torch.cat([torch.arange(r.target, r.target + r.length) for r in runs]).to(self.device)
        ends = torch.cat([torch.full((r.length,), r.source + r.length - 1) for r in runs]).to(self.device)
        late = torch.minimum(source + 1, ends)
        turning = self.attention.rotated
        moved = []
        for place, cache in enumerate(self.cache):
            wrong = fault == "slipped" or (fault == "shifted" and place != turning)
            moved.append(cache[:, row, :, late if wrong else source])
        if fault != "unrotated":
            cos, sin = self.table.between(source, target)
            moved[turning] = rotate(moved[turning], cos, sin, self.attention.pairing)  # type: ignore[arg-type]
        for cache, values in zip(self.cache, moved, strict=True):
            cache[:, row, :, target] = values

    @torch.no_grad()
    def prefill(self, jobs: Sequence[Job]) -> Tensor:
        """Compute new tokens; each sees its row's tokens at smaller positions. Logits (jobs, vocab) behind the last."""
        self.reserve(max(job.positions[-1] for job in jobs) + 1 + ALIGNED)
        logits = torch.empty(len(jobs), self.shape.vocab, device=self.device)
        order = sorted(range(len(jobs)), key=lambda i: -len(jobs[i].tokens))
        while order:
            count = max(1, BUDGET // len(jobs[order[0]].tokens))
            group, order = order[:count], order[count:]
            logits[group] = self._prefill([jobs[i] for i in group])
        return logits

    def _prefill(self, jobs: Sequence[Job]) -> Tensor:
        width = max(len(job.tokens) for job in jobs)
        length = -(-(max(job.positions[-1] for job in jobs) + 1) // ALIGNED) * ALIGNED
        tokens = torch.zeros(len(jobs), width, dtype=torch.long)
        places = torch.full((len(jobs), width), -1)
        for i, job in enumerate(jobs):
            tokens[i, : len(job.tokens)] = torch.tensor(job.tokens)
            places[i, : len(job.tokens)] = torch.tensor(job.positions)
        tokens, places = tokens.to(self.device), places.to(self.device)
        rows = torch.tensor([job.row for job in jobs], device=self.device)
        real, places = places >= 0, places.clamp_min(0)
        row_of, place_of = rows[:, None].expand_as(places)[real], places[real]
        mask = (torch.arange(length, device=self.device) <= places[..., None])[:, None]
        cos, sin = self.model.angles(places)
        x = self.model.model.embed_tokens(tokens)
        for index, layer in enumerate(self.model.model.layers):
            attention = layer.self_attn
            q, *new = attention.project(layer.input_layernorm(x), cos, sin)
            for cache, values in zip(self.cache, new, strict=True):
                cache[index][row_of, :, place_of] = values[real]
            k, v = attention.expand(*(cache[index, rows, :, :length] for cache in self.cache))
            k, v = (t.repeat_interleave(q.shape[2] // t.shape[1], 1) for t in (k, v))  # fused kernels want all heads
            out = F.scaled_dot_product_attention(q.transpose(1, 2), k, v, attn_mask=mask)
            x = x + attention.o_proj(out.transpose(1, 2).flatten(-2))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        last = torch.tensor([len(job.tokens) - 1 for job in jobs], device=self.device)
        return self._logits(x[torch.arange(len(jobs), device=self.device), last])

    def _logits(self, x: Tensor) -> Tensor:
        hidden = self.model.model.norm(x)
        return F.linear(hidden.float(), self.model.model.embed_tokens.weight.float())

    @torch.no_grad()
    def decode(
        self, rows: Sequence[int], lengths: Sequence[int], logits: Tensor, rooms: Sequence[int], stop: int
    ) -> list[list[int]]:
        """Greedy continuations of rows that hold `lengths` tokens each, without the stop token, at most `rooms` long.

        The KV of every returned token is in the pool afterwards.
        """
        longest = max(n + room for n, room in zip(lengths, rooms, strict=True)) + 1
        self.reserve(longest)
        if 2 * len(rows) > self.rows:  # in place, the other rows idle along
            order = {row: place for place, row in enumerate(rows)}
            held, most = [0] * self.rows, [0] * self.rows
            start = torch.zeros(self.rows, logits.shape[1], device=self.device)
            for row, place in order.items():
                held[row], most[row] = lengths[place], rooms[place]
            start[torch.tensor(rows, device=self.device)] = logits
            out = self._decode(self.cache, held, start, most, stop)
            return [out[row] for row in rows]
        index = torch.tensor(rows, device=self.device)
        work = [cache[:, index, :, :longest] for cache in self.cache]
        out = self._decode(work, lengths, logits, rooms, stop)
        for cache, mine in zip(self.cache, work, strict=True):
            cache[:, index, :, :longest] = mine
        return out

    def _decode(
        self, work: list[Tensor], lengths: Sequence[int], logits: Tensor, rooms: Sequence[int], stop: int
    ) -> list[list[int]]:
        """`decode` on tensors whose rows are exactly the sequences."""
        longest = work[0].shape[3]
        held, most = torch.tensor(lengths, device=self.device), torch.tensor(rooms, device=self.device)
        done = most <= 0
        every = torch.arange(len(lengths), device=self.device)
        picked: list[Tensor] = []
        for step in range(max(0, *rooms)):
            token = logits.argmax(-1)
            done = done | (token == stop) | (step >= most)
            picked.append(torch.where(done, stop, token))
            if step % 8 == 7 and bool(done.all()):
                break
            place = torch.where(done, longest - 1, held + step)  # finished rows write where nobody reads
            end = min(longest, -(-(max(lengths) + step + 1) // STEP_ROUND) * STEP_ROUND)
            logits = self._step(work, every, torch.where(done, stop, token), place, end)
        out = torch.stack(picked, 1).tolist() if picked else [[] for _ in lengths]
        return [row[: row.index(stop)] if stop in row else row for row in out]

    def _step(self, work: list[Tensor], every: Tensor, token: Tensor, place: Tensor, end: int) -> Tensor:
        cos, sin = self.model.angles(place[:, None])
        hidden = torch.arange(end, device=self.device) > place[:, None]
        x = self.model.model.embed_tokens(token)
        for index, layer in enumerate(self.model.model.layers):
            attention = layer.self_attn
            q, *new = attention.project(layer.input_layernorm(x)[:, None], cos, sin)
            for cache, values in zip(work, new, strict=True):
                cache[index][every, :, place] = values[:, 0]
            first, second = (cache[index, :, :, :end] for cache in work)
            x = x + attention.o_proj(attention.step(q[:, 0], first, second, hidden))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return self._logits(x)
