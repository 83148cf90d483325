"""From words to a backend: its kind, a model, an address."""

from __future__ import annotations

import os
from importlib import util
from pathlib import Path
from typing import Any

from leyline.backends.contract import Backend, BackendError
from leyline.backends.gate import gated
from leyline.models.find import is_bundled, model_folder

KINDS = ("local", "sglang", "openai")
BUNDLED_CACHE_TOKENS = 32_768
SMALL_MODEL = 200_000_000  # bytes of weights


def connect(kind: str, model: str | None, url: str | None, *, api_key: str | None = None, **options: Any) -> Backend:
    """The backend `local`, `sglang` or `openai`. Raises LeylineError, and TypeError for an option that it has not.

    model: a bundled model or a folder for `local`; the folder of the same tokenizer, or None, for `sglang`; the
    server's name for it for `openai`. api_key: None takes OPENAI_API_KEY.
    """
    if kind == "openai":
        from leyline.backends.openai.backend import OpenAIBackend

        return OpenAIBackend(model, base_url=url, api_key=api_key, **options)
    if kind == "sglang":
        from leyline.backends.sglang.client.backend import SGLangBackend

        # The model is the server's; a folder given here only holds the same tokenizer and chat template.
        folder = None if model is None else model_folder(model)
        return SGLangBackend(str(url), tokenizer=folder, api_key=api_key or os.environ.get("OPENAI_API_KEY"), **options)
    need_local()
    folder = model_folder(str(model))
    from leyline.backends.local import LocalBackend

    if is_bundled(str(model)):  # a bundled model reads 8,192 tokens; several may be loaded
        options.setdefault("max_cached_tokens", BUNDLED_CACHE_TOKENS)
    options.setdefault("threads", _threads(folder))
    return LocalBackend(folder, **options)


def served_model(url: str) -> str:
    """The name of the model that an SGLang server serves. Raises BackendError."""
    from leyline.backends.sglang.client.facts import ServerFacts
    from leyline.backends.sglang.client.server import Transport

    server = Transport(url, api_key=os.environ.get("OPENAI_API_KEY"), timeout=10, retries=1)
    try:
        return ServerFacts.ask(server).model
    finally:
        server.close()


def behind_gate(served: Backend, gate: str | Path, kind: str, model: str | None) -> Backend:
    """`served`, splicing only what the file `gate` allows. Raises GateError where it was measured on another model."""
    return gated(served, gate, model_folder(str(model)) if kind == "local" else None)


def need_local() -> None:
    """Raise BackendError unless the packages of the local backend are installed."""
    if any(util.find_spec(name) is None for name in ("torch", "transformers")):
        raise BackendError("the local backend is not installed; run: pip install 'leyline-kv[local]'")


def _threads(folder: Path) -> int | None:
    """One for a small model: its matrices are so small that more threads mostly wait for each other."""
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return 1 if size < SMALL_MODEL and "OMP_NUM_THREADS" not in os.environ else None
