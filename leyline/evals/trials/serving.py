"""From words to backends: of an arm, loaded once in a process, or of a command line."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import util
from pathlib import Path
from typing import Any

import httpx

from leyline.backends.contract import Backend, BackendError, Capabilities, TokenRenderer, Turn, TurnInput
from leyline.backends.gate import Gate, gated, model_digest
from leyline.directives import EditScript, Message
from leyline.evals.trials.arms import SERVED, Arm
from leyline.models.find import model_folder

BUNDLED_CACHE_TOKENS = 32_768
SMALL_MODEL = 200_000_000  # bytes of weights


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
    return replace(
        session,
        source=None,
        script=EditScript(()),
        lineage=None,
        lineage_start=None,
        seam=0,
        purge=False,
        allow=None,
    )


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


def check_backends(arms: Sequence[Arm], *, servers: bool = True) -> None:
    """Find what no trial could do without: model folder, gate, packages, a server that answers. Raises LeylineError.

    Nothing is loaded and no model is called. servers: False does not ask them.
    """
    for arm in {arm.backend_key(): arm for arm in arms}.values():
        if arm.backend == "local":
            need_local()
            folder = model_folder(arm.model)
            if gate := arm.options.get("gate"):
                Gate.load(str(gate)).check(folder.resolve().name, model_digest(folder))
        elif arm.backend == "mock":
            make_backend(arm).close()
        elif servers:
            try:
                httpx.get(str(arm.url), timeout=10)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                reason = str(error) or type(error).__name__
                raise BackendError(f"arm {arm.name!r}: no server answers at {arm.url} ({reason})") from None


def name_served(arms: Sequence[Arm]) -> list[Arm]:
    """The arms, with the name of the model that is served where they leave it to the server. Raises BackendError.

    So that a record says what was measured, and a run is not continued on another model.
    """
    names: dict[str, str] = {}
    for arm in arms:
        if arm.model == SERVED and str(arm.url) not in names:
            from leyline.backends.sglang.client.facts import ServerFacts
            from leyline.backends.sglang.client.server import Transport

            server = Transport(str(arm.url), api_key=os.environ.get("OPENAI_API_KEY"), timeout=10, retries=1)
            try:
                names[str(arm.url)] = ServerFacts.ask(server).model
            finally:
                server.close()
    return [arm.model_copy(update={"model": names[str(arm.url)]}) if arm.model == SERVED else arm for arm in arms]


def make_backend(arm: Arm) -> Backend:
    """Build the backend that an arm names, behind the gate that its option `gate` names. Raises LeylineError."""
    options = dict(arm.options)
    gate = options.pop("gate", None)
    model = None if arm.model == SERVED or _named_by_server(arm) else arm.model
    try:
        if arm.backend == "mock":
            served = _scripted(arm, **options)
        else:
            served = connect(arm.backend, model, arm.url, **options)
    except TypeError as error:
        raise BackendError(f"arm {arm.name!r}: options do not fit the {arm.backend} backend: {error}") from None
    except ImportError as error:
        hint = f"pip install 'leyline-kv[{arm.backend}]'"
        raise BackendError(f"the {arm.backend} backend needs {error.name}: {hint}") from None
    return behind_gate(served, str(gate), arm.backend, model) if gate else served


def _named_by_server(arm: Arm) -> bool:
    """Whether an arm gives the server's name for a model, and no folder with its tokenizer."""
    from leyline.models import names

    return arm.backend == "sglang" and not Path(arm.model).expanduser().is_dir() and arm.model not in names()


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

    if not Path(str(model)).expanduser().is_dir():  # a bundled model reads 8,192 tokens; several may be loaded
        options.setdefault("max_cached_tokens", BUNDLED_CACHE_TOKENS)
    options.setdefault("threads", _threads(folder))
    return LocalBackend(folder, **options)


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
