"""Puts one rank's plugin together when SGLang builds its cache."""

from __future__ import annotations

import logging
import os
import secrets
from typing import Any

import torch

from leyline.backends.sglang.plugin.cache import Controller
from leyline.backends.sglang.plugin.keys import Keyring
from leyline.backends.sglang.plugin.metrics import Metrics
from leyline.backends.sglang.plugin.move_counts import DEFAULT_LIMIT, Generations
from leyline.backends.sglang.plugin.mover import Mover
from leyline.backends.sglang.plugin.ops import TreeOps
from leyline.backends.sglang.plugin.refuse import find_rope, server_refusal
from leyline.backends.sglang.plugin.splicer import Move, Splicer

log = logging.getLogger("leyline")

SECRET_VARIABLE = "LEYLINE_SECRET"
GENERATIONS_VARIABLE = "LEYLINE_MAX_GENERATIONS"


def ensure_secret() -> None:
    """Make the key of the lineages, in the launching process, so that the ranks started from it inherit one."""
    os.environ.setdefault(SECRET_VARIABLE, secrets.token_hex(16))


def _shared_secret(group: Any) -> bytes:
    """The secret of the group's first rank: ranks on another node were not started from this process."""
    secret = os.environ.get(SECRET_VARIABLE) or secrets.token_hex(16)
    if group is not None and torch.distributed.get_world_size(group=group) > 1:
        box = [secret]
        first = torch.distributed.get_global_rank(group, 0)
        torch.distributed.broadcast_object_list(box, src=first, group=group)
        secret = box[0]
    return secret.encode()


def order_after_forward(model_runner: Any) -> Any:
    """A function that makes the current stream wait for every forward pass launched so far; nothing on a CPU."""
    stream = getattr(model_runner, "forward_stream", None)
    if torch.device(model_runner.device).type != "cuda" or stream is None:
        return lambda: None
    return lambda: torch.cuda.current_stream().wait_stream(stream)


def make_controller(context: Any, ops: TreeOps) -> Controller:
    """context: SGLang's cache build context; ops: the adapter over the cache that was just built."""
    args, params = context.server_args, context.params
    runner = context.tp_worker.model_runner
    allocator = params.token_to_kv_pool_allocator
    pool = allocator.get_kvcache()
    refusal = server_refusal(args, context, pool, runner.model)
    rope = find_rope(runner.model)
    move: Move = (
        _refused_move if refusal is not None or rope is None else Mover(pool, rope, order_after_forward(runner))
    )
    limit = int(os.environ.get(GENERATIONS_VARIABLE, DEFAULT_LIMIT))
    splicer = Splicer(
        ops,
        Keyring(_shared_secret(params.tp_cache_group)),
        move,
        Generations(allocator.size + 2 * ops.page, allocator.device, limit),
        chunked=(params.chunked_prefill_size or 0) > 0,
    )
    labels = {"model_name": str(args.served_model_name or args.model_path), "tp_rank": str(context.tp_rank)}
    metrics = Metrics(bool(args.enable_metrics) and context.tp_rank == 0, labels)
    if refusal is not None:
        log.warning("leyline: this server does not splice (%s: %s)", refusal.reason, refusal.detail)
    else:
        log.info("leyline: ready, page size %d, at most %d moves a token", ops.page, limit)
    return Controller(splicer, metrics, ops.page, context.model_config.context_len, refusal)


def _refused_move(*_: Any) -> None:
    raise RuntimeError("this server does not splice")
