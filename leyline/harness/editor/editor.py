"""The editor: a policy's edits for a harness that makes its own requests, each edit once, and then it stays."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from leyline.backends.contract import TokenRenderer
from leyline.dialects import Dialect, Item, Placed, Reading, detect, read
from leyline.directives import JsonMapping, JsonObject, MessageEdit, Mode
from leyline.harness.editor import saved
from leyline.harness.editor.account import Account, EditorReport, EditorTurn
from leyline.harness.editor.conversations import Conversation, Conversations, say_forgotten
from leyline.harness.editor.fields import WireSettings, asked, request_fields, with_fields
from leyline.harness.editor.measure import broke_by, reread_by, shed_by, size_by, undeclared_by
from leyline.harness.editor.plan import EditPlan
from leyline.harness.editor.records import Records
from leyline.harness.session.digests import digests
from leyline.harness.session.inputs import InputError, check_counts, check_settings
from leyline.harness.session.ledger import Plan
from leyline.harness.session.proposals import proposals
from leyline.policies import Policy
from leyline.policies.base import as_mode
from leyline.policies.combinators.inner import as_policy
from leyline.policies.reading.history import History
from leyline.rendering.served import ServedRenderer

MAX_CONVERSATIONS = 256
KEPT_TURNS = 1000


class Editor:
    """Edits histories by a policy, for as many conversations as come by. Safe for threads.

    policy: a policy or its spec, such as "truncate_older_than(n=2, max_chars=200)".
    mode: the contract of edits for which the policy names none, and of edits the harness makes to its own history.
    audit: say what would be edited, and edit nothing.
    renderer: renders as the server does; with it, shed text is counted in tokens.
    splice: the server is SGLang with Leyline. Plans carry directives in `request_fields`, or, without a renderer, the
        session and what the server may do with the edits that it finds itself.
    seam, honest, purge: as in `Session`.
    max_conversations: how many are remembered; the one used longest ago is forgotten, with a warning the first time.
    keep_turns: how many requests `report().turns` lists; its sums are over all of them.
    store: where conversations are kept over a restart: a mapping of names to JSON texts, such as a `shelve`.
    records: file to which each request is written as a line, for `leyline report`.
    Raises PolicyError for a policy or a mode that is not known, InputError for another setting that cannot be used.
    """

    def __init__(
        self,
        policy: str | Policy = "keep_all",
        *,
        mode: Mode | str = Mode.AMORTIZE,
        audit: bool = False,
        renderer: TokenRenderer | None = None,
        splice: bool = False,
        seam: int = 0,
        honest: bool = False,
        purge: bool = False,
        max_conversations: int = MAX_CONVERSATIONS,
        keep_turns: int = KEPT_TURNS,
        store: MutableMapping[str, str] | None = None,
        records: str | Path | None = None,
        owner: str = "Editor",
    ) -> None:
        self.policy = as_policy(policy, owner)
        check_settings(owner, seam=seam, honest=honest, purge=purge)
        if purge and not splice:
            raise InputError(
                f"{owner}: purge=True needs splice=True: no other server can be told to evict what was forgotten"
            )
        check_counts(owner, max_conversations=max_conversations, keep_turns=keep_turns)
        given = as_mode(mode, owner)
        self.mode = Mode.FORGET if honest else given
        self.audit = audit
        # Directives count in the tokens that the server's chat route gives its template.
        self._renderer = ServedRenderer(renderer) if renderer is not None and splice else renderer
        self._honest = honest
        self._wire = WireSettings(seam, honest, purge) if splice else None
        self._limit, self._store = max_conversations, store
        self._conversations = Conversations(max_conversations, self._forget)
        self._id = uuid.uuid4().hex
        about = {"policy": str(self.policy), "mode": self.mode.value, "writer": self._id}
        self._account = Account(keep_turns, Records(records, owner, **about) if records is not None else None)
        self._lock = threading.RLock()
        if store is not None:
            for text in list(store.values()):
                self._conversations.remember(saved.conversation(saved.parsed(text, "the store")))

    @property
    def last(self) -> EditorTurn | None:
        """The last request that was served."""
        with self._lock:
            return self._account.last

    def report(self) -> EditorReport:
        """What was done so far."""
        with self._lock:
            return self._account.report()

    def plan(
        self,
        history: Sequence[Item] | JsonMapping,
        *,
        session: str | None = None,
        dialect: Dialect | None = None,
        tools: Sequence[JsonMapping] | None = None,
        model: str | None = None,
        splice: bool = True,
        sent_as: Dialect | None = None,
    ) -> EditPlan:
        """What to send for a history: the full, unedited one, as the harness keeps it. It is not changed.

        history: a list of messages or items, or the body of a whole request; then `plan.body` is the body to send.
        session: the harness's name for the conversation. Without one it is known by its history alone.
        dialect: 'chat', 'responses' or 'messages'; None tells it by what stands in the history.
        tools, model: of the request, where `history` is a list; conversations of two models are two.
        splice: false where the server of this request turns out not to splice, though the editor was made for one.
        sent_as: the dialect of the request that is sent, where the caller translates it; `request_fields` go by it.
        Raises DialectError for a history that cannot be read, PolicyError for a policy that fails.
        """
        body = dict(history) if isinstance(history, Mapping) else None
        dialect = dialect or detect(body if body is not None else {"messages": history})
        reading = read(body if body is not None else {_field(dialect): history}, dialect)
        if body is not None:
            tools = body["tools"] if tools is None and isinstance(body.get("tools"), (list, tuple)) else tools
            model = body["model"] if model is None and isinstance(body.get("model"), str) else model
        messages = History(reading.history)
        marks, roles = digests(messages), [str(message.get("role")) for message in messages]
        with self._lock:
            found = self._conversations.find(marks, roles, session=session, model=model, mode=self.mode)
        edits = proposals(self.policy, messages, turn := roles.count("assistant"), self.mode, honest=self._honest)
        planned = found.ledger.plan(messages, edits, turn=turn, marks=marks)
        sent_as = (sent_as or dialect) if splice else None
        return self._made(reading, messages, dialect, body, found, planned, turn, tools, sent_as)

    async def aplan(self, history: Sequence[Item] | JsonMapping, **options: Any) -> EditPlan:
        """`plan` in a thread, so that an event loop goes on meanwhile."""
        from anyio import to_thread  # httpx brings it

        return await to_thread.run_sync(partial(self.plan, history, **options))

    def pinned(self, conversation: str | None = None) -> list[MessageEdit]:
        """Every edit in force in a conversation, in indices of its history as policies read it; of the last served
        where none is named.
        """
        return self._named(conversation).ledger.pinned()

    def unedit(self, index: int, conversation: str | None = None) -> bool:
        """Give back the original message `index` from the next request on, and leave it alone; false if it carries no
        edit. Indices are those of `plan.history`; the conversation is the last served where none is named.
        """
        with self._lock:
            known = self._named(conversation)
            ledger = known.ledger.copy()
            done = ledger.unedit(index)
            if done:
                self._conversations.change(replace(known, ledger=ledger))
                self._keep(known.name)
            return done

    def save(self, path: str | Path) -> None:
        """Write every conversation's edits to a file, which is replaced whole. `load` reads it."""
        with self._lock:
            known = [saved.record(conversation) for conversation in self._conversations]
        saved.write(Path(path), known)

    def load(self, path: str | Path) -> None:
        """Take up the conversations of a file that `save` wrote. Raises LedgerError for another file."""
        found = [saved.conversation(data) for data in saved.read(Path(path))]
        with self._lock:
            for conversation in found:
                self._conversations.remember(conversation)
                self._keep(conversation.name)

    def _named(self, name: str | None) -> Conversation:
        with self._lock:
            last = self.last
            wanted = name if name is not None else last.conversation if last is not None else None
            known = self._conversations.get(wanted) if wanted is not None else None
            if known is None:
                raise InputError(f"Editor: no conversation {wanted!r}; see the names in report().turns")
            return known

    def _made(
        self,
        reading: Reading,
        messages: History,
        dialect: Dialect,
        body: dict[str, object] | None,
        found: Conversation,
        planned: Plan,
        turn: int,
        tools: Sequence[Mapping[str, object]] | None,
        sent_as: Dialect | None,
    ) -> EditPlan:
        given: list[Item] = reading.items if isinstance(reading.items, list) else list(reading.items)
        would, fields, origins = given, JsonObject(), None
        untouched = planned.untouched
        if not untouched:
            placed = [Placed(entry.index, entry.message) for entry in planned.view]
            untouched = reading.untouched(placed)
            if not untouched:
                written = reading.write(placed)
                would, fields, origins = written.items, dict(written.fields), written.origins
        renderer = self._renderer
        prompt = renderer.render(planned.messages, tools) if renderer and self._wire and not self.audit else None
        shed = 0 if untouched else shed_by(planned, messages, renderer, tools)
        unit: Literal["chars", "tokens"] = "chars" if renderer is None else "tokens"
        broke = broke_by(planned, self.policy.name, audit=self.audit)
        changed = undeclared_by(planned, found.prompt, prompt)
        again = reread_by(planned, messages, found.ledger.pinned(), audit=self.audit)
        size = size_by(messages, shed, renderer, audit=self.audit)
        record = EditorTurn(found.name, turn, len(planned.accepted), shed, unit, broke, audit=self.audit)
        record = replace(record, undeclared=changed, reread=again, size=size, model=found.model)
        beside: dict[str, object] = {}
        if self.audit:
            fields, origins = {}, None
        else:
            beside = request_fields(
                self._wire,
                sent_as,
                planned,
                held=found.prompt,
                prompt=prompt,
                receipt=found.receipt,
                session=f"{self._id} {found.name}",
            )
        sent = given if self.audit else would
        if body is not None and sent is not given:
            body = {**body, reading.field_name: sent, **fields}
            for name in [name for name, value in fields.items() if value is None]:
                del body[name]
        return EditPlan(
            messages=sent,
            fields=fields,
            request_fields=beside,
            edits=planned.accepted,
            history=reading.history,
            dialect=dialect,
            would=would,
            record=replace(record, asked=asked(beside, body, planned)),
            conversation=found,
            ledger_plan=planned,
            prompt=prompt,
            body=with_fields(body, beside) if body is not None else None,
            _given=given,
            _origins=origins,
            _serve=self._remember,
            _update=self._count,
        )

    def _remember(self, plan: EditPlan) -> int:
        """Take in a request that the server took. Returns the record's number."""
        with self._lock:
            base, number = plan.conversation, self._account.requests
            ledger, name, now = base.ledger.copy(), base.name, self._conversations.get(base.name)
            ledger.commit(plan.ledger_plan)
            if now is not None and now.ledger is not base.ledger and now.ledger.digests != ledger.digests:
                # Meanwhile another request went on from the same history, in its own way: keep the edits of both.
                name = self._conversations.new_name(base.session)
            # The receipt comes with the response; without one this turn's lineage is not known.
            made = replace(base, name=name, ledger=ledger, prompt=plan.prompt, receipt=None, number=number)
            self._conversations.remember(made)
            self._keep(name)
            self._account.add(replace(plan.record, conversation=name))
            return number

    def _count(self, number: int, response: object) -> EditorTurn | None:
        """Add the usage that came with a response or an event of its stream; the record, None where it told nothing."""
        with self._lock:
            turn = self._account.count(number, response)
            known = self._conversations.get(turn.conversation) if turn is not None else None
            # A stream may be read after the next request was served.
            if turn is not None and known is not None and known.number == number:
                self._conversations.change(replace(known, receipt=turn.receipt))
            return turn

    def _keep(self, name: str) -> None:
        known = self._conversations.get(name)
        if self._store is not None and known is not None:
            self._store[name] = json.dumps(saved.record(known))

    def _forget(self, conversation: Conversation) -> None:
        if self._store is not None:
            self._store.pop(conversation.name, None)
        self._account.forgotten += 1
        if self._account.forgotten == 1:
            say_forgotten(conversation, self._limit)


def _field(dialect: Dialect) -> str:
    return "input" if dialect == "responses" else "messages"
