"""What a splicing radix cache does beside SGLang's own: the part that every version's adapter shares.

No exception leaves this module into the scheduler: what fails here is served by honest prefill, with a reason.
"""

from __future__ import annotations

import logging
import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from leyline.backends.memory import Held, SessionMemory
from leyline.backends.sglang.plugin.keys import Mark, Space
from leyline.backends.sglang.plugin.metrics import Metrics
from leyline.backends.sglang.plugin.ops import Hit
from leyline.backends.sglang.plugin.receipts import make_receipt
from leyline.backends.sglang.plugin.runs import FIELD, Plan, Refusal, make_plan, native_hints, wire_value
from leyline.backends.sglang.plugin.splicer import Splicer
from leyline.backends.sglang.plugin.staging import Room, Staged
from leyline.directives import Fallback

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import Req


log = logging.getLogger("leyline")

CHECK_FIELD = "leyline_check"
DEBUG_VARIABLE = "LEYLINE_DEBUG"
PLAN = "_leyline_plan"
"""On a request with a leyline value: its plan."""
STAGED = "_leyline_staged"
"""On a request, from its admission until its batch is prepared."""


@dataclass
class Controller:
    """One rank's plugin: reads plans from requests, grows the tree, writes receipts.

    refusal: why this server cannot splice, or None. max_tokens: the model's context.
    """

    splicer: Splicer
    metrics: Metrics
    page: int
    max_tokens: int
    refusal: Refusal | None = None
    memory: SessionMemory = field(default_factory=SessionMemory)
    writing: tuple[Mark, ...] = ()

    def plan(self, req: Req, space: Space) -> Plan | None:
        """The request's plan, made on first sight; None for a request without a leyline value."""
        known = getattr(req, PLAN, None)
        if known is not None:
            return known or None
        plan: Plan | None = None
        try:
            value = wire_value(getattr(req.sampling_params, "custom_params", None))
            if value is None:
                value = native_hints(getattr(req, "kv_hints", None))
            if value is not None:
                plan = make_plan(
                    value,
                    req.origin_input_ids,
                    space,
                    self.splicer.keyring,
                    page=self.page,
                    max_tokens=self.max_tokens,
                    find=partial(self.memory.find, _tenant(space)),
                )
                refusal = self.refusal or _request_refusal(req)
                if refusal is not None:
                    self._refuse(plan, refusal)
        except Exception:
            log.exception("reading a request failed")
            plan = Plan()
            plan.refuse(Fallback.INTERNAL_ERROR, "reading the request failed; see the server's log")
        setattr(req, PLAN, plan or False)
        return plan

    @staticmethod
    def _refuse(plan: Plan, refusal: Refusal) -> None:
        # A purge is refused too: it takes leaves out of the tree, which other caches may hold on to.
        asked = bool(plan.runs or plan.short or plan.marks or plan.donor_marks or plan.purge_from is not None)
        plan.runs, plan.short, plan.marks, plan.donor_marks, plan.purge_from = (), (), (), (), None
        if asked:
            plan.refuse(*refusal)

    def admit(self, req: object, plan: Plan, ids: array[int], limit: int, space: Space) -> array[int]:
        """The key to match for a request that is about to be scheduled; grows the tree first."""
        try:
            key = self.splicer.admit(plan, ids, limit, space)
        except Exception:
            log.exception("splicing failed; the request is served honestly")
            plan.marks, plan.splices, plan.kept = (), [], []
            plan.give_up(Fallback.INTERNAL_ERROR, "splicing failed; see the server's log")
            key = ids
        self.report(req, plan, space)
        return key

    def stage(self, req: Req, own: Hit | None, space: Space, room: Room) -> Staged | None:
        """Slots for what the request's next forward moves and computes beside its tail; see `Splicer.stage`.

        own: what the request holds in the tree, or None where its last chunk is not whole in it.
        """
        plan: Plan = getattr(req, PLAN)
        donor, plan.donor = plan.donor, None  # the tree may change before the request is seen again
        if own is None or own.length % self.page or plan.closed or not plan.runs:
            return None
        said, choice, staged = plan.fallback, plan.choice, None
        try:
            ids = req.full_untruncated_fill_ids
            staged = self.splicer.stage(plan, ids, own, donor, req._compute_max_prefix_len(len(ids)), space, room)
        except Exception:
            log.exception("splicing failed; the request is served honestly")
            plan.give_up(Fallback.INTERNAL_ERROR, "splicing failed; see the server's log")
        if plan.fallback is not said or plan.choice is not choice:
            self.report(req, plan, space)
        return staged

    def commit(self, req: Req, staged: Staged, space: Space) -> None:
        """The request was admitted with what is staged: it is on its way to the next forward."""
        plan: Plan = getattr(req, PLAN)
        self.splicer.commit(plan, req.full_untruncated_fill_ids, staged)
        setattr(req, STAGED, staged)
        self.report(req, plan, space)

    def crowded_out(self, req: object, space: Space) -> None:
        """The pool had room for the request, but not for its donor beside it."""
        plan: Plan = getattr(req, PLAN)
        plan.refuse(Fallback.NO_SLOTS, "the pool has no room for the request beside the KV that it is moved from")
        self.report(req, plan, space)

    def unmoved(self, req: object, staged: Staged, space: Space) -> None:
        """The move of an admitted request failed: all that was staged is computed in its forward."""
        plan: Plan = getattr(req, PLAN)
        moved = {(move.start, move.end) for move in staged.moves}
        plan.splices = [splice for splice in plan.splices if (splice.start, splice.end) not in moved]
        plan.give_up(Fallback.INTERNAL_ERROR, f"moving the tokens {staged.start} to {staged.end} failed")
        self.refusal = self.refusal or Refusal(Fallback.INTERNAL_ERROR, "a move failed; see the server's log")
        self.report(req, plan, space)

    def report(self, req: Req, plan: Plan, space: Space) -> None:
        """Attach the receipt. It describes the prefill that gave the first token, so it is final from then on."""
        if req.output_ids:
            return
        try:
            receipt = make_receipt(plan, len(req.origin_input_ids), self.splicer.keyring, space)
            info = dict(req.customized_info or {})
            info[FIELD] = [receipt.to_dict()]
            req.customized_info = info
        except Exception:
            log.exception("writing a receipt failed")

    def first_token(self, req: Req, plan: Plan) -> None:
        """Note in the receipt how long AUTO's choice took, once the prefill's KV is written and its token is there."""
        if not req.output_ids or not self.splicer.auto.took(plan):
            return
        receipt = (req.customized_info or {}).get(FIELD)
        if receipt and plan.choice is not None:
            receipt[0]["choice"] = plan.choice.to_dict()

    def finish(self, req: Req, plan: Plan, space: Space) -> None:
        """Count a finished request, once, and remember what its session holds now."""
        if plan.reported:
            return
        plan.reported = True
        try:
            if plan.session is not None and plan.found is not None and not _aborted(req):
                ids = array("q", req.origin_input_ids)
                ids.extend(req.output_ids)
                start = plan.marks[0].position if plan.marks else None
                lineage = self.splicer.keyring.seal(plan.marks, space) if plan.marks else None
                held = Held(ids, lineage, start)
                self.memory.remember(_tenant(space), plan.session, held, plan.found.continued)
            receipt = (req.customized_info or {}).get(FIELD)
            if receipt:
                self.metrics.count(receipt[0])
        except Exception:  # such as an accounting that was asked for after the first token, in the receipt's place
            log.exception("counting a request failed")

    @contextmanager
    def writes(self, plan: Plan | None) -> Iterator[None]:
        """While a request's KV goes into the tree: keys carry its marks."""
        previous, self.writing = self.writing, plan.marks if plan is not None else ()
        try:
            yield
        finally:
            self.writing = previous


def _tenant(space: Space) -> str:
    return repr((space.extra_key, space.cache_salt))


def _aborted(req: Req) -> bool:
    """Whether the request ended before its answer did."""
    return type(req.finished_reason).__name__ == "FINISH_ABORT"


def wants_check(req: Req) -> bool:
    """Whether a request asks for the accounting of the pool (only with LEYLINE_DEBUG=1)."""
    if os.environ.get(DEBUG_VARIABLE) != "1":
        return False
    params = getattr(req.sampling_params, "custom_params", None)
    return isinstance(params, dict) and bool(params.get(CHECK_FIELD))


def _request_refusal(req: object) -> Refusal | None:
    """What a single request can use that excludes splicing."""
    features = {
        "a session": getattr(req, "session", None),
        "multimodal input": getattr(req, "multimodal_inputs", None),
        "input embeddings": getattr(req, "input_embeds", None),
        "positional embedding overrides": getattr(req, "positional_embed_overrides", None),
        "beam search": getattr(req, "beam_group", None),
    }
    used = [name for name, value in features.items() if value is not None]
    return Refusal(Fallback.UNSUPPORTED_FEATURE, f"the request uses {used[0]}") if used else None
