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
SPAN = 1_000_000  # tokens looked at by the rows computed at once
MOVED = 200_000  # tokens moved at once
LOOK = 32  # decode looks so often how many rows are still running
FEW = 0.25  # below this share of the rows it goes on with those alone
BUDGET = 16384  # new tokens computed at once
Fault = Literal["none", "unrotated", "shifted", "slipped"]


@dataclass(frozen=True)
class Run:
    """Tokens [source, source + length) of a row become its tokens [target, target + length)."""

    source: int
    target: int
    length: int


@dataclass(frozen=True)
class Move:
    """Runs of a row to be moved.

    fault: what is broken on purpose. unrotated: keys keep their old angle; shifted: the tensor that does not turn
    (values, or MLA's latent) is taken one token too late, so it belongs to the neighbour; slipped: whole tokens are
    taken one too late.
    """

    row: int
    runs: Sequence[Run]
    fault: Fault = "none"


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
    def move(self, moves: Sequence[Move]) -> None:
        """Move runs of rows to their places, turned to their new positions. All sources of a row are read before any of
        its places is written."""
        for fault in sorted({move.fault for move in moves}):
            batch: list[Move] = []
            for move in moves:
                if move.fault == fault and move.runs:
                    batch.append(move)
                    if sum(run.length for m in batch for run in m.runs) > MOVED:
                        self._move(batch, fault)
                        batch = []
            if batch:
                self._move(batch, fault)

    def _move(self, moves: Sequence[Move], fault: Fault) -> None:
        runs = [(move.row, run) for move in moves for run in move.runs]
        self.reserve(max(max(r.source, r.target) + r.length for _, r in runs) + 1)
        row = torch.cat([torch.full((r.length,), number) for number, r in runs]).to(self.device)
        source = torch.cat([torch.arange(r.source, r.source + r.length) for _, r in runs]).to(self.device)
        target = torch.cat([torch.arange(r.target, r.target + r.length) for _, r in runs]).to(self.device)
        ends = torch.cat([torch.full((r.length,), r.source + r.length - 1) for _, r in runs]).to(self.device)
        late = torch.minimum(source + 1, ends)
        turning = self.attention.rotated
        moved = []
        for place, cache in enumerate(self.cache):
            wrong = fault == "slipped" or (fault == "shifted" and place != turning)
            moved.append(cache[:, row, :, late if wrong else source])  # (tokens, layers, heads, dim)
        if fault != "unrotated":
            cos, sin = self.table.between(source, target)
            band = moved[turning].movedim(0, 2)
            moved[turning] = rotate(band, cos, sin, self.attention.pairing).movedim(2, 0)  # type: ignore[arg-type]
        for cache, values in zip(self.cache, moved, strict=True):
            cache[:, row, :, target] = values

    @torch.no_grad()
    def prefill(self, jobs: Sequence[Job]) -> Tensor:
        """Compute new tokens; each sees its row's tokens at smaller positions. Logits (jobs, vocab) behind the last."""
        self.reserve(max(job.positions[-1] for job in jobs) + 1 + ALIGNED)
        logits = torch.empty(len(jobs), self.shape.vocab, device=self.device)
        order = sorted(range(len(jobs)), key=lambda i: -len(jobs[i].tokens))
        while order:
            longest = max(jobs[i].positions[-1] for i in order) + 1
            count = max(1, min(BUDGET // len(jobs[order[0]].tokens), SPAN // longest))
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
        self.reserve(max(n + room for n, room in zip(lengths, rooms, strict=True)) + 1)
        held, most = [0] * self.rows, [0] * self.rows
        start = torch.zeros(self.rows, logits.shape[1], device=self.device)
        for row, length, room in zip(rows, lengths, rooms, strict=True):
            held[row], most[row] = length, room
        start[torch.tensor(rows, device=self.device)] = logits
        out = self._decode(self.cache, held, start, most, stop)
        return [out[row] for row in rows]

    def _decode(
        self, work: list[Tensor], lengths: Sequence[int], logits: Tensor, rooms: Sequence[int], stop: int
    ) -> list[list[int]]:
        """`decode` on tensors whose rows are the sequences; those without room idle along."""
        last = work[0].shape[3] - 1  # finished rows write there, where nobody reads
        held, most = torch.tensor(lengths, device=self.device), torch.tensor(rooms, device=self.device)
        done = most <= 0
        every = torch.arange(len(lengths), device=self.device)
        picked: list[Tensor] = []
        for step in range(max(rooms) + 1):
            token = logits.argmax(-1)
            done = done | (token == stop) | (step >= most)
            if step % LOOK == 0:
                alive = (~done).nonzero()[:, 0]
                if len(alive) <= FEW * len(lengths):
                    return self._decode_few(work, alive, lengths, logits, rooms, stop, picked)
            picked.append(torch.where(done, stop, token))
            place = torch.where(done, last, held + step)
            end = min(last + 1, -(-(max(lengths) + step + 1) // STEP_ROUND) * STEP_ROUND)
            logits = self._step(work, every, picked[-1], place, end)
        return _until(torch.stack(picked, 1).tolist(), stop)

    def _decode_few(
        self,
        work: list[Tensor],
        alive: Tensor,
        lengths: Sequence[int],
        logits: Tensor,
        rooms: Sequence[int],
        stop: int,
        picked: list[Tensor],
    ) -> list[list[int]]:
        """Go on with a copy of the rows that are still running."""
        step = len(picked)
        out = _until(torch.stack(picked, 1).tolist(), stop) if picked else [[] for _ in lengths]
        numbers = alive.tolist()
        if numbers:
            longest = max(lengths[i] + rooms[i] for i in numbers) + 1
            part = [cache[:, alive, :, :longest] for cache in work]
            rest = self._decode(
                part, [lengths[i] + step for i in numbers], logits[alive], [rooms[i] - step for i in numbers], stop
            )
            for cache, mine in zip(work, part, strict=True):
                cache[:, alive, :, :longest] = mine
            for i, tokens in zip(numbers, rest, strict=True):
                out[i] = out[i] + tokens
        return out

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


def _until(rows: list[list[int]], stop: int) -> list[list[int]]:
    return [row[: row.index(stop)] if stop in row else row for row in rows]
