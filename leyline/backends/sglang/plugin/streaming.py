"""Receipts in a streamed chat: one more chunk before `[DONE]`, with an empty `choices` and the receipt in `leyline`.

Chat streaming has no `meta_info`. A client that does not know the field skips the chunk, as it does the usage chunk.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from leyline.backends.sglang.plugin.runs import FIELD, wire_value
from leyline.backends.sglang.versions import BACKEND

_DONE = "data: [DONE]"


def around_chat_stream(original: Callable[..., Any], serving: Any, adapted: Any, request: Any, *args: Any) -> Any:
    """AROUND hook for `OpenAIServingChat._generate_chat_stream`, an async generator of server-sent events."""
    stream = original(serving, adapted, request, *args)
    if getattr(serving.tokenizer_manager.server_args, "radix_cache_backend", BACKEND) != BACKEND:
        return stream
    params = adapted.sampling_params if isinstance(adapted.sampling_params, dict) else {}
    if wire_value(params.get("custom_params")) is None:
        return stream
    return _with_receipt(stream, serving, adapted, str(getattr(request, "model", "")))


async def _with_receipt(stream: AsyncIterator[str], serving: object, adapted: object, model: str) -> AsyncIterator[str]:
    receipt: object = None
    async for event in stream:
        receipt = receipt or _receipt(serving, adapted)
        if event.startswith(_DONE) and receipt is not None:
            chunk = {
                "id": _identity(adapted),
                "object": "chat.completion.chunk",
                "created": int(time.time()),
                "model": model,
                "choices": [],
                FIELD: receipt,
            }
            yield f"data: {json.dumps(chunk)}\n\n"
        yield event


def _receipt(serving: Any, adapted: Any) -> Any:
    """The receipt that came with the first token, from the tokenizer manager's state of the request."""
    state = serving.tokenizer_manager.rid_to_state.get(_identity(adapted))
    found = getattr(state, "customized_info_accumulated", {}).get(FIELD) if state is not None else None
    return found[0] if found else None


def _identity(adapted: Any) -> str:
    rid = adapted.rid
    return str(rid[0] if isinstance(rid, list) else rid)
