"""The request side of the wire format `leyline/1`; docs/wire.md describes it to the field."""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

from leyline.directives.directive import Directive, Mode
from leyline.directives.errors import DirectiveError, WireError
from leyline.directives.fallback import Fallback
from leyline.directives.jsontypes import JsonMapping, JsonObject
from leyline.directives.script import EditScript, check_tokens

PROTOCOL = "leyline/1"

MAX_DIRECTIVES = 4096
MAX_TOKENS = 2_000_000
"""Removed and replacement tokens of one request together."""
MAX_POSITION = 2**31 - 1
MAX_SEAM = 65_536
MAX_TEXT = 32 * 2**20
"""Characters of JSON text (bytes, when bytes are given)."""

HINTS_VERSION = "1.0"
ACTION_TYPE = "edit"

_LINEAGE = re.compile(r"[!-~]{1,128}")
_FIELDS = frozenset(
    {"version", "directives", "lineage", "lineage_start", "seam", "honest", "purge", "session", "allow"}
)
_MODES = frozenset(map(str, Mode))
_DIRECTIVE_FIELDS = frozenset({"start", "end", "removed", "replacement", "mode"})


@dataclass(frozen=True)
class WireRequest:
    """What a request says about its prompt beside the tokens. Checked when built; raises `WireError`.

    script: source -> prompt.
    removed: the tokens of each removed span, one tuple a directive.
    lineage: the lineage to continue, or None; printable ASCII of at most 128 characters.
    lineage_start: where that lineage begins (`approximate_from` of the last receipt), or None for a new one.
    seam: recompute that many tokens at the start of each moved run.
    honest: drop the lineage, so that nothing approximate is reused.
    purge: also evict the source's branch from behind the first FORGET.
    session: the server remembers under this name, per tenant, the tokens that it holds after the request; printable
        ASCII of at most 128 characters, or None. Give a keyed hash where the name itself is nobody's business.
    allow: the server finds the edits itself, from what it remembers for `session` and the prompt, and treats them in
        this mode; needs a session and no directives, lineage_start. None: only the directives given.
    """

    script: EditScript
    removed: tuple[tuple[int, ...], ...] = ()
    lineage: str | None = None
    lineage_start: int | None = None
    seam: int = 0
    honest: bool = False
    purge: bool = False
    session: str | None = None
    allow: Mode | None = None
    version: str = PROTOCOL

    def __post_init__(self) -> None:
        if self.allow is not None and type(self.allow) is not Mode:
            object.__setattr__(self, "allow", _mode(self.allow, "allow"))
        if self.version != PROTOCOL:
            shown = repr(self.version)[:40]
            raise WireError(f"version {shown} is not {PROTOCOL!r}", reason=Fallback.UNSUPPORTED_VERSION)
        _check_settings(self)
        _check_size(self.script, self.removed)
        try:
            self.script.validate(None)
            for index, (d, span) in enumerate(zip(self.script, self.removed, strict=True)):
                check_tokens(span, index=index, field="removed")
                if len(span) != d.end - d.start:
                    raise WireError(f"directive {index}: removed holds {len(span)} tokens for [{d.start}, {d.end})")
        except DirectiveError as error:
            raise WireError(str(error), reason=error.reason) from None

    @classmethod
    def build(cls, script: EditScript, source: Sequence[int], **settings: Any) -> WireRequest:
        """A request for `script` over `source`; `settings` are the other fields.

        Raises `DirectiveError` when the script does not fit the source, `WireError` for the rest.
        """
        return cls(script, script.removed(source), **settings)

    @overload
    def source(self, prompt: array[int]) -> array[int]: ...  # type: ignore[overload-overlap]  # an array is a sequence
    @overload
    def source(self, prompt: Sequence[int]) -> list[int]: ...
    def source(self, prompt: Sequence[int] | array[int]) -> list[int] | array[int]:
        """Rebuild the source from the prompt, tail included. Raises `WireError` (`target_mismatch`, `out_of_range`)."""
        try:
            return self.script.restore(prompt, self.removed)
        except DirectiveError as error:
            raise WireError(str(error), reason=error.reason) from None

    def to_dict(self) -> JsonObject:
        """JSON types; settings that stand at their default are left out."""
        data: dict[str, object] = {
            "version": self.version,
            "directives": [
                {
                    "start": d.start,
                    "end": d.end,
                    "removed": list(span),
                    "replacement": list(d.replacement),
                    "mode": str(d.mode),
                }
                for d, span in zip(self.script, self.removed, strict=True)
            ],
        }
        defaults = {"lineage": None, "lineage_start": None, "seam": 0, "honest": False, "purge": False, "session": None}
        data.update((name, getattr(self, name)) for name, value in defaults.items() if getattr(self, name) != value)
        if self.allow is not None:
            data["allow"] = str(self.allow)
        return data

    def to_json(self) -> str:
        """Compact JSON."""
        return json.dumps(self.to_dict(), separators=(",", ":"))

    @classmethod
    def from_json(cls, value: str | bytes | JsonMapping) -> WireRequest:
        """Read a request from untrusted text, or from JSON already parsed. Raises `WireError` only."""
        data = _object(value, "the request")
        if "version" not in data:
            raise WireError("the request has no field 'version'")
        if data["version"] != PROTOCOL:
            shown = _show(data["version"])
            raise WireError(f"version {shown} is not {PROTOCOL!r}", reason=Fallback.UNSUPPORTED_VERSION)
        _known(data, _FIELDS, "the request")
        entries = data.get("directives", [])
        if type(entries) is not list:
            raise WireError(f"directives is a {type(entries).__name__}; it must be a list")
        if len(entries) > MAX_DIRECTIVES:
            raise WireError(
                f"{len(entries)} directives; the bound is {MAX_DIRECTIVES}", reason=Fallback.TOO_MANY_DIRECTIVES
            )
        pairs = [_directive(index, entry) for index, entry in enumerate(entries)]
        return cls(
            script=EditScript(tuple(d for d, _ in pairs)),
            removed=tuple(span for _, span in pairs),
            lineage=data.get("lineage"),
            lineage_start=data.get("lineage_start"),
            seam=data.get("seam", 0),
            honest=data.get("honest", False),
            purge=data.get("purge", False),
            session=data.get("session"),
            allow=_mode(data["allow"], "allow") if data.get("allow") is not None else None,
        )

    def to_kv_hints(self, message_id: str = "leyline", action_id: str = "leyline-edit") -> JsonObject:
        """The same content as one action of the shared `kv_hints` envelope."""
        return {
            "protocol_version": HINTS_VERSION,
            "message_id": message_id,
            "actions": [
                {
                    "action_id": action_id,
                    "action_type": ACTION_TYPE,
                    "action_version": PROTOCOL,
                    "payload": self.to_dict(),
                }
            ],
        }

    @classmethod
    def from_kv_hints(cls, value: str | bytes | Mapping[str, object]) -> WireRequest:
        """Read the one `edit` action of an envelope; actions of other types are ignored. Raises `WireError` only."""
        envelope = _object(value, "kv_hints")
        actions = envelope.get("actions")
        if type(actions) is not list:
            raise WireError("kv_hints has no list 'actions'")
        edits = [a for a in actions if isinstance(a, Mapping) and a.get("action_type") == ACTION_TYPE]
        if len(edits) != 1:
            raise WireError(f"kv_hints has {len(edits)} actions of type {ACTION_TYPE!r}; it must have one")
        version = edits[0].get("action_version")
        if version != PROTOCOL:
            raise WireError(f"action_version {_show(version)} is not {PROTOCOL!r}", reason=Fallback.UNSUPPORTED_VERSION)
        payload = edits[0].get("payload")
        if not isinstance(payload, Mapping):
            raise WireError("the edit action has no object 'payload'")
        return cls.from_json(payload)


def _check_settings(request: WireRequest) -> None:
    lineage, start = request.lineage, request.lineage_start
    if lineage is not None and (type(lineage) is not str or not _LINEAGE.fullmatch(lineage)):
        raise WireError("lineage must be 1 to 128 printable ASCII characters without spaces, or null")
    if start is not None:
        if type(start) is not int or not 0 <= start <= MAX_POSITION:
            raise WireError(f"lineage_start must be an int in [0, {MAX_POSITION}] or null")
        if lineage is None:
            raise WireError("lineage_start needs a lineage")
    session = request.session
    if session is not None and (type(session) is not str or not _LINEAGE.fullmatch(session)):
        raise WireError("session must be 1 to 128 printable ASCII characters without spaces, or null")
    if request.allow is not None:
        if session is None:
            raise WireError("allow needs a session: the server finds edits in what it remembers for one")
        if request.script or start is not None:
            raise WireError("allow stands for directives and lineage_start: give either it or them")
    if type(request.seam) is not int or not 0 <= request.seam <= MAX_SEAM:
        raise WireError(f"seam must be an int in [0, {MAX_SEAM}]")
    for name in ("honest", "purge"):
        if type(getattr(request, name)) is not bool:
            raise WireError(f"{name} must be true or false")


def _check_size(script: EditScript, removed: tuple[tuple[int, ...], ...]) -> None:
    if len(script) != len(removed):
        raise WireError(f"{len(removed)} removed spans for {len(script)} directives; give one for each")
    if len(script) > MAX_DIRECTIVES:
        raise WireError(f"{len(script)} directives; the bound is {MAX_DIRECTIVES}", reason=Fallback.TOO_MANY_DIRECTIVES)
    tokens = sum(map(len, removed)) + sum(len(d.replacement) for d in script)
    if tokens > MAX_TOKENS:
        raise WireError(
            f"{tokens} removed and replacement tokens; the bound is {MAX_TOKENS}", reason=Fallback.TOO_LARGE
        )
    for index, d in enumerate(script):
        if type(d.end) is int and d.end > MAX_POSITION:
            raise WireError(f"directive {index}: end is over the bound {MAX_POSITION}", reason=Fallback.OUT_OF_RANGE)


def _directive(index: int, entry: object) -> tuple[Directive, tuple[int, ...]]:
    """One directive and its removed tokens, with types checked but not bounds."""
    where = f"directive {index}"
    if not isinstance(entry, Mapping):
        raise WireError(f"{where} is a {type(entry).__name__}; it must be an object")
    _known(entry, _DIRECTIVE_FIELDS, where)
    for name in ("start", "end", "mode"):
        if name not in entry:
            raise WireError(f"{where} has no field {name!r}")
    start, end, mode = entry["start"], entry["end"], entry["mode"]
    if type(start) is not int or type(end) is not int:
        raise WireError(f"{where}: start and end must be ints")
    if not -MAX_POSITION <= start <= MAX_POSITION or not -MAX_POSITION <= end <= MAX_POSITION:
        raise WireError(f"{where}: start or end is over the bound {MAX_POSITION}", reason=Fallback.OUT_OF_RANGE)
    removed, replacement = entry.get("removed", []), entry.get("replacement", [])
    if type(removed) is not list or type(replacement) is not list:
        raise WireError(f"{where}: removed and replacement must be lists of token ids")
    return Directive(start, end, tuple(replacement), _mode(mode, f"{where}: mode")), tuple(removed)


def _mode(value: object, where: str) -> Mode:
    if type(value) is not str or value not in _MODES:
        raise WireError(f"{where} {_show(value)} is not 'amortize', 'forget' or 'auto'")
    return Mode(value)


def _object(value: str | bytes | Mapping[str, object], what: str) -> JsonMapping:
    """A JSON object from text or as it is."""
    if isinstance(value, str | bytes | bytearray):
        if len(value) > MAX_TEXT:
            raise WireError(f"{what} has {len(value)} characters; the bound is {MAX_TEXT}", reason=Fallback.TOO_LARGE)
        try:
            value = json.loads(value, object_pairs_hook=_unique)
        except WireError:
            raise
        except (ValueError, RecursionError) as error:
            raise WireError(f"{what} is not JSON: {str(error)[:100]}") from None
    if not isinstance(value, Mapping):
        raise WireError(f"{what} is a {type(value).__name__}; it must be a JSON object")
    return value


def _unique(pairs: list[tuple[str, object]]) -> JsonObject:
    # Readers of JSON differ in which of two equal keys counts: client and server would serve different edits.
    data = dict(pairs)
    if len(data) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise WireError(f"the field {_show(twice)} stands twice in one object")
    return data


def _known(data: Mapping[str, object], fields: frozenset[str], where: str) -> None:
    # An unknown field is refused: a mistyped `honest` or `purge` must not be dropped in silence.
    for name in data:
        if name not in fields:
            raise WireError(f"{where} has an unknown field {_show(name)}")


def _show(value: object) -> str:
    """A short form of untrusted data for a message: one line of ASCII."""
    if isinstance(value, str):
        return ascii(value[:40])
    return ascii(value) if isinstance(value, int | float | None) and abs(value or 0) < 1e15 else type(value).__name__
