"""Hooks around a forward pass: what its requests move is launched before it, their holes ride in it, and leave unseen.

Moves are launched on the stream of the forwards, one launch for all requests of a pass: they stand behind every forward
whose KV they may read and before the one that reads theirs, and nobody waits for them.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import torch

from leyline.backends.sglang.plugin.absorb import absorbs
from leyline.backends.sglang.plugin.cache import PLAN, STAGED, Controller
from leyline.backends.sglang.plugin.ghosts import Ghost, Real, add_ghosts
from leyline.backends.sglang.plugin.move_counts import Generations
from leyline.backends.sglang.plugin.mover import Mover, joined, tokens_of
from leyline.backends.sglang.plugin.ops import TreeOps
from leyline.backends.sglang.plugin.staging import Staged

log = logging.getLogger("leyline")

ABSORB_VARIABLE = "LEYLINE_ABSORB"
"""`all`: also forwards without holes take the absorbed path where it costs less. For measurements: it changes bits."""
_WORK = "_leyline_work"
"""On a ScheduleBatch, from its preparation to its forward."""
_TIMED = "_leyline_timed"
"""On a ScheduleBatch and its ForwardBatch: AUTO learns from this pass."""
_REAL = "_leyline_real"
"""On a ForwardBatch with ghosts."""


class _Work(NamedTuple):
    """What one request of a batch moves and computes beside its tail."""

    place: int
    req: Any
    staged: Staged


class ForwardHooks:
    """The hooks of one rank. A batch without staged requests passes through."""

    def __init__(self, adapter: Any, controller: Controller, ops: TreeOps, mover: Mover, counts: Generations) -> None:
        self._adapter = adapter
        self._controller = controller
        self._ops = ops
        self._mover = mover
        self._counts = counts
        self._absorb_all = os.environ.get(ABSORB_VARIABLE) == "all"
        self._auto = controller.splicer.auto
        self._running: list[Real] = []
        # A runner copies the ForwardBatch on its way to the model, so what is running cannot be read from it.

    def prepared(self, result: Any, batch: Any) -> None:
        """AFTER `ScheduleBatch.prepare_for_extend`: the batch's slots are taken; donors need no protection any more."""
        work = []
        for place, req in enumerate(batch.reqs):
            plan = getattr(req, PLAN, None)
            if plan and plan.choice is not None and self._auto.learns:
                setattr(batch, _TIMED, True)
            staged = getattr(req, STAGED, None)
            if staged is None:
                continue
            setattr(req, STAGED, None)
            self._controller.splicer.release(staged)
            self._count_hits(req, staged)
            work.append(_Work(place, req, staged))
        if work:
            setattr(batch, _WORK, work)

    def _count_hits(self, req: Any, staged: Staged) -> None:
        """Holes stand in the prefix, but are no hits."""
        if req.retracted_stain:
            return
        if req.cached_tokens_device == staged.end:  # its first chunk
            req.cached_tokens_device -= staged.computed
        req.cached_tokens -= staged.computed

    def init_new(self, original: Callable[..., Any], cls: Any, batch: Any, runner: Any, *args: Any, **kw: Any) -> Any:
        """AROUND `ForwardBatch.init_new`, on the stream of the forwards: launch the moves, add the holes."""
        work, timed = getattr(batch, _WORK, None), getattr(batch, _TIMED, False)
        if not work and not timed:
            return original(cls, batch, runner, *args, **kw)
        setattr(batch, _WORK, None)
        setattr(batch, _TIMED, False)
        if work:
            self._move(work)
        forward = original(cls, batch, runner, *args, **kw)
        setattr(forward, _TIMED, timed)
        if not work:
            return forward
        ghosts = [
            Ghost(place, self._adapter.row(req), start, end, list(req.full_untruncated_fill_ids[start:end]))
            for place, req, staged in work
            for start, end in staged.holes
        ]
        if ghosts:
            setattr(forward, _REAL, add_ghosts(forward, ghosts, runner))
        return forward

    def _move(self, work: list[_Work]) -> None:
        ok = True
        try:
            parts = [tokens_of(staged) for _, _, staged in work]
            with self._auto.timed_move(sum(len(part.source) for part in parts), sum(s.seconds for _, _, s in work)):
                self._mover(joined(parts))
            for tokens, (_, _, staged) in zip(parts, work, strict=True):
                self._counts.reset(staged.slots)
                self._counts.moved(tokens.source, tokens.target, tokens.old < staged.honest)
                _keep(staged)
        except Exception:
            log.exception("moving KV failed; it is computed instead")
            ok = False
        if self._ops.agree(ok):
            return
        for _, req, staged in work:
            computed = staged.computed
            staged.holes = [(staged.start, staged.end)]
            self._counts.reset(staged.slots)
            if not req.retracted_stain:
                req.cached_tokens -= staged.computed - computed
            self._controller.unmoved(req, staged, self._adapter.space(req))

    def forward(self, original: Callable[..., Any], runner: Any, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """AROUND `ModelRunner.forward`: ghosts end with it; sampling sees the batch as it was."""
        if getattr(batch, _TIMED, False):
            setattr(batch, _TIMED, False)
            with self._auto.timed_pass(_blocks(batch)):
                return self.forward(original, runner, batch, *args, **kwargs)
        real: Real | None = getattr(batch, _REAL, None)
        if real is None:
            return original(runner, batch, *args, **kwargs)
        graphs = runner.prefill_cuda_graph_runner
        if not _holds(graphs, batch, self._adapter.PREFILL_GRAPHS):
            runner.prefill_cuda_graph_runner = None
        self._running.append(real)
        try:
            return original(runner, batch, *args, **kwargs)
        finally:
            self._running.pop()
            runner.prefill_cuda_graph_runner = graphs
            setattr(batch, _REAL, None)
            real.restore(batch)

    def load_batch(self, original: Callable[..., Any], runner: Any, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """AROUND `EagerRunner.load_batch`: its static buffers have no room for ghosts; run on the batch's own tensors,
        as SGLANG_EAGER_INPUT_NO_COPY does."""
        return dataclasses.replace(batch) if self._running else original(runner, batch, *args, **kwargs)

    def logits(self, original: Callable[..., Any], processor: Any, *args: Any, **kwargs: Any) -> Any:
        """AROUND `LogitsProcessor.forward(input_ids, hidden_states, lm_head, metadata, ...)`: none for ghosts."""
        if not self._running:
            return original(processor, *args, **kwargs)
        real, (ids, hidden, head, metadata, *rest) = self._running[-1], args

        def cut(value: Any) -> Any:
            rows = isinstance(value, torch.Tensor) and value.dim() and len(value) == len(hidden)
            return value[: real.tokens] if rows else value

        rest = [cut(value) for value in rest]
        kwargs = {name: cut(value) for name, value in kwargs.items()}
        return original(processor, cut(ids), cut(hidden), head, real.cut(metadata), *rest, **kwargs)

    def dispatch(self, original: Callable[..., Any], attention: Any, batch: Any, backend: str) -> Any:
        """AROUND `_handle_attention_backend` of DeepSeek-like models: the absorbed path where it costs less."""
        if (self._running or self._absorb_all) and absorbs(attention, batch):
            return self._adapter.absorbed(attention, batch)
        return original(attention, batch, backend)

    def targets(self) -> dict[str, tuple[str, Callable[..., Any]]]:
        """Where each hook goes, by SGLang's dotted name."""
        return {
            "sglang.srt.managers.schedule_batch.ScheduleBatch.prepare_for_extend": ("after", self.prepared),
            "sglang.srt.model_executor.forward_batch_info.ForwardBatch.init_new": ("around", self.init_new),
            "sglang.srt.model_executor.model_runner.ModelRunner.forward": ("around", self.forward),
            "sglang.srt.model_executor.runner.eager_runner.EagerRunner.load_batch": ("around", self.load_batch),
            "sglang.srt.layers.logits_processor.LogitsProcessor.forward": ("around", self.logits),
            "sglang.srt.models.deepseek_common.attention_backend_handler._handle_attention_backend": (
                "around",
                self.dispatch,
            ),
        }


def _holds(graphs: Any, batch: Any, kinds: Collection[str]) -> bool:
    """Whether ghosts may run in the server's captured prefill graphs, which are of one of the proven `kinds`.

    Those are pieces between attention layers: they know tokens, not sequences, of which their buffers hold `max_bs`.
    """
    kind = getattr(graphs, "prefill_backend_name", None)
    captured = getattr(graphs, "use_captured_attn_metadata", False)
    return kind in kinds and not captured and batch.batch_size <= graphs.max_bs


def _blocks(batch: Any) -> list[tuple[int, int]]:
    """What a prefill computes, holes included, as `(start, end)` of its sequences."""
    lengths = zip(batch.extend_prefix_lens_cpu or (), batch.extend_seq_lens_cpu or (), strict=True)
    return [(int(start), int(start + count)) for start, count in lengths]


def _keep(staged: Staged) -> None:
    """The scheduler's stream made these tensors, and may give their memory away before this stream is through."""
    for tensor in (staged.slots, staged.source):
        if tensor.is_cuda:
            tensor.record_stream(torch.cuda.current_stream())
