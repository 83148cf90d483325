"""What a response, or an event of its stream, tells of a turn: usage, and the receipt of a Leyline server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from leyline.backends.contract import Usage
from leyline.backends.http.usage import find_usage
from leyline.directives import EditScript, Fallback, JsonObject, LeylineError, Receipt, WireRequest
from leyline.directives.receipt import receipt_entry


def usage_of(response: object) -> tuple[JsonObject, bool]:
    """The token fields of a turn, and whether a Leyline server told them, from a response or an event of a stream,
    parsed or as a client's model. Empty where it carries neither usage nor a receipt.

    The events of a stream add up: Anthropic's first tells the prompt, its last the answer.
    """
    receipt = _receipt_of(response)
    for holder in (response, _get(response, "response"), _get(response, "message")):
        usage = _usage(holder) if holder is not None else None
        if usage is not None:
            return {
                "prompt_tokens": usage.prompt_tokens,
                "cached_tokens": usage.cached_tokens,
                "completion_tokens": usage.completion_tokens,
                "receipt": receipt or Receipt.plain(usage.prompt_tokens, usage.cached_tokens),
            }, receipt is not None
    if receipt is not None:
        cached = receipt.prefix_tokens + receipt.spliced_tokens
        return {"prompt_tokens": receipt.prompt_tokens, "cached_tokens": cached, "receipt": receipt}, True
    generated = _get(_get(response, "usage"), "output_tokens")
    return ({"completion_tokens": generated} if type(generated) is int else {}), False


def _get(holder: object, name: str) -> Any:
    return holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)


def _usage(response: object) -> Usage | None:
    choices = _get(response, "choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    places = {name: _get(response, name) for name in ("usage", "usageMetadata", "x_groq")}
    return find_usage({**places, "choices": [{"usage": _get(first, "usage")}]})


def is_receipt(chunk: object) -> bool:
    """Whether a stream's chunk is a Leyline server's receipt and nothing else."""
    places = (chunk, _get(chunk, "provider_specific_fields"))
    return any(_get(place, "leyline") is not None for place in places) and not _get(chunk, "choices")


def unacknowledged(receipt: Receipt, response: object, asked: int) -> Receipt:
    """The receipt of a turn whose server was told of `asked` edits and acknowledged none, by the fields it lost."""
    choices = _get(response, "choices")
    meta = _get(choices[0], "meta_info") if isinstance(choices, list) and choices else None
    whole = isinstance(choices, list) and bool(choices) and _get(choices[0], "message") is not None
    lost = "`custom_params` or `return_meta_info`" if whole and meta is None else "`custom_params`"
    detail = f"no receipt came: the server runs without the plugin, or a router on the way drops {lost}"
    plain = Receipt.plain(receipt.prompt_tokens, receipt.prefix_tokens, directives=asked, detail=detail)
    return replace(plain, fallback=Fallback.BACKEND_HAS_NO_SPLICE)


def _places(response: object) -> Iterator[object]:
    """Where a receipt may stand. A Leyline server puts it into `choices[0].meta_info["leyline"]`, or into `leyline` of
    a stream's last chunk; LiteLLM moves fields that it does not know into `provider_specific_fields`.
    """
    choices = _get(response, "choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    for holder in (first, response, _get(first, "message"), _get(first, "delta")):
        if holder is not None:
            yield holder
            yield _get(holder, "provider_specific_fields")


def _told(place: object) -> Any:
    meta = _get(place, "meta_info")
    return meta.get("leyline") if isinstance(meta, Mapping) else _get(place, "leyline")


def _receipt_of(response: object) -> Receipt | None:
    """The receipt of a response or an event, or None; one that could not go back is none."""
    facts = next((found for place in _places(response) if (found := receipt_entry(_told(place))) is not None), None)
    if not isinstance(facts, Mapping):
        return None
    try:
        receipt = Receipt.from_dict(facts)
        if receipt.lineage is not None:  # it goes back with the next request: one that cannot is no receipt
            WireRequest(EditScript(()), (), lineage=receipt.lineage, lineage_start=receipt.approximate_from)
        return receipt
    except LeylineError:
        return None
