"""Responses that a later request may go on from by their id, for upstreams that keep none. In memory, and bounded."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass

from leyline.dialects import DialectError
from leyline.directives import JsonMapping, JsonObject

MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class _Turn:
    """What one request added to its conversation: JSON of its input and of the items of its answer."""

    previous: str | None
    text: bytes


class KeptResponses:
    """Inputs and outputs by the id of the response, those of each tenant apart. For one event loop.

    Each holds what its turn added, so that a conversation is kept once. The least recently used goes first.
    """

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most, self._size = most, 0
        self._turns: OrderedDict[tuple[str, str], _Turn] = OrderedDict()

    def __len__(self) -> int:
        return len(self._turns)

    def followed(self, body: JsonMapping, tenant: str) -> JsonObject:
        """The body with the whole history in it. Raises DialectError for an id that is not known, or not any more."""
        named = body.get("previous_response_id")
        if named is None:
            return dict(body)
        history: list[object] = []
        turns = self._chain(str(named), tenant)
        for turn in reversed(turns):
            history += json.loads(turn.text)
        made = {**body, "input": [*history, *_items(body)]}
        del made["previous_response_id"]
        return made

    def keep(self, body: JsonMapping, tenant: str, name: str, output: list[JsonObject]) -> None:
        """Keep what a request added: `body` is as the caller sent it."""
        if body.get("store") is False:
            return
        previous = body.get("previous_response_id")
        text = json.dumps([*_items(body), *output], separators=(",", ":")).encode()
        self._turns[tenant, name] = _Turn(previous if isinstance(previous, str) else None, text)
        self._size += len(text)
        while self._size > self._most:
            self._size -= len(self._turns.popitem(last=False)[1].text)

    def _chain(self, name: str, tenant: str) -> list[_Turn]:
        turns: list[_Turn] = []
        at: str | None = name
        while at is not None:
            turn = self._turns.get((tenant, at))
            if turn is None:
                raise DialectError(
                    f"previous_response_id {name!r} is not known here, or not any more; send the whole input instead "
                    "(store=False and the items of each response)"
                )
            turns.append(turn)
            self._turns.move_to_end((tenant, at))
            at = turn.previous
        return turns


def _items(body: JsonMapping) -> list[object]:
    given = body.get("input")
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    return list(given) if isinstance(given, list) else []
