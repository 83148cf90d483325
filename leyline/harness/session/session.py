"""A session: one conversation with a backend, whose history a policy edits and whose edits stay.

`turn(messages)` takes the full, unedited history. The policy says what to edit, the ledger what of it is new, the
renderer gives exact tokens, and the difference to what the server holds travels as directives. A turn is remembered
only when it was served: after an error or an interrupt the session is what it was before the call.
"""

from __future__ import annotations

import copy
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from leyline.backends.contract import Backend, Held, Purged, Purges, Sampling, Turn, TurnInput, Usage
from leyline.directives import EditScript, Message, MessageEdit, Mode, Receipt, Rendered, token_edits
from leyline.harness.session.inputs import InputError, as_history, as_tools, check_settings
from leyline.harness.session.ledger import Ledger, Plan
from leyline.harness.session.proposals import proposals
from leyline.harness.session.totals import Totals
from leyline.policies import Policy
from leyline.policies.base import as_mode
from leyline.policies.combinators.inner import as_policy
from leyline.policies.reading.history import History
from leyline.policies.reading.pairing import native_calls


@dataclass(frozen=True)
class SessionTurn:
    """What a turn did.

    edits: new edits, in indices of the unedited history. script: the same change in tokens, source -> prompt.
    undeclared: messages of the last prompt (the answer is its last one, -1 what stands before the first) whose tokens
    changed though no edit says so; what stands behind the first of them was prefilled, and the receipt says why.
    input_messages, input_ids: the exact model input (ids are None where the server renders). Treat them as read-only.
    output_ids: the generated tokens, None where the server does not say.
    timings: seconds; `policy` and `render` are ours, `backend` the whole request, the rest as the backend gives them.
    """

    message: Message
    usage: Usage
    receipt: Receipt
    edits: tuple[MessageEdit, ...]
    input_messages: tuple[Message, ...]
    input_ids: tuple[int, ...] | None
    script: EditScript
    turn_index: int
    timings: Mapping[str, float]
    finish_reason: str = "stop"
    undeclared: tuple[int, ...] = ()
    output_ids: tuple[int, ...] | None = None


@dataclass(frozen=True)
class _Prepared:
    """A turn before it is sent; `copies` are the session's own messages, by uid and digest."""

    plan: Plan
    messages: tuple[Message, ...]
    prompt: Rendered | None
    script: EditScript
    undeclared: tuple[int, ...]
    copies: dict[tuple[int, str], Message]
    timings: dict[str, float]


@dataclass(frozen=True)
class _Kept:
    """All that a session remembers; replaced as a whole, so that an interrupt leaves the old or the new.

    held: what the server holds. copies, generated: the session's own messages and the model's exact tokens, by uid and
    digest.
    """

    ledger: Ledger
    held: Rendered | None = None
    copies: Mapping[tuple[int, str], Message] = field(default_factory=dict)
    generated: Mapping[tuple[int, str], tuple[int, ...]] = field(default_factory=dict)
    turns: tuple[SessionTurn, ...] = ()


class Session:
    """One conversation.

    policy: a policy or its spec, such as "truncate_older_than(n=2, max_chars=200)".
    mode: the contract of edits for which the policy names none, and of edits the harness makes to its own history.
    seam: tokens recomputed at the start of every reused run. honest: nothing approximate is reused, every edit is
    FORGET. purge: a FORGET also evicts the old branch. heal: `prewarm` prefills what was answered on approximate KV
    honestly, and the next turn drops the lineage: the latency of a splice, and a clean prefill one turn later.
    tools: OpenAI tool definitions, the same on every turn.
    Raises PolicyError for a policy or a mode that is not known, InputError for another setting that cannot be used.
    """

    def __init__(
        self,
        backend: Backend,
        policy: str | Policy = "keep_all",
        *,
        mode: Mode | str = Mode.AMORTIZE,
        seam: int = 0,
        honest: bool = False,
        purge: bool = False,
        heal: bool = False,
        tools: Sequence[Mapping[str, object]] | None = None,
        sampling: Sampling | None = None,
        session_id: str | None = None,
        tenant: str | None = None,
    ) -> None:
        self.backend = backend
        self.policy = as_policy(policy, "Session")
        check_settings("Session", seam=seam, honest=honest, purge=purge, heal=heal)
        given = as_mode(mode, "Session")
        self.mode = Mode.FORGET if honest else given
        self.seam, self.honest, self.purge, self.tenant = seam, honest, purge, tenant
        self.heal = heal
        self._healed = -1  # the turn that needs no lineage, because all before it was prefilled honestly
        self.tools = as_tools("Session", tools)
        self.sampling = sampling or Sampling()
        self.session_id = session_id or uuid.uuid4().hex
        self._kept = _Kept(Ledger(self.mode))

    @property
    def ledger(self) -> Ledger:
        return self._kept.ledger

    @property
    def turns(self) -> tuple[SessionTurn, ...]:
        """Every turn that was served, with its exact model input."""
        return self._kept.turns

    @property
    def totals(self) -> Totals:
        totals = Totals()
        for turn in self.turns:
            totals.add(turn)
        return totals

    def turn(
        self,
        messages: Sequence[Message],
        *,
        on_text: Callable[[str], None] | None = None,
        sampling: Sampling | None = None,
    ) -> SessionTurn:
        """Send the next turn; `messages` is the full, unedited history, which is not changed.

        messages: dicts; the openai client's response models are taken as well. on_text is called with each piece of
        text as it is generated. Raises InputError, PolicyError or BackendError; each leaves the session unchanged, and
        the same call may be made again.
        """
        ready = self._prepare(as_history("Session.turn", messages), turn=len(self.turns))
        request = replace(self._input(ready), sampling=sampling or self.sampling, on_text=on_text)
        started = time.perf_counter()
        answer = self.backend.chat(list(ready.messages), self.tools, request)
        seconds = time.perf_counter() - started
        result = SessionTurn(
            message=answer.message,
            usage=answer.usage,
            receipt=answer.receipt.with_undeclared(ready.undeclared),
            edits=ready.plan.accepted,
            input_messages=ready.messages,
            input_ids=ready.prompt.ids if ready.prompt else None,
            script=ready.script,
            turn_index=len(self.turns),
            timings={**ready.timings, "backend": seconds, **answer.timings},
            finish_reason=answer.finish_reason,
            undeclared=ready.undeclared,
            output_ids=answer.output_ids,
        )
        self._commit(ready, answer, result)
        return result

    def prewarm(self, messages: Sequence[Message]) -> None:
        """Send the known part of the next turn ahead, while a tool still runs.

        `messages` is the history up to and including the model's last answer. What the policy will do once the
        observation is there is worked out with an empty one in its place; nothing is remembered, and a wrong guess
        costs only the work. With `heal`, and where some of it is approximate, what the last answer stands on is
        prefilled instead.
        """
        if self.heal and self._heal():
            return
        if self.backend.renderer is None or not messages:
            return
        history = as_history("Session.prewarm", messages)
        awaited = _awaited(history[-1])
        ready = self._prepare([*history, *awaited], turn=len(self.turns))
        if ready.prompt is None:
            return
        spans = ready.prompt.spans[: len(ready.prompt.spans) - len(awaited)]
        known = Rendered(ready.prompt.ids[: spans[-1][1] if spans else 0], spans)
        cut = replace(ready, prompt=known, script=self._script(known, ready.plan)[0])
        self.backend.prewarm(replace(self._input(cut), sampling=self.sampling))

    def evict(self) -> Purged:
        """Have every replica of the server evict what this session's turns left in its cache; the next turn is then
        prefilled. Raises InputError for a backend that cannot be told so, which all but SGLang's are.
        """
        if not isinstance(self.backend, Purges):
            raise InputError(f"Session.evict: a {type(self.backend).__name__} cannot be told to evict a conversation")
        return self.backend.purge(tuple(_held(self.turns)), tenant=self.tenant)

    def _heal(self) -> bool:
        """Prefill prompt and answer of the last turn honestly, if they stand on approximate KV; else false."""
        held, last = self._kept.held, self.turns[-1].receipt if self.turns else None
        if held is None or last is None or last.approximate_from is None or self._healed == len(self.turns):
            return False
        honest = TurnInput(self.session_id, prompt=held, tenant=self.tenant, sampling=self.sampling, whole=True)
        self.backend.prewarm(honest)
        self._healed = len(self.turns)
        return True

    def unedit(self, index: int) -> bool:
        """Give the model back the original of message `index` from the next turn on; false if it carries no edit."""
        return self.ledger.unedit(index)

    def _prepare(self, messages: Sequence[Message], *, turn: int) -> _Prepared:
        started = time.perf_counter()
        messages = History.of(messages)
        edits = proposals(self.policy, messages, turn, self.mode, honest=self.honest)
        plan = self.ledger.plan(messages, edits, turn=turn)
        copies: dict[tuple[int, str], Message] = {}
        for entry in plan.view:
            key = (entry.uid, entry.digest)
            copies[key] = self._kept.copies[key] if key in self._kept.copies else copy.deepcopy(entry.message)
        edited = tuple(copies.values())
        planned = time.perf_counter()
        prompt = None
        if self.backend.renderer is not None:
            pinned = {
                place: self._kept.generated[key] for place, key in enumerate(copies) if key in self._kept.generated
            }
            prompt = self.backend.renderer.render(edited, self.tools, pinned)
        script, undeclared = self._script(prompt, plan)
        timings = {"policy": planned - started, "render": time.perf_counter() - planned}
        return _Prepared(plan, edited, prompt, script, undeclared, copies, timings)

    def _script(self, prompt: Rendered | None, plan: Plan) -> tuple[EditScript, tuple[int, ...]]:
        if self._kept.held is None or prompt is None:
            return EditScript(()), ()
        return token_edits(self._kept.held, prompt, plan.edits)

    def _input(self, ready: _Prepared) -> TurnInput:
        last = self.turns[-1].receipt if self.turns and not self.honest and self._healed != len(self.turns) else None
        return TurnInput(
            session_id=self.session_id,
            prompt=ready.prompt,
            source=self._kept.held.ids if self._kept.held is not None else None,
            script=ready.script,
            lineage=last.lineage if last else None,
            lineage_start=last.approximate_from if last else None,
            seam=self.seam,
            honest=self.honest,
            purge=self.purge,
            tenant=self.tenant,
            edits=len(ready.plan.accepted),
        )

    def _commit(self, ready: _Prepared, answer: Turn, result: SessionTurn) -> None:
        ledger, held, generated = self.ledger.copy(), None, dict(self._kept.generated)
        uid = ledger.commit(ready.plan, answer.message)
        if ready.prompt is not None:
            # What the server holds now: the prompt, whose tail opens the answer, and the tokens it generated.
            ids = ready.prompt.ids + (answer.output_ids or ())
            opened = ready.prompt.spans[-1][1] if ready.prompt.spans else 0
            held = Rendered(ids, (*ready.prompt.spans, (opened, len(ids))))
            if answer.output_ids is not None and uid is not None:
                generated[uid, ledger.digests[-1]] = answer.output_ids
        self._kept = _Kept(ledger, held, ready.copies, generated, (*self.turns, result))


def _held(turns: Sequence[SessionTurn]) -> dict[Held, None]:
    """What each turn left in a cache, once."""
    left = ((turn.receipt, (*(turn.input_ids or ()), *(turn.output_ids or ()))) for turn in turns)
    return {Held(ids, receipt.lineage, receipt.approximate_from): None for receipt, ids in left if ids}


def _awaited(last: Message) -> list[Message]:
    """Empty observations in the place of those that a tool call waits for."""
    calls = native_calls(last)
    if calls:
        return [{"role": "tool", "tool_call_id": call.get("id"), "content": ""} for call in calls]
    return [{"role": "user", "content": ""}]
