"""Computing holes in the forward of their request: each becomes one more sequence of the batch, over the same row.

A hole `[a, b)` is the sequence `[0, b)` of its request's row of slots with the queries `[a, b)`. Every layer writes the
K and V of all tokens of the batch before any of its queries reads, so a later hole and the tail see an earlier hole of
the same forward. Ghosts stand behind the batch's own sequences, and are cut off before logits and sampling.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from leyline.backends.sglang.plugin.mover import to_device
from leyline.directives import JsonObject

if TYPE_CHECKING:
    from sglang.srt.model_executor.forward_batch_info import ForwardBatch
    from sglang.srt.model_executor.model_runner import ModelRunner


_FIELDS = (
    "batch_size",
    "extend_logprob_start_lens_cpu",
    "extend_num_tokens",
    "extend_prefix_lens",
    "extend_prefix_lens_cpu",
    "extend_seq_lens",
    "extend_seq_lens_cpu",
    "extend_start_loc",
    "global_num_token_non_padded",
    "global_num_token_non_padded_cpu",
    "input_ids",
    "kv_loc_plan",
    "lora_ids",
    "num_token_non_padded",
    "num_token_non_padded_cpu",
    "orig_seq_lens",
    "out_cache_loc",
    "out_cache_loc_virtual",
    "positions",
    "req_pool_indices",
    "req_pool_indices_cpu",
    "rids",
    "seq_lens",
    "seq_lens_cpu",
    "seq_lens_sum",
)
"""What ghosts change in a ForwardBatch, in either release."""


class Ghost(NamedTuple):
    """A hole `[start, end)` of request number `place` of the batch, whose slot row is `row`."""

    place: int
    row: int
    start: int
    end: int
    ids: list[int]


class Real(NamedTuple):
    """What a batch was before its ghosts came."""

    tokens: int
    fields: JsonObject

    def restore(self, batch: object) -> None:
        """Take the ghosts' entries out of a ForwardBatch, or out of metadata with some of its fields."""
        for name, value in self.fields.items():
            if hasattr(batch, name):
                setattr(batch, name, value)

    def cut(self, metadata: Any) -> Any:
        """A copy of the logits processor's metadata without ghosts."""
        metadata = copy.copy(metadata)
        self.restore(metadata)
        metadata.next_token_logits_buffer = None  # made for all sequences
        return metadata


def add_ghosts(batch: ForwardBatch, ghosts: list[Ghost], runner: ModelRunner) -> Real:
    """Append `ghosts` to a ForwardBatch. Returns what it was."""
    device = batch.input_ids.device
    real = Real(len(batch.input_ids), {name: getattr(batch, name) for name in _FIELDS if hasattr(batch, name)})
    lengths = [ghost.end - ghost.start for ghost in ghosts]
    starts, ends = [ghost.start for ghost in ghosts], [ghost.end for ghost in ghosts]
    rows = [ghost.row for ghost in ghosts]

    def more(name: str, values: list[int]) -> None:
        old = getattr(batch, name, None)
        if isinstance(old, list):
            setattr(batch, name, [*old, *values])
        elif old is not None:
            setattr(batch, name, torch.cat([old, to_device(values, old.dtype, old.device)]))

    more("input_ids", [token for ghost in ghosts for token in ghost.ids])
    more("positions", [position for ghost in ghosts for position in range(ghost.start, ghost.end)])
    table = runner.req_to_token_pool.req_to_token
    slots = [table[ghost.row, ghost.start : ghost.end].to(batch.out_cache_loc.dtype) for ghost in ghosts]
    batch.out_cache_loc = torch.cat([batch.out_cache_loc, *slots])
    for name in ("req_pool_indices", "req_pool_indices_cpu"):
        more(name, rows)
    for name in ("seq_lens", "seq_lens_cpu", "orig_seq_lens"):
        more(name, ends)
    for name in ("extend_seq_lens", "extend_seq_lens_cpu", "extend_logprob_start_lens_cpu"):
        more(name, lengths)
    for name in ("extend_prefix_lens", "extend_prefix_lens_cpu"):
        more(name, starts)
    offsets = [real.tokens + sum(lengths[:i]) for i in range(len(lengths))]
    more("extend_start_loc", offsets)
    for name in ("lora_ids", "rids"):
        if getattr(batch, name, None) is not None:
            old = getattr(batch, name)
            setattr(batch, name, [*old, *(old[ghost.place] for ghost in ghosts)])
    batch.seq_lens_sum += sum(ends)
    batch.extend_num_tokens += sum(lengths)
    batch.batch_size += len(ghosts)
    _tell_tokens(batch, runner, device)
    return real


def _tell_tokens(batch: ForwardBatch, runner: ModelRunner, device: torch.device) -> None:
    """What is derived from the tokens and their slots, as each release's `ForwardBatch.init_new` does it."""
    if hasattr(batch, "kv_loc_plan"):  # 0.5.23
        runner.kv_index_translator.own_plan(batch).bind(batch, runner.kv_index_translator)
        batch._init_num_token_non_padded(device=runner.device, is_draft_worker=False)
        return
    batch.num_token_non_padded_cpu = len(batch.input_ids)
    if batch.num_token_non_padded is not None:
        batch.num_token_non_padded = to_device(len(batch.input_ids), batch.num_token_non_padded.dtype, device)
