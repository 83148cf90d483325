"""Which conversation a request belongs to, and what of it is sent."""

from __future__ import annotations

import itertools
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from leyline.backends.contract import TokenRenderer
from leyline.dialects.plain import as_message
from leyline.directives import (
    EditScript,
    Fallback,
    Message,
    Mode,
    Receipt,
    Rendered,
    WireError,
    WireRequest,
    token_script,
)
from leyline.directives.common import common_prefix
from leyline.harness.editor.account import EditorReport as WrapReport
from leyline.harness.editor.account import EditorTurn as WrapTurn
from leyline.harness.editor.account import usage_of
from leyline.harness.session.ledger import Ledger, Plan, digest
from leyline.harness.session.pins import size
from leyline.harness.session.proposals import proposals
from leyline.policies import Policy, keep_all
from leyline.policies.combinators.inner import as_policy

SESSION_HEADER = "x-session-id"
MAX_CONVERSATIONS = 256
_NAMED = "id "  # begins the name of a conversation that the harness named
_LIMITS = (Fallback.TOO_MANY_DIRECTIVES, Fallback.TOO_LARGE, Fallback.OUT_OF_RANGE)


@dataclass(frozen=True)
class WireSettings:
    """What a request to a Leyline server says beside its directives; the fields are those of `Session`."""

    seam: int = 0
    honest: bool = False
    purge: bool = False


@dataclass(frozen=True)
class Conversation:
    """What is remembered of one conversation: of its last request the prompt, the receipt and the record's place."""

    name: str
    ledger: Ledger
    model: str | None = None
    prompt: Rendered | None = None
    receipt: Receipt | None = None
    place: int | None = None


@dataclass(frozen=True)
class Request:
    """A request as it will be sent: the arguments of the call, and what to remember once it was served."""

    arguments: dict[str, Any]
    conversation: Conversation
    plan: Plan
    record: WrapTurn


class Tracker:
    """The memory of a wrapped client, shared with the clients made from it by `with_options`. Safe for threads."""

    def __init__(
        self,
        policy: str | Policy,
        mode: Mode,
        renderer: TokenRenderer | None = None,
        wire: WireSettings | None = None,
        *,
        honest: bool = False,
    ) -> None:
        self.policy = as_policy(policy, "wrap")
        self.mode, self._renderer, self._wire, self._honest = mode, renderer, wire, honest
        self._conversations: OrderedDict[str, Conversation] = OrderedDict()
        self._turns: list[WrapTurn] = []
        self._names = itertools.count(1)
        self._lock = threading.Lock()

    @property
    def last(self) -> WrapTurn | None:
        """The last request that was served."""
        return self._turns[-1] if self._turns else None

    def report(self) -> WrapReport:
        with self._lock:
            return WrapReport(tuple(self._turns))

    def warn_unedited(self, api: str) -> None:
        """Say that an API is passed through, where a policy would have had something to do there."""
        if not isinstance(self.policy, keep_all):
            warnings.warn(
                f"leyline.wrap: client.{api} is not edited by the policy {self.policy.name}; use chat.completions",
                stacklevel=4,  # past the proxy, to the harness's own line
            )

    def prepare(self, arguments: Mapping[str, Any], headers: Mapping[str, Any]) -> Request | None:
        """Edit the messages of a call; None if it carries none that can be read. Raises PolicyError."""
        extra = arguments.get("extra_body")
        extra = extra if isinstance(extra, Mapping) and "messages" in extra else None
        # The client sends what `extra_body` holds in place of the argument of that name.
        given = (arguments if extra is None else extra).get("messages")
        if not isinstance(given, Sequence) or isinstance(given, (str, bytes)):
            return None
        originals = list(given)
        history = [as_message(item) for item in originals]
        if None in history:
            return None
        messages: list[Message] = [message for message in history if message is not None]
        conversation = self._find(messages, arguments.get("model"), headers)
        turn = sum(message.get("role") == "assistant" for message in messages)
        edits = proposals(self.policy, messages, turn, self.mode, honest=self._honest)
        plan = conversation.ledger.plan(messages, edits, turn=turn)
        kept = [e.index is not None and e.message is messages[e.index] for e in plan.view]
        untouched = all(kept) and len(kept) == len(messages)
        # A list that was given stays the very same object, and so does each message that carries no edit.
        edited: Any = given
        if not untouched:
            edited = [
                originals[e.index] if same and e.index is not None else e.message
                for e, same in zip(plan.view, kept, strict=True)
            ]
        place = {"messages": edited} if extra is None else {"extra_body": {**extra, "messages": edited}}
        sent = {**arguments, **place}
        shed, unit = self._shed(messages, plan, arguments)
        prompt = self._render(plan.messages, arguments) if self._wire else None
        if prompt is not None:
            _add_wire(sent, self._wire or WireSettings(), conversation, plan, prompt)
        record = WrapTurn(conversation.name, turn, len(plan.accepted), shed, unit, broke=_broke(plan, self.policy.name))
        return Request(sent, replace(conversation, prompt=prompt), plan, record)

    def served(self, request: Request) -> int:
        """Remember a request that the server took. Returns the record's place, for `update`."""
        with self._lock:
            base, place = request.conversation, len(self._turns)
            ledger, name, now = base.ledger.copy(), base.name, self._conversations.get(base.name)
            ledger.commit(request.plan)
            overtaken = now is not None and now.ledger is not base.ledger and now.ledger.digests != ledger.digests
            if overtaken and not name.startswith(_NAMED):
                # Meanwhile another request went on from the same history, in its own way: keep the edits of both.
                name = f"#{next(self._names)}"
            # The receipt comes with the response; without one this turn's lineage is not known.
            self._conversations[name] = replace(base, name=name, ledger=ledger, receipt=None, place=place)
            self._conversations.move_to_end(name)
            while len(self._conversations) > MAX_CONVERSATIONS:
                self._conversations.popitem(last=False)
            self._turns.append(replace(request.record, conversation=name))
            return place

    def update(self, place: int, response: Any) -> None:
        """Add the usage that came with a response or a stream's chunk."""
        fields = usage_of(response)
        if not fields:
            return
        with self._lock:
            turn = self._turns[place] = replace(self._turns[place], **fields)
            known = self._conversations.get(turn.conversation)
            if known is not None and known.place == place:  # a stream may be read after the next request was served
                self._conversations[turn.conversation] = replace(known, receipt=turn.receipt)

    def _find(self, messages: Sequence[Message], model: Any, headers: Mapping[str, Any]) -> Conversation:
        """The conversation of a history: by session id, else the one whose last history it continues, else a fork."""
        # Of several spellings the last counts, which is the call's own; a value that is no text leaves the header out.
        named = {key.lower(): value for key, value in headers.items()}.get(SESSION_HEADER)
        model = model if isinstance(model, str) else None
        with self._lock:
            if isinstance(named, str):
                name = f"{_NAMED}{named}"
                return self._conversations.get(name) or Conversation(name, Ledger(self.mode), model)
            marks = [digest(message) for message in messages]
            best, shared = None, 0
            for known in reversed(self._conversations.values()):
                if known.model == model and not known.name.startswith(_NAMED):
                    common = common_prefix(known.ledger.digests, marks)
                    if common > shared:
                        best, shared = known, common
            if best is not None and shared == len(best.ledger.digests):
                return best
            name = f"#{next(self._names)}"
            return _fork(best, shared, name) if best is not None else Conversation(name, Ledger(self.mode), model)

    def _render(self, messages: Sequence[Message], arguments: Mapping[str, Any]) -> Rendered | None:
        tools = arguments.get("tools")
        tools = tools if isinstance(tools, (list, tuple)) else None
        return self._renderer.render(messages, tools) if self._renderer is not None else None

    def _shed(
        self, messages: Sequence[Message], plan: Plan, arguments: Mapping[str, Any]
    ) -> tuple[int, Literal["chars", "tokens"]]:
        if self._renderer is None:
            return sum(map(size, messages)) - sum(map(size, plan.messages)), "chars"
        if plan.messages == list(messages):
            return 0, "tokens"
        full, sent = self._render(messages, arguments), self._render(plan.messages, arguments)
        return (len(full.ids) - len(sent.ids) if full and sent else 0), "tokens"


def listed(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments with messages that can be read only once, such as a generator's, as a list."""
    given = arguments.get("messages")
    if not isinstance(given, Iterable) or isinstance(given, (Sequence, Mapping)) or hasattr(given, "model_dump"):
        return arguments
    return {**arguments, "messages": list(given)}


def _fork(known: Conversation, shared: int, name: str) -> Conversation:
    """A conversation that shares its first messages with a known one, and their edits: the server holds those."""
    ledger, prompt, receipt = known.ledger.fork(shared), known.prompt, known.receipt
    if prompt is not None:
        spans = prompt.spans[: ledger.sent]
        prompt = Rendered(prompt.ids[: spans[-1][1] if spans else 0], spans)
        if receipt is not None and receipt.approximate_from is not None:
            receipt = receipt if receipt.approximate_from < len(prompt.ids) else None  # what is shared is exact
    return replace(known, name=name, ledger=ledger, prompt=prompt, receipt=receipt)


def _add_wire(
    sent: dict[str, Any], settings: WireSettings, conversation: Conversation, plan: Plan, prompt: Rendered
) -> None:
    """Put the directives of this turn beside the messages; nothing where there is nothing to say."""
    held, receipt = conversation.prompt, conversation.receipt
    try:
        script = token_script(held, prompt, plan.edits) if held is not None else EditScript(())
        lineage = receipt.lineage if receipt is not None and not settings.honest else None
        if not script and lineage is None and not settings.honest:
            return
        wire = WireRequest.build(
            script,
            held.ids if held is not None else (),
            lineage=lineage,
            lineage_start=receipt.approximate_from if receipt is not None and lineage is not None else None,
            seam=settings.seam,
            honest=settings.honest,
            purge=settings.purge,
        )
    except WireError as error:
        if error.reason not in _LIMITS:
            raise
        return  # over the wire's limits: the edited messages are served as by any server
    body = dict(sent.get("extra_body") or {})
    body["custom_params"] = {**(body.get("custom_params") or {}), "leyline": wire.to_json()}
    if not sent.get("stream"):
        body.setdefault("return_meta_info", True)
    sent["extra_body"] = body


def _broke(plan: Plan, policy: str) -> str | None:
    """Who changed the earliest message that the server holds, and how."""
    if not plan.edits:
        return None
    edit, cause = min(zip(plan.edits, plan.causes, strict=True), key=lambda pair: pair[0].message_index)
    what = "dropped" if edit.replacement is None else "inserted" if edit.insert else "changed"
    who = {"policy": f"the policy {policy}", "harness": "the harness", "unedit": "unedit"}[cause]
    return f"message {edit.message_index} {what} by {who}"
