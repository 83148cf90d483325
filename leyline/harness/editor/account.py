"""What an editor did, request by request: the cost of the prompt, the edits, and what broke the prefix."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Literal

from leyline.directives import Receipt
from leyline.directives.counts import count
from leyline.harness.editor.records import Records
from leyline.harness.editor.told import unacknowledged, usage_of

log = logging.getLogger("leyline.editor")


@dataclass(frozen=True)
class EditorTurn:
    """One request.

    conversation, turn: which conversation, and how many answers it held. edits: new ones of the policy.
    shed: what the edits in force take off this prompt, in `unit`s (tokens where a renderer was given).
    prompt_tokens, cached_tokens, completion_tokens: from the server's usage block, None where it sent none;
    prompt_tokens includes cached_tokens. broke: what changed the prefix that the server holds, None if nothing did.
    receipt: what a Leyline server says it did, or the same drawn from the usage block.
    audit: nothing was edited; edits and shed say what would have been.
    undeclared: messages of the last prompt that render otherwise though nobody edited them; the receipt says so too.
    asked: edits that the server was told of beside the messages, or None where it was told nothing. A receipt has to
        acknowledge it: where none comes, the one that is drawn from the usage block says what was lost on the way.
    reread: files that the model reads again after an edit took their text away: the policy may cut too much.
    size: characters of the messages that were sent; 0 where tokens are counted. model: of the request, if it is known.
    """

    conversation: str
    turn: int
    edits: int
    shed: int
    unit: Literal["chars", "tokens"]
    broke: str | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    receipt: Receipt | None = None
    audit: bool = False
    undeclared: tuple[int, ...] = ()
    asked: int | None = None
    reread: tuple[str, ...] = ()
    size: int = 0
    model: str | None = None

    def __post_init__(self) -> None:
        if self.receipt is not None:
            object.__setattr__(self, "receipt", self.receipt.with_undeclared(self.undeclared))

    @property
    def spliced_tokens(self) -> int:
        """Tokens that a Leyline server moved instead of computing them; they are among `cached_tokens`."""
        return self.receipt.spliced_tokens if self.receipt is not None else 0

    @property
    def uncached_tokens(self) -> int | None:
        """Tokens of the prompt that the server computed; None where it told none."""
        return None if self.prompt_tokens is None else self.prompt_tokens - (self.cached_tokens or 0)

    def row(self) -> str:
        tokens = "-" if self.prompt_tokens is None else f"{self.cached_tokens}/{self.prompt_tokens}"
        again = f"read again after an edit: {', '.join(self.reread)}" if self.reread else ""
        why = "; ".join(part for part in (self.broke, again) if part)
        return f"{self.turn:>4}  {self.edits:>5}  {self.shed:>8}  {tokens:>15}  {why}".rstrip()


@dataclass
class Sums:
    """Sums over requests, in tokens where nothing else is said. counted: requests with a usage block."""

    requests: int = 0
    counted: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    spliced_tokens: int = 0
    edits: int = 0
    shed: int = 0
    reread: int = 0
    broke: Counter[str] = field(default_factory=Counter)

    def add(self, turn: EditorTurn, times: int = 1) -> None:
        """Count a request; `times=-1` takes it out again."""
        self.requests += times
        self.counted += times * (turn.prompt_tokens is not None)
        self.prompt_tokens += times * (turn.prompt_tokens or 0)
        self.cached_tokens += times * (turn.cached_tokens or 0)
        self.spliced_tokens += times * turn.spliced_tokens
        self.edits += times * turn.edits
        self.shed += times * turn.shed
        self.reread += times * len(turn.reread)
        if turn.broke is not None:
            self.broke[turn.broke.rpartition(" by ")[2]] += times


@dataclass(frozen=True)
class EditorReport:
    """All requests so far. Token sums leave out requests without a usage block; `counted` says how many had one.

    turns: the last requests; the sums are over all of them. forgotten: conversations given up for lack of room.
    """

    turns: tuple[EditorTurn, ...]
    sums: Sums = field(default_factory=Sums)
    forgotten: int = 0

    def __post_init__(self) -> None:
        if not self.sums.requests:
            for turn in self.turns:
                self.sums.add(turn)

    @property
    def requests(self) -> int:
        return self.sums.requests

    @property
    def counted(self) -> int:
        return self.sums.counted

    @property
    def prompt_tokens(self) -> int:
        return self.sums.prompt_tokens

    @property
    def cached_tokens(self) -> int:
        return self.sums.cached_tokens

    @property
    def spliced_tokens(self) -> int:
        return self.sums.spliced_tokens

    @property
    def uncached_tokens(self) -> int:
        return self.prompt_tokens - self.cached_tokens

    @property
    def edits(self) -> int:
        return self.sums.edits

    @property
    def shed(self) -> int:
        """What all prompts together did not carry, in the turns' unit."""
        return self.sums.shed

    @property
    def reread(self) -> int:
        """How often a file was read again after an edit took its text away."""
        return self.sums.reread

    @property
    def broke(self) -> dict[str, int]:
        """How many requests broke the prefix that the server held, by who did: a policy, the harness or unedit."""
        return dict(self.sums.broke)

    @property
    def hit_rate(self) -> float | None:
        """cached / prompt tokens; None before the server has reported any."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else None

    def __str__(self) -> str:
        unit = self.turns[0].unit if self.turns else "chars"
        would = ", in audit mode: nothing was edited" if self.turns and self.turns[-1].audit else ""
        lines = [f"turn  edits  shed {unit[:3]}.   cached/prompt  what broke the prefix{would}"]
        earlier = self.requests - len(self.turns)
        if earlier:
            lines.append(f"{count(earlier, 'earlier request')} left out of the list, counted below")
        conversation = None
        for turn in self.turns:
            if turn.conversation != conversation:
                conversation = turn.conversation
                lines.append(f"conversation {conversation}")
            lines.append(turn.row())
        rate = (
            "no usage block"
            if self.hit_rate is None
            else f"hit rate {self.hit_rate:.1%} of {self.prompt_tokens} tokens"
        )
        lines.append(
            f"{count(self.requests, 'request')} ({self.counted} with usage), {count(self.edits, 'edit')}, {rate}"
        )
        if self.broke:
            lines.append(f"prefix broken: {', '.join(f'{who} {times}' for who, times in self.broke.items())}")
        if self.reread:
            lines.append(f"{count(self.reread, 'file')} read again after an edit: the policy may cut too much")
        if self.forgotten:
            lines.append(f"{count(self.forgotten, 'conversation')} forgotten; raise max_conversations to keep more")
        return "\n".join(lines)


class Account:
    """The record of every request: the last `keep` of them, and sums over all. Not safe for threads."""

    def __init__(self, keep: int, records: Records | None = None) -> None:
        self._keep, self._records = keep, records
        self._turns: dict[int, EditorTurn] = {}
        self._acknowledged: set[int] = set()
        self._sums = Sums()
        self.requests = 0
        self.forgotten = 0

    @property
    def last(self) -> EditorTurn | None:
        return self._turns[self.requests - 1] if self._turns else None

    def report(self) -> EditorReport:
        sums = replace(self._sums, broke=+self._sums.broke)
        return EditorReport(tuple(self._turns.values()), sums, self.forgotten)

    def add(self, turn: EditorTurn) -> None:
        """Take in a request; its number is `requests` as it was before."""
        if turn.reread and not self._sums.reread:
            log.warning(
                "%s is read again after an edit took its text away: the policy may cut too much (said once; report() "
                "counts them)",
                turn.reread[0],
            )
        self._turns[self.requests] = turn
        self._sums.add(turn)
        self._write(self.requests, turn)
        self.requests += 1
        while len(self._turns) > self._keep:
            self._acknowledged.discard(number := next(iter(self._turns)))
            del self._turns[number]

    def count(self, number: int, response: object) -> EditorTurn | None:
        """Add what a response, or an event of its stream, tells to the record of its request, which is returned; None
        where it tells nothing or the record is no longer kept.
        """
        fields, told = usage_of(response)
        turn = self._turns.get(number)
        if not fields or turn is None:
            return None
        if told:
            self._acknowledged.add(number)
        elif "receipt" in fields and number in self._acknowledged:
            fields = {name: value for name, value in fields.items() if name != "receipt"}
        elif "receipt" in fields and turn.asked is not None:
            fields = {**fields, "receipt": unacknowledged(fields["receipt"], response, turn.asked)}
        if not told and (turn.prompt_tokens or 0) > fields.get("prompt_tokens", 0):
            # Of a stream's events some tell the answer only, with no prompt or one of 0 tokens.
            fields = {name: value for name, value in fields.items() if name == "completion_tokens"}
        self._sums.add(turn, -1)
        turn = self._turns[number] = replace(turn, **fields)
        self._sums.add(turn)
        self._write(number, turn)
        return turn

    def _write(self, number: int, turn: EditorTurn) -> None:
        if self._records is not None:
            self._records.write(number, turn)
