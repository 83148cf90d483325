"""Evicts a conversation from every replica: a purge in a request reaches only the one that answers."""

from __future__ import annotations

from collections.abc import Sequence

from leyline.backends.contract import BackendError, Held, Purged
from leyline.backends.sglang.client.facts import workers
from leyline.backends.sglang.client.requests import generate_body
from leyline.backends.sglang.client.server import Transport, server_url
from leyline.directives import Directive, EditScript, JsonMapping, LeylineError, Mode, Receipt, WireRequest


def purge_replicas(transport: Transport, sequences: Sequence[Held], tenant: str | None) -> Purged:
    """Send each replica a FORGET of each sequence, over a prompt of its first token only, so that nothing is computed.

    A sequence with a lineage is held in two forms. A replica with a secret of its own cannot read another one's lineage
    and holds nothing of it, but may hold the rest.
    """
    bodies = [_body(form, tenant) for sequence in sequences for form in _forms(sequence) if len(form.ids) > 1]
    tokens, failed = dict[str, int](), dict[str, str]()
    for url in workers(transport) or [transport.url]:
        try:
            root = server_url(url)
            tokens[url] = sum(_evicted(transport.post("/generate", body, url=root)) for body in bodies)
        except (BackendError, LeylineError) as error:
            failed[url] = str(error)
    return Purged(tokens, failed)


def _forms(sequence: Held) -> list[Held]:
    plain = Held(sequence.ids)
    return [plain] if sequence.lineage is None else [plain, sequence]


def _body(sequence: Held, tenant: str | None) -> JsonMapping:
    script = EditScript((Directive(1, len(sequence.ids), (), Mode.FORGET),))
    request = WireRequest.build(
        script,
        sequence.ids,
        lineage=sequence.lineage,
        lineage_start=sequence.lineage_start,
        honest=True,
        purge=True,
    )
    params = {"max_new_tokens": 0, "temperature": 0.0}
    return generate_body(sequence.ids[:1], params, request, tenant)


def _evicted(answer: JsonMapping) -> int:
    """Tokens; 0 for a lineage that is not this replica's. Raises `BackendError` where a server purges nothing."""
    meta = answer.get("meta_info")
    receipt = Receipt.from_meta_info(meta if isinstance(meta, dict) else None)
    if receipt is None:
        raise BackendError("no receipt came: it runs without the plugin, or `custom_params` was dropped on the way")
    if receipt.purged_tokens is None and receipt.fallback != "lineage_mismatch":
        raise BackendError(f"it did not purge: {receipt.fallback or 'it runs an older release'}: {receipt.detail}")
    return receipt.purged_tokens or 0
