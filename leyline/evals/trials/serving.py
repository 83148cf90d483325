"""From the arms of an eval to backends, loaded once in a process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from leyline.backends.connect import behind_gate, connect, need_local, served_model
from leyline.backends.contract import Backend, BackendError
from leyline.backends.gate import Gate, digest_for
from leyline.backends.http.errors import clean
from leyline.backends.plain import PlainBackend
from leyline.directives import Message
from leyline.evals.trials.arms import SERVED, Arm
from leyline.models.find import is_named, model_folder


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
                found = Gate.load(str(gate))
                found.check(folder.resolve().name, digest_for(found, folder))
        elif arm.backend == "mock":
            make_backend(arm).close()
        elif servers:
            try:
                httpx.get(str(arm.url), timeout=10)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                reason = clean(error) or type(error).__name__
                raise BackendError(f"arm {arm.name!r}: no server answers at {arm.url} ({reason})") from None


def name_served(arms: Sequence[Arm]) -> list[Arm]:
    """The arms, with the name of the model that is served where they leave it to the server. Raises BackendError.

    So that a record says what was measured, and a run is not continued on another model.
    """
    names: dict[str, str] = {}
    for arm in arms:
        if arm.model == SERVED and str(arm.url) not in names:
            names[str(arm.url)] = served_model(str(arm.url))
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
    return arm.backend == "sglang" and not Path(arm.model).expanduser().is_dir() and not is_named(arm.model)


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
