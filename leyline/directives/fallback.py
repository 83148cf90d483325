"""Why a turn was served by honest prefill: the closed list, with cause and remedy."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple


class Fallback(StrEnum):
    """The reasons a receipt may give. The list is closed: a client may switch over it."""

    MALFORMED = "malformed"
    UNSUPPORTED_VERSION = "unsupported_version"
    OUT_OF_RANGE = "out_of_range"
    OVERLAP = "overlap"
    TOO_MANY_DIRECTIVES = "too_many_directives"
    TOO_LARGE = "too_large"
    TARGET_MISMATCH = "target_mismatch"
    SOURCE_MISMATCH = "source_mismatch"
    DONOR_MISSING = "donor_missing"
    LINEAGE_MISMATCH = "lineage_mismatch"
    GENERATION_LIMIT = "generation_limit"
    NO_SLOTS = "no_slots"
    UNSUPPORTED_MODEL = "unsupported_model"
    UNSUPPORTED_ROPE = "unsupported_rope"
    UNSUPPORTED_KV_DTYPE = "unsupported_kv_dtype"
    UNSUPPORTED_FEATURE = "unsupported_feature"
    PAGE_ALIGNMENT = "page_alignment"
    GATED = "gated"
    BACKEND_HAS_NO_SPLICE = "backend_has_no_splice"
    UNDECLARED_EDIT = "undeclared_edit"
    INTERNAL_ERROR = "internal_error"


class Explanation(NamedTuple):
    """What a reason means and what to do about it, one sentence each."""

    cause: str
    remedy: str


EXPLANATIONS: Mapping[Fallback, Explanation] = MappingProxyType(
    {
        Fallback.MALFORMED: Explanation(
            "The `leyline` value is not JSON, or a field is missing, unknown, given twice or of the wrong type.",
            "Build the value with `WireRequest.to_json()`; `detail` names the field.",
        ),
        Fallback.UNSUPPORTED_VERSION: Explanation(
            "The request speaks another version of the protocol than the server.",
            "Install the same release of leyline-kv on both sides.",
        ),
        Fallback.OUT_OF_RANGE: Explanation(
            "A position lies outside the source, inside the attention sink, or has start after end.",
            "Give positions in tokens of the source, half-open; `detail` names the directive and the bound.",
        ),
        Fallback.OVERLAP: Explanation(
            "Two directives overlap or are not in ascending order.",
            "Sort the directives and merge the ones that overlap.",
        ),
        Fallback.TOO_MANY_DIRECTIVES: Explanation(
            "The request holds more directives than the server takes in a turn.",
            "Merge neighbouring edits, or spread them over turns.",
        ),
        Fallback.TOO_LARGE: Explanation(
            "The removed and replacement tokens, or the JSON text, are over the limit.",
            "Edit less in a turn, or send the prompt without directives.",
        ),
        Fallback.TARGET_MISMATCH: Explanation(
            "The prompt does not hold a directive's replacement at the place that the directive says.",
            "Compute the directives from the very token ids that are sent; check the chat template and the tools.",
        ),
        Fallback.SOURCE_MISMATCH: Explanation(
            "The source rebuilt from the prompt and the removed tokens is not in the cache.",
            "Nothing if the cache was flushed or evicted; else check that the removed tokens are the ones last sent.",
        ),
        Fallback.DONOR_MISSING: Explanation(
            "The cache holds the source's beginning, but not the run that was to be moved.",
            "Nothing if only new text stands behind the edit; else the run was evicted or is host-only: give the "
            "server a larger cache, or send the next turn sooner.",
        ),
        Fallback.LINEAGE_MISMATCH: Explanation(
            "The lineage is not this server's or this tenant's, or does not start where the request says.",
            "Send back `lineage` and `approximate_from` exactly as the last receipt gave them.",
        ),
        Fallback.GENERATION_LIMIT: Explanation(
            "The run was moved as often as the server allows; it was prefilled to stop rounding errors from adding up.",
            "Nothing; or make fewer, larger edits, or raise the server's limit.",
        ),
        Fallback.NO_SLOTS: Explanation(
            "The KV pool had no room for the moved run.",
            "Lower the concurrency, or give the server more KV memory.",
        ),
        Fallback.UNSUPPORTED_MODEL: Explanation(
            "The model's attention cannot be spliced (neither MLA nor GQA/MHA with one RoPE).",
            "Serve a supported model; `leyline doctor` lists them.",
        ),
        Fallback.UNSUPPORTED_ROPE: Explanation(
            "The model's position encoding is not a plain, linear or YaRN RoPE with one table.",
            "Serve a supported model, or turn the other scaling off.",
        ),
        Fallback.UNSUPPORTED_KV_DTYPE: Explanation(
            "The KV cache is quantised (fp8, fp4); a key cannot be rotated in it without a second rounding.",
            "Serve with a bf16, fp16 or fp32 KV cache.",
        ),
        Fallback.UNSUPPORTED_FEATURE: Explanation(
            "A server feature that is on, or that the request uses, excludes splicing (speculative decoding, "
            "sliding windows, sessions, multimodal input, disaggregation); `detail` names it.",
            "Turn the feature off for this server or request.",
        ),
        Fallback.PAGE_ALIGNMENT: Explanation(
            "The run is shorter than a page once it is cut to page bounds.",
            "Serve with page size 1, or edit larger spans.",
        ),
        Fallback.GATED: Explanation(
            "The fidelity gate of this model does not allow AMORTIZE; the edits were served as FORGET.",
            "Nothing; or measure the model again with `leyline eval fidelity`, or run without the gate.",
        ),
        Fallback.BACKEND_HAS_NO_SPLICE: Explanation(
            "The server does not know directives: the edited prompt was sent and prefilled as usual.",
            "Use the `local` or the `sglang` backend to splice.",
        ),
        Fallback.UNDECLARED_EDIT: Explanation(
            "The rendered prompt changed where no edit was declared (a template that rewrites old messages, or a "
            "re-tokenised answer); the run behind it was prefilled.",
            "Pin the generated ids, or use a template that leaves old messages alone.",
        ),
        Fallback.INTERNAL_ERROR: Explanation(
            "The splice failed in a way that was not foreseen; the request was served honestly.",
            "Report it with `detail` and the server's log.",
        ),
    }
)


def explain(reason: Fallback) -> Explanation:
    """Cause and remedy of a reason."""
    return EXPLANATIONS[reason]
