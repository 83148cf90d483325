"""What serving a prompt costs in seconds, from a few constants of a server: the model behind AUTO and `cost_aware`."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from leyline.directives.errors import LeylineError

FORMAT = "leyline-costs/1"
LEARNING_RATE = 0.05
_MOST = 4.0
"""How far one measurement may differ from what was expected, as a factor, to count in full: a hiccup is not a trend."""


class CostsError(LeylineError, ValueError):
    """A file of costs cannot be read or written. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a server has to do beside the request.

    waiting_tokens: to prefill ahead of it. requests: others that wait or run.
    """

    waiting_tokens: int = 0
    requests: int = 0


@dataclass(frozen=True, slots=True)
class Costs:
    """The constants of one server and model, all at least 0; the defaults are of the order of one GPU of 2024.

    forward: seconds of one forward pass, however short. token: seconds for each prefilled token. pair: seconds for each
    pair of a prefilled token and a token that it attends to. hole: seconds for each run that is computed between moved
    ones, beside its tokens. move: seconds to plan and start a turn's moves. byte: seconds for each byte of KV that is
    moved (read and written once). token_bytes: KV of one token, all layers; 1 where it is not known, and `byte` is then
    of a token. queue: seconds that a request waits for each other one. chunk: tokens of one forward pass at most.
    """

    forward: float = 0.02
    token: float = 2e-5
    pair: float = 2e-10
    hole: float = 5e-4
    move: float = 1e-3
    byte: float = 5e-13
    token_bytes: int = 65536
    queue: float = 0.0
    chunk: int = 8192

    def __post_init__(self) -> None:
        for name in _SECONDS:
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 <= value < math.inf:
                raise CostsError(f"costs: {name} is {value!r}; it must be a number of seconds, at least 0")
        for name in ("token_bytes", "chunk"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise CostsError(f"costs: {name} is {getattr(self, name)!r}; it must be an int of at least 1")

    def computing(self, start: int, end: int) -> float:
        """Seconds to prefill tokens `[start, end)` behind `start` others, without the forward pass itself.

        Every token attends to itself and all before it: `(end² - start²) / 2` pairs, `end - start` of them halves.
        """
        return self.token * (end - start) + self.pair * (end * end - start * start) / 2

    def moving(self, tokens: int) -> float:
        """Seconds to move the KV of so many tokens; 0 for none."""
        return self.move + self.byte * self.token_bytes * tokens if tokens else 0.0

    def turn(self, blocks: Iterable[tuple[int, int]], moved: int = 0, load: Load | None = None) -> float:
        """Seconds to the first token of a request.

        blocks: what is computed, as `(start, end)` in tokens of the prompt, each behind moved or cached tokens. moved:
        tokens. All blocks share the forward passes, which take `chunk` tokens each, of what waits ahead first.
        """
        ahead = load or Load()
        spans = [(start, end) for start, end in blocks if start < end]
        tokens = sum(end - start for start, end in spans)
        passes = max(1, -(-(ahead.waiting_tokens + tokens) // self.chunk))
        waiting = self.queue * ahead.requests + self.token * ahead.waiting_tokens
        holes = self.hole * max(0, len(spans) - 1)
        computed = sum(self.computing(start, end) for start, end in spans)
        return waiting + self.forward * passes + holes + computed + self.moving(moved)

    def learn_prefill(self, blocks: Iterable[tuple[int, int]], seconds: float, rate: float = LEARNING_RATE) -> Costs:
        """The constants after computing `blocks`, with nothing ahead or beside, took so many seconds.

        Each constant that had a part in the expectation is scaled towards what was measured, by its part.
        """
        spans = [(start, end) for start, end in blocks if start < end]
        tokens = sum(end - start for start, end in spans)
        pairs = sum(end * end - start * start for start, end in spans) / 2
        parts = {
            "forward": self.forward * max(1, -(-tokens // self.chunk)),
            "token": self.token * tokens,
            "pair": self.pair * pairs,
            "hole": self.hole * max(0, len(spans) - 1),
        }
        return self._scaled(parts, seconds, rate)

    def learn_move(self, tokens: int, seconds: float, rate: float = LEARNING_RATE) -> Costs:
        """The constants after the KV of `tokens` was moved in so many seconds."""
        return self._scaled({"move": self.move, "byte": self.byte * self.token_bytes * tokens}, seconds, rate)

    def _scaled(self, parts: Mapping[str, float], seconds: float, rate: float) -> Costs:
        expected = sum(parts.values())
        if not expected > 0 or not 0 < seconds < math.inf:
            return self
        error = min(max(seconds / expected, 1 / _MOST), _MOST)
        return replace(self, **{k: getattr(self, k) * error ** (rate * part / expected) for k, part in parts.items()})

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Costs:
        """From a file that `save` wrote. Raises CostsError."""
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise CostsError(f"cannot read the costs {path}: {error.strerror or error}") from None
        except ValueError as error:
            raise CostsError(f"the costs {path} are not JSON: {str(error)[:100]}") from None
        found = data.get("format") if isinstance(data, dict) else None
        if found != FORMAT or not isinstance(data.get("costs"), dict):
            raise CostsError(f"{path} holds no costs of this release: its format is {found!r}, not {FORMAT!r}")
        known = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in data["costs"].items() if name in known})

    def save(self, path: str | os.PathLike[str], **evidence: object) -> None:
        """Write the constants, and beside them what they were measured from. Raises CostsError."""
        data = {"format": FORMAT, "costs": asdict(self), **evidence}
        try:
            Path(path).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise CostsError(f"cannot write the costs {path}: {error.strerror or error}") from None


_SECONDS = ("forward", "token", "pair", "hole", "move", "byte", "queue")
