"""The server finds the edits of a session that it remembers, and goes on as if its client had told them."""

from __future__ import annotations

from array import array
from types import SimpleNamespace
from typing import Any

from splice_rig import RING, SPACE, Rig

from leyline.backends.sglang.plugin.cache import Controller
from leyline.backends.sglang.plugin.keys import Space
from leyline.backends.sglang.plugin.metrics import Metrics
from leyline.directives import Directive, EditScript, Fallback, Mode, Receipt, WireRequest

FIRST = list(range(100, 180))
EDITED = [*FIRST[:20], 7, 8, *FIRST[30:], 300, 301, 302]


class FINISH_ABORT:  # noqa: N801 SGLang's name
    pass


class Server:
    """A controller that serves requests one after the other."""

    def __init__(self) -> None:
        self.rig = Rig()
        self.controller = Controller(self.rig.splicer, Metrics(False), 1, 4096)

    def ask(
        self, prompt: list[int], wire: WireRequest | None, *, answer: int = 3, space: Space = SPACE, how: Any = None
    ) -> Receipt | None:
        ids = array("q", prompt)
        params = SimpleNamespace(custom_params={"leyline": wire.to_json()} if wire is not None else None)
        req = SimpleNamespace(
            origin_input_ids=ids, output_ids=[], customized_info=None, sampling_params=params, finished_reason=how
        )
        plan = self.controller.plan(req, space)
        if plan is None:
            self.rig.tree.compute(ids, len(ids))
            return None
        receipt = self.rig.finish(plan, ids)
        req.output_ids = list(range(900, 900 + answer))
        self.controller.finish(req, plan, space)
        return receipt


def request(allow: str | None = "amortize", **settings: Any) -> WireRequest:
    return WireRequest(EditScript(), session="s", allow=Mode(allow) if allow else None, **settings)


def test_what_is_found_is_what_a_client_would_have_told() -> None:
    server = Server()
    opened = server.ask(FIRST, request())
    assert opened is not None
    assert (opened.held, opened.found, opened.fallback) == (0, (), None)
    receipt = server.ask(EDITED, request())
    assert receipt is not None
    assert receipt.held == len(FIRST) + 3
    first = receipt.found[0]
    assert (first.start, first.end, first.inserted) == (20, 30, 2)
    assert receipt.fallback is None
    assert (receipt.prefix_tokens, receipt.spliced_tokens) == (20, 50)
    assert receipt.approximate_from == 22
    # The next turn appends: nothing is edited, and the lineage that was remembered hits what was spliced.
    following = server.ask([*EDITED, 900, 901, 902, 5], request())
    assert following is not None
    assert following.found == ()
    assert following.lineage == receipt.lineage
    assert following.prefix_tokens == len(EDITED)


def test_a_forget_reuses_nothing_behind_the_first_difference() -> None:
    server = Server()
    server.ask(FIRST, request("forget"))
    receipt = server.ask(EDITED, request("forget"))
    assert receipt is not None
    assert receipt.found
    assert (receipt.prefix_tokens, receipt.spliced_tokens, receipt.approximate_from) == (20, 0, None)


def test_nothing_is_remembered_across_tenants_aborts_and_flushes_or_unasked() -> None:
    server = Server()
    server.ask(FIRST, request(), space=Space("a"))
    other = server.ask(EDITED, request(), space=Space("b"))
    assert other is not None
    assert (other.held, other.spliced_tokens) == (0, 0)
    plain = server.ask(EDITED, WireRequest(EditScript(), honest=True), space=Space("a"))
    assert plain is not None
    assert plain.held is None
    server = Server()
    server.ask(FIRST, request(), how=FINISH_ABORT())
    aborted = server.ask(EDITED, request())
    assert aborted is not None
    assert aborted.held == 0
    server.controller.memory.clear()
    flushed = server.ask(EDITED, request())
    assert flushed is not None
    assert flushed.held == 0


def test_told_edits_of_a_session_are_remembered_too() -> None:
    server = Server()
    server.ask(FIRST, request(None))
    receipt = server.ask(EDITED, request())
    assert receipt is not None
    assert receipt.held == len(FIRST) + 3
    assert receipt.spliced_tokens == 50


def test_a_memory_that_is_wrong_costs_a_hit_and_no_answer() -> None:
    """The cache lost what the session remembers."""
    server = Server()
    server.ask(FIRST, request())
    server.rig.tree.evict((FIRST[0],))
    receipt = server.ask(EDITED, request())
    assert receipt is not None
    assert receipt.found
    assert receipt.fallback is Fallback.SOURCE_MISMATCH
    assert receipt.spliced_tokens == 0
    assert receipt.approximate_from is None
    assert RING is server.rig.splicer.keyring


def envelope(*actions: dict[str, Any]) -> SimpleNamespace:
    """As SGLang hands it to a request: structs, not mappings."""
    return SimpleNamespace(protocol_version="1.0", message_id="m", actions=[SimpleNamespace(**a) for a in actions])


def test_native_kv_hints_are_read_and_other_actions_left_alone() -> None:
    server = Server()
    server.ask(FIRST, None)
    script = EditScript((Directive(20, 30, (7, 8)),))
    wire = WireRequest.build(script, FIRST)
    (edit,) = wire.to_kv_hints()["actions"]
    other = {"action_id": "p", "action_type": "prefetch", "action_version": "3", "payload": {"to": "host"}}

    def plan(hints: Any, custom: Any = None) -> Any:
        params = SimpleNamespace(custom_params=custom)
        ids = array("q", script.apply(FIRST))
        req = SimpleNamespace(origin_input_ids=ids, output_ids=[], customized_info=None, sampling_params=params)
        req.kv_hints = hints
        return server.controller.plan(req, SPACE)

    found = plan(envelope(other, edit))
    assert (found.script, found.fallback) == (script, None)
    assert plan(envelope(other)) is None
    assert plan(envelope()) is None
    assert plan(None) is None
    assert plan(envelope(edit, edit)).fallback is Fallback.MALFORMED
    assert plan(envelope({**edit, "payload": 3})).fallback is Fallback.MALFORMED
    told = WireRequest(EditScript(), lineage="own").to_json()
    assert not plan(envelope(edit), {"leyline": told}).script, "what custom_params says comes first"
