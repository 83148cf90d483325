"""The entry point in group `sglang.srt.plugins`. It runs once in every process of an SGLang server."""

from __future__ import annotations

from typing import Any

_CHAT_STREAM = "sglang.srt.entrypoints.openai.serving_chat.OpenAIServingChat._generate_chat_stream"


def register() -> None:
    """Register the radix-cache backend. The scheduler's hooks come with its cache: a server that did not select it runs
    on stock code, but for a look at the selection at the start of a streamed chat."""
    import sglang
    from sglang.srt.mem_cache.registry import register_radix_cache_backend, registered_radix_cache_backends
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    from leyline.backends.sglang.versions import BACKEND, UnsupportedVersionError, adapter_for

    if BACKEND in registered_radix_cache_backends():
        return
    try:
        adapter = adapter_for(sglang.__version__)
    except UnsupportedVersionError as error:
        register_radix_cache_backend(BACKEND, _refuse(error))
        return
    from leyline.backends.sglang.plugin.build import ensure_secret
    from leyline.backends.sglang.plugin.streaming import around_chat_stream

    ensure_secret()
    register_radix_cache_backend(BACKEND, adapter.create_cache)
    HookRegistry.register(_CHAT_STREAM, around_chat_stream, HookType.AROUND)


def _refuse(error: Exception) -> Any:
    """A factory for an unsupported SGLang: the server ends at start, with the supported range."""

    def factory(context: object) -> Any:
        raise error

    return factory
