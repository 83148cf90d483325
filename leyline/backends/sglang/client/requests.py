"""From a turn to the body of a `/generate` request."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from leyline.backends.contract import TurnInput
from leyline.directives import EditScript, Fallback, JsonObject, LeylineError, WireError, WireRequest


def wire_request(session: TurnInput, prompt: Sequence[int]) -> tuple[WireRequest | None, LeylineError | None]:
    """What to tell the server about the prompt, or why it cannot be said: then the prompt is served honestly."""
    if session.allow is not None:
        settings: JsonObject = {"seam": session.seam, "honest": session.honest, "purge": session.purge}
        return WireRequest(EditScript(()), session=session_name(session), allow=session.allow, **settings), None
    if not (session.script or session.lineage or session.honest):
        return None, None
    if session.script and session.source is None:
        return None, WireError("directives without their source", reason=Fallback.SOURCE_MISMATCH)
    source = session.source or ()
    try:
        request = WireRequest.build(
            session.script,
            source,
            lineage=session.lineage or _own_lineage(session),
            lineage_start=session.lineage_start,
            seam=session.seam,
            honest=session.honest,
            purge=session.purge,
        )
        if session.script:
            target = session.script.apply(source)
            if list(prompt[: len(target)]) != list(target):
                said = "the prompt does not begin with the edited source"
                return None, WireError(said, reason=Fallback.TARGET_MISMATCH)
    except LeylineError as error:
        return None, error
    return request, None


def _own_lineage(session: TurnInput) -> str | None:
    """The name of a new lineage: sessions of equal text and edits, without a tenant, would share the server's own."""
    if session.honest or not session.script:
        return None
    return session_name(session)


def session_name(session: TurnInput) -> str:
    """What the server calls the session: a digest of its id, since ids may be of any form."""
    return blake2b(session.session_id.encode(errors="backslashreplace"), digest_size=16).hexdigest()


def generate_body(
    prompt: Sequence[int],
    params: JsonObject,
    request: WireRequest | None,
    tenant: str | None,
    *,
    stream: bool = False,
    hints: bool = False,
) -> JsonObject:
    """The request for `prompt`; a tenant becomes SGLang's `extra_key`, which every release has.

    hints: what there is to tell goes into the server's own `kv_hints`, not into `custom_params`.
    """
    if request is not None and not hints:
        params = {**params, "custom_params": {"leyline": request.to_json()}}
    body: dict[str, object] = {"input_ids": list(prompt), "sampling_params": params, "stream": stream}
    if tenant is not None:
        body["extra_key"] = tenant
    if request is not None and hints:
        body["kv_hints"] = request.to_kv_hints()
    return body
