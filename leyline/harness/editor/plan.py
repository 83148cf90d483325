"""One planned request: what to send, and what to remember once the server took it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from leyline.backends.http.affinity import affinity_headers
from leyline.dialects import Dialect, Item
from leyline.directives import JsonMapping, JsonObject, Message, MessageEdit, Rendered
from leyline.harness.editor.account import EditorTurn
from leyline.harness.editor.conversations import Conversation
from leyline.harness.session.ledger import Plan


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a message of the edited history came from. index: its place in the history that was given, None for a
    message that the policy put in. edited: whether it differs from what stood there.
    """

    index: int | None
    edited: bool


@dataclass
class EditPlan:
    """A request as it should be sent. Nothing is remembered until `served`.

    messages: the edited history, in the dialect of the one that was given; that very list where nothing is edited.
    fields: other fields of the request that an edit changed, such as `system`; None removes one.
    request_fields: what to send beside the messages, for a server that splices; empty for any other. request_headers:
        what keeps the conversation on one replica of several.
    edits: new edits of the policy, in indices of `history`. history: the given one, as policies read it.
    would: in audit mode, what `messages` would have been.
    turn: once it was served with a response, the record of it: usage, receipt, what broke the prefix.
    """

    messages: list[Item]
    fields: JsonMapping
    request_fields: JsonObject
    edits: tuple[MessageEdit, ...]
    history: list[Message]
    dialect: Dialect
    would: list[Item]
    record: EditorTurn
    conversation: Conversation
    ledger_plan: Plan
    prompt: Rendered | None
    body: JsonObject | None
    _given: Sequence[Item] = field(repr=False)
    _origins: Sequence[int | None] | None = field(repr=False)
    _serve: Callable[[EditPlan], int] = field(repr=False)
    _update: Callable[[int, object], EditorTurn | None] = field(repr=False)
    turn: EditorTurn | None = None
    _number: int | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def view(self) -> tuple[Origin, ...]:
        """For each of `messages`, where it came from."""
        if self._origins is None:
            return tuple(Origin(index, False) for index in range(len(self.messages)))
        pairs = zip(self.messages, self._origins, strict=True)
        return tuple(Origin(k, k is None or item is not self._given[k]) for item, k in pairs)

    @property
    def edited(self) -> bool:
        """Whether what is sent differs from what was given."""
        return bool(self.fields or self.request_fields) or self._origins is not None

    @property
    def request_headers(self) -> dict[str, str]:
        """Headers by which the known routers keep the conversation on the replica that holds its KV."""
        return self.headers_beside(())

    def headers_beside(self, present: Iterable[str], tenant: str | None = None) -> dict[str, str]:
        """The same without those that the caller has set. tenant: where None, the `extra_key` or the `cache_salt` of
        the request's body.
        """
        if tenant is None and self.body is not None:
            named = (self.body.get(name) for name in ("extra_key", "cache_salt"))
            tenant = next((name for name in named if isinstance(name, str)), None)
        return affinity_headers(self.conversation.affinity, tenant, present=present)

    def served(self, response: object = None) -> None:
        """Remember that the server took the request, and the usage and receipt of its response.

        response: the response, or an event of its stream, parsed or as a client library's model; None where there is
        none to read. Call it as soon as the server has answered with success, and again for what comes later.
        """
        with self._lock:
            if self._number is None:
                self._number = self._serve(self)
        if response is not None:
            self.turn = self._update(self._number, response) or self.turn
