"""The backend of an arm, loaded once in a process."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import util
from pathlib import Path
from typing import Any

import httpx

from leyline.backends.base import Backend, BackendError, Capabilities, TokenRenderer, Turn, TurnInput
from leyline.backends.gate import gated
from leyline.directives import EditScript, LeylineError, Message
from leyline.evals.arms import Arm

BUNDLED_CACHE_TOKENS = 32_768


class PlainBackend:
    """A backend that is told nothing of edits: what an ordinary prefix cache makes of the edited prompt."""

    def __init__(self, inner: Backend) -> None:
        self._inner = inner

    @property
    def renderer(self) -> TokenRenderer | None:
        return self._inner.renderer

    def capabilities(self) -> Capabilities:
        return replace(self._inner.capabilities(), splice=False, reason="the arm sends no directives")

    def chat(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None, session: TurnInput) -> Turn:
        return self._inner.chat(messages, tools, plain(session))

    def prewarm(self, session: TurnInput) -> None:
        self._inner.prewarm(plain(session))

    def close(self) -> None:
        self._inner.close()


def plain(session: TurnInput) -> TurnInput:
    """The same request without directives and lineage."""
    return replace(session, source=None, script=EditScript(()), lineage=None, lineage_start=None, seam=0, purge=False)


class Backends:
    """Loads backends on first use and keeps them; arms that differ only in policy or mode share one."""

    def __init__(self) -> None:
        self._open: dict[str, Backend] = {}

    def open(self, arm: Arm) -> Backend:
        """Raises BackendError if the model or the server cannot be had."""
        key = arm.backend_key()
        if key not in self._open:
            self._open[key] = make_backend(arm)
        backend = self._open[key]
        return PlainBackend(backend) if arm.mode == "plain" else backend

    def close(self) -> None:
        for backend in self._open.values():
            backend.close()
        self._open.clear()


def check_backends(arms: Sequence[Arm]) -> None:
    """Find what no trial could do without: the model folder, the packages, a server that answers. Raises LeylineError.

    Nothing is loaded and no model is called.
    """
    for arm in {arm.backend_key(): arm for arm in arms}.values():
        if arm.backend == "local":
            missing = [name for name in ("torch", "transformers") if util.find_spec(name) is None]
            if missing:
                raise BackendError(f"arm {arm.name!r} needs {missing[0]}: pip install 'leyline-kv[local]'")
            model_path(arm.model)
        elif arm.backend == "mock":
            make_backend(arm).close()
        else:
            try:
                httpx.get(str(arm.url), timeout=10)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                reason = str(error) or type(error).__name__
                raise BackendError(f"arm {arm.name!r}: no server answers at {arm.url} ({reason})") from None


def make_backend(arm: Arm) -> Backend:
    """Build the backend that an arm names, behind the gate that its option `gate` names. Raises LeylineError."""
    options = dict(arm.options)
    if gate := options.pop("gate", None):
        inner = make_backend(arm.model_copy(update={"options": options}))
        return gated(inner, str(gate), model_path(arm.model) if arm.backend == "local" else None)
    rotate = options.pop("rotate", True)
    try:
        if arm.backend == "local":
            return _local(arm, options, bool(rotate))
        if arm.backend == "mock":
            return _scripted(arm, **options)
        if arm.backend == "sglang":
            from leyline.backends.sglang.client import SGLangBackend

            return SGLangBackend(
                str(arm.url), tokenizer=_tokenizer(arm.model), api_key=os.environ.get("OPENAI_API_KEY"), **options
            )
        from leyline.backends.openai import OpenAIBackend

        return OpenAIBackend(arm.model, base_url=arm.url, **options)
    except TypeError as error:
        raise BackendError(f"arm {arm.name!r}: options do not fit the {arm.backend} backend: {error}") from None
    except ImportError as error:
        hint = f"pip install 'leyline-kv[{arm.backend}]'"
        raise BackendError(f"the {arm.backend} backend needs {error.name}: {hint}") from None


def _scripted(arm: Arm, script: str) -> Backend:
    """A mock whose k-th reply answers a history with k answers in it; past its end it repeats the last one."""
    from leyline.backends.mock import MockBackend

    try:
        replies = json.loads(Path(script).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BackendError(f"arm {arm.name!r}: cannot read the script {script}: {error}") from None
    if not isinstance(replies, list) or not replies:
        raise BackendError(f"arm {arm.name!r}: {script} must hold a list of replies")

    def answer(messages: list[Message]) -> Any:
        turn = sum(message.get("role") == "assistant" for message in messages)
        return replies[min(turn, len(replies) - 1)]

    return MockBackend(answer, model=arm.model)


def _local(arm: Arm, options: dict[str, Any], rotate: bool) -> Backend:
    from leyline.backends.local import LocalBackend

    if not Path(arm.model).is_dir():  # a bundled model reads 8,192 tokens; several are loaded in every worker
        options.setdefault("max_cached_tokens", BUNDLED_CACHE_TOKENS)
    backend = LocalBackend(model_path(arm.model), **options)
    if not rotate:
        from leyline.evals.controls import without_rotation

        without_rotation(backend)
    return backend


def _tokenizer(model: str) -> str | None:
    """The folder of a model that is here; None leaves it to the server to name one."""
    from leyline.evals.models import names

    return model_path(model) if Path(model).is_dir() or model in names() else None


def model_path(name: str) -> str:
    """A model directory: as given where there is one, else a bundled model of that name. Raises LeylineError."""
    if Path(name).is_dir():
        return name
    from leyline.evals.models import ModelNotFoundError, names, resolve

    try:
        return str(resolve(name))
    except ModelNotFoundError as error:
        shown = ", ".join(names())
        raise LeylineError(f"{name!r} is no folder and no bundled model ({shown}): {error}") from None
