"""The contract between a session and whatever serves the model.

A backend is given the exact model input of a turn and what changed since the last one; it answers with a message, the
usage and a receipt. It never raises for a directive it cannot honour: it prefills honestly and the receipt says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from leyline.directives import BackendError as BackendError
from leyline.directives import EditScript, Message, Mode, Receipt, Rendered
from leyline.rendering.renderer import TokenRenderer as TokenRenderer


class ContextOverflowError(BackendError):
    """The prompt and the requested completion do not fit into the model's context."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do.

    tokens: whether it takes exact token ids (then it has a renderer).
    reason: why it cannot splice, or None.
    device: the accelerator it computes on in this process, such as `NVIDIA H100`; None for a CPU or a server.
    """

    name: str
    model: str
    splice: bool
    tokens: bool
    max_context: int | None = None
    reason: str | None = None
    device: str | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """Decoding settings; temperature 0 is greedy."""

    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one turn. `prompt_tokens` includes `cached_tokens` (the OpenAI convention)."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class TurnInput:
    """What the session asks of a turn, beside messages and tools.

    prompt: the exact token ids to prefill (with one span a message), or None when the server renders.
    source: what the server holds of this session (last prompt and generated tokens), or None on the first turn.
    script: source -> prompt edits, in token coordinates of `source`.
    lineage: the lineage named by the last receipt of this session; lineage_start its `approximate_from`.
    allow: the backend finds the edits itself, in what it remembers for `session_id`, and treats them in this mode; then
        `source`, `script` and `lineage_start` are left out. None: only the script.
    edits: new message edits of this turn, for servers that render: their receipt counts them as directives.
    whole: a prewarm makes the KV of the whole prompt, not of its whole pages only.
    """

    session_id: str
    prompt: Rendered | None = None
    source: tuple[int, ...] | None = None
    script: EditScript = field(default_factory=lambda: EditScript(()))
    lineage: str | None = None
    lineage_start: int | None = None
    seam: int = 0
    honest: bool = False
    purge: bool = False
    tenant: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    on_text: Callable[[str], None] | None = None
    edits: int = 0
    allow: Mode | None = None
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Turn:
    """A backend's answer.

    output_ids: the generated tokens exactly as cached, without the stop token; None when the server does not say.
    timings: seconds by phase (`prefill`, `decode`, `splice`, `ttft`), as far as known.
    """

    message: Message
    usage: Usage
    receipt: Receipt
    output_ids: tuple[int, ...] | None = None
    finish_reason: str = "stop"
    timings: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Held:
    """A sequence that a server may hold: token ids, and the lineage of its approximate part."""

    ids: tuple[int, ...]
    lineage: str | None = None
    lineage_start: int | None = None


@dataclass(frozen=True, slots=True)
class Purged:
    """What a purge reached. tokens: evicted, by a server's address. failed: why it evicted nothing, likewise."""

    tokens: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Purges(Protocol):
    """A backend that can be told to evict what it holds of a conversation."""

    def purge(self, sequences: Sequence[Held], *, tenant: str | None = None) -> Purged: ...


@runtime_checkable
class Backend(Protocol):
    """Serves one model. `renderer` is None for servers that render by themselves."""

    @property
    def renderer(self) -> TokenRenderer | None: ...

    def capabilities(self) -> Capabilities: ...

    def chat(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, object]] | None, session: TurnInput
    ) -> Turn: ...

    def prewarm(self, session: TurnInput) -> None:
        """Prefill `session.prompt` ahead of the turn that will need it; a no-op where it is not supported."""

    def close(self) -> None: ...
