"""Puts one rank's plugin together when SGLang builds its cache."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from leyline.backends.sglang.plugin.admission import AdmissionHooks
from leyline.backends.sglang.plugin.auto import Auto, first_costs, token_bytes
from leyline.backends.sglang.plugin.cache import Controller
from leyline.backends.sglang.plugin.forward import ForwardHooks
from leyline.backends.sglang.plugin.keys import Keyring
from leyline.backends.sglang.plugin.metrics import Metrics
from leyline.backends.sglang.plugin.move_counts import Generations
from leyline.backends.sglang.plugin.mover import Mover, TorchMover
from leyline.backends.sglang.plugin.ops import TreeOps
from leyline.backends.sglang.plugin.refuse import find_rope, hole_refusal, server_refusal
from leyline.backends.sglang.plugin.rope import Rope
from leyline.backends.sglang.plugin.splicer import Splicer
from leyline.backends.sglang.settings import move_limit, mover_name

if TYPE_CHECKING:
    from sglang.srt.model_executor.model_runner import ModelRunner


log = logging.getLogger("leyline")
T = TypeVar("T")

SECRET_VARIABLE = "LEYLINE_SECRET"
_ADDER = "sglang.srt.managers.schedule_policy.PrefillAdder"


def ensure_secret() -> None:
    """Make the key of the lineages, in the launching process, so that the ranks started from it inherit one."""
    os.environ.setdefault(SECRET_VARIABLE, secrets.token_hex(16))


def _shared_secret(group: Any) -> bytes:
    """The secret of the group's first rank: ranks on another node were not started from this process."""
    return _from_first(os.environ.get(SECRET_VARIABLE) or secrets.token_hex(16), group).encode()


def _from_first(value: T, group: Any) -> T:
    """What the group's first rank gave."""
    if group is None or torch.distributed.get_world_size(group=group) == 1:
        return value
    box = [value]
    first = torch.distributed.get_global_rank(group, 0)
    torch.distributed.broadcast_object_list(box, src=first, group=group)
    return box[0]


def build(context: Any, ops: TreeOps, adapter: ModuleType) -> Controller:
    """One rank's plugin, with its hooks in place where the server splices.

    context: SGLang's cache build context; ops: the adapter over the cache that was just built; adapter: its module.
    """
    args, params = context.server_args, context.params
    runner = context.tp_worker.model_runner
    allocator = params.token_to_kv_pool_allocator
    pool = allocator.get_kvcache()
    refusal = server_refusal(args, context, pool, runner.model)
    rope = find_rope(runner.model)
    no_holes = hole_refusal(args, runner)
    limit = move_limit(os.environ)
    counts = Generations(allocator.size + 2 * ops.page, allocator.device, limit, _settle(runner))
    keyring = Keyring(_shared_secret(params.tp_cache_group))
    auto = _auto(pool, params, runner, refusal is None)
    splicer = Splicer(ops, keyring, counts, rope.positions if rope is not None else 0, no_holes, auto)
    labels = {"model_name": str(args.served_model_name or args.model_path), "tp_rank": str(context.tp_rank)}
    metrics = Metrics(bool(args.enable_metrics) and context.tp_rank == 0, labels)
    controller = Controller(splicer, metrics, ops.page, context.model_config.context_len, refusal)
    if refusal is not None or rope is None:
        log.warning("leyline: this server does not splice (%s: %s)", *(refusal or ("no", "RoPE table")))
        _install(adapter.HOOKS)
        return controller
    mover = choose_mover(pool, rope, torch.device(runner.device))
    _install(
        {
            **adapter.HOOKS,
            f"{_ADDER}.add_one_req": ("around", AdmissionHooks(adapter, controller).add_one_req),
            f"{_ADDER}.add_chunked_req": ("around", AdmissionHooks(adapter, controller).add_chunked_req),
            **ForwardHooks(adapter, controller, ops, mover, counts).targets(),
        }
    )
    log.info("leyline: ready, page size %d, at most %d moves a token", ops.page, limit)
    if no_holes is not None:
        log.warning("leyline: only deletions are spliced (%s: %s)", no_holes.reason, no_holes.detail)
    return controller


def _auto(pool: Any, params: Any, runner: Any, splices: bool) -> Auto:
    """The ranks of a group have one set of costs, which their own times may not pull apart."""
    group = params.tp_cache_group
    several = group is not None and torch.distributed.get_world_size(group=group) > 1
    costs = first_costs(token_bytes(pool) if splices else 1, params.chunked_prefill_size or 0)
    return Auto(_from_first(costs, group), runner.device, learns=not several)


def choose_mover(pool: object, rope: Rope, device: torch.device) -> Mover:
    """The fused kernel on a GPU, plain PyTorch elsewhere, or what LEYLINE_MOVER (`triton` or `torch`) says."""
    wanted = mover_name(os.environ, "triton" if device.type == "cuda" else "torch")
    if wanted == "triton":
        try:
            from leyline.backends.sglang.plugin.kernel import KernelMover

            return KernelMover(pool, rope)
        except Exception:
            log.exception("leyline: the kernel cannot be used here; moving with plain PyTorch, which is slower")
    return TorchMover(pool, rope)


def _install(hooks: dict[str, tuple[str, Callable[..., object]]]) -> None:
    """Hook into this process, which selected the plugin.

    SGLang applies the hooks of a target once, and only logs what it cannot apply. A server with some of these hooks and
    not the others would serve KV that was never computed, so all of them stand afterwards, or it does not start.
    """
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    kinds = {"after": HookType.AFTER, "around": HookType.AROUND}
    hooked = HookRegistry._patched & hooks.keys()
    for target, (when, hook) in hooks.items():
        if target not in hooked:
            HookRegistry.register(target, hook, kinds[when])
    HookRegistry.apply_hooks()
    for target in sorted(hooked):  # by another plugin
        when, hook = hooks[target]
        HookRegistry._apply_target(target, [(kinds[when], hook, None)])
    if missing := sorted(hooks.keys() - HookRegistry._patched):
        raise RuntimeError(f"leyline: SGLang could not hook into {', '.join(missing)}; see the log above")


def _settle(runner: ModelRunner) -> Callable[[], None]:
    """A function that makes the current stream wait for every forward launched so far; nothing on a CPU."""
    stream = getattr(runner, "forward_stream", None)
    if torch.device(runner.device).type != "cuda" or stream is None:
        return lambda: None
    return lambda: torch.cuda.current_stream().wait_stream(stream)
