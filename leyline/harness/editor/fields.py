"""What a request says beside its edited history: directives and lineage, for a server that splices."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from leyline.dialects import Dialect
from leyline.directives import (
    EditScript,
    Fallback,
    JsonMapping,
    JsonObject,
    Mode,
    Receipt,
    Rendered,
    WireError,
    WireRequest,
    token_script,
)
from leyline.harness.session.ledger import Plan

_LIMITS = (Fallback.TOO_MANY_DIRECTIVES, Fallback.TOO_LARGE, Fallback.OUT_OF_RANGE)


@dataclass(frozen=True)
class WireSettings:
    """What a request to a Leyline server says beside its directives; the fields are those of `Session`."""

    seam: int = 0
    honest: bool = False
    purge: bool = False


def request_fields(
    settings: WireSettings | None,
    dialect: Dialect | None,
    plan: Plan,
    *,
    held: Rendered | None,
    prompt: Rendered | None,
    receipt: Receipt | None,
    session: str,
) -> dict[str, object]:
    """Fields to add to a request's body; empty where there is nothing to say, or no server that would take it.

    held: the prompt that the server holds of this conversation. prompt: the one of this turn. Both are None where
    there is no renderer; then the server is told the session and what it may do with the edits that it finds.
    receipt: the last one of this conversation. session: its name, the same in every turn and nowhere else.
    """
    if settings is None or dialect != "chat":
        return {}
    wire = _found(settings, plan, session) if prompt is None else _wire(settings, plan, held, prompt, receipt)
    return {} if wire is None else {"custom_params": {"leyline": wire.to_json()}, "return_meta_info": True}


def _found(settings: WireSettings, plan: Plan, session: str) -> WireRequest:
    name = blake2b(session.encode(errors="backslashreplace"), digest_size=16).hexdigest()
    modes = {edit.mode for edit in plan.edits}
    # One edit that must not be reused behind makes all of the turn so; and what nobody declared is a FORGET too.
    least = Mode.FORGET if settings.honest or not modes or Mode.FORGET in modes else None
    allow = least or (Mode.AUTO if Mode.AUTO in modes else Mode.AMORTIZE)
    return WireRequest(
        EditScript(()),
        session=name,
        allow=allow,
        seam=settings.seam,
        honest=settings.honest,
        purge=settings.purge and Mode.FORGET in modes,
    )


def _wire(
    settings: WireSettings, plan: Plan, held: Rendered | None, prompt: Rendered, receipt: Receipt | None
) -> WireRequest | None:
    try:
        script = token_script(held, prompt, plan.edits) if held is not None else EditScript(())
        lineage = receipt.lineage if receipt is not None and not settings.honest else None
        if not script and lineage is None and not settings.honest:
            return None
        return WireRequest.build(
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
        return None  # over the wire's limits: the edited messages are served as by any server


def asked(fields: JsonObject, body: JsonMapping | None, plan: Plan) -> int | None:
    """How many edits the server was told of; None where it was told nothing, or can send no receipt (of several answers
    in one stream).
    """
    several = body is not None and body.get("stream") and body.get("n") not in (None, 1)
    return len(plan.edits) if fields and not several else None


def with_fields(body: dict[str, object], fields: JsonObject) -> dict[str, object]:
    """A body with the fields of a request added. What the harness itself says stays."""
    if not fields:
        return body
    own = body.get("custom_params")
    params = {**(own if isinstance(own, dict) else {}), **fields["custom_params"]}
    added = {key: value for key, value in fields.items() if key != "custom_params" and key not in body}
    if body.get("stream"):
        added.pop("return_meta_info", None)  # a stream brings its receipt in a chunk of its own
    return {**body, **added, "custom_params": params}
