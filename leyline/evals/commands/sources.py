"""From command-line words to tasks and backends."""

from __future__ import annotations

import os
from importlib import util
from pathlib import Path

from leyline.backends.base import Backend
from leyline.directives import LeylineError
from leyline.harness.tasks import Task

DEFAULT_MODEL = "tiny-mla"
BACKENDS = ("local", "sglang", "openai")
FIRST_SEED = 1_000_000  # far from the seeds of the training data
SMALL_MODEL = 200_000_000  # bytes of weights


class UsageError(LeylineError):
    """The command line asks for something that is not there."""


def micro_tasks(count: int, level: str, split: str, seed: int) -> list[Task]:
    """`count` generated tasks with consecutive seeds."""
    from leyline.evals.suites import micro
    from leyline.evals.suites.micro.episodes import as_task

    if level not in micro.LEVELS:
        raise UsageError(f"unknown level {level!r}; choose one of {', '.join(micro.LEVELS)}")
    if split not in micro.SPLITS:
        raise UsageError(f"unknown split {split!r}; choose one of {', '.join(micro.SPLITS)}")
    return [as_task(micro.make_task(seed + i, level, split)) for i in range(count)]


def path_tasks(path: Path, description: str | None, test_command: str | None) -> list[Task]:
    """A debug-gym folder, a folder of them, or a repository with a description (a text, or a file that holds it)."""
    from leyline.evals.suites import debug_gym, repository
    from leyline.evals.suites.base import SuiteError

    if not path.is_dir():
        raise UsageError(f"{path} is not a folder; give a debug-gym folder, a repository, or --suite micro")
    if description is None and test_command is not None:
        raise UsageError("--test-command is for a repository; say what to do there with --description")
    if description is None:
        try:
            return list(debug_gym.load(path))
        except SuiteError as error:
            raise UsageError(f"{error}; for a repository, say what to do with --description") from None
    return [repository.RepositoryTask(path, repository.request_of(description), test_command)]


def make_backend(
    kind: str, model: str | None, base_url: str | None, api_key: str | None, gate: Path | None = None
) -> Backend:
    """Start the backend that serves `model`; the bundled agent is the local default. gate: what it may splice."""
    if gate is not None:
        from leyline.backends.gate import gated

        folder = model_folder(model or DEFAULT_MODEL) if kind == "local" else None
        return gated(make_backend(kind, model, base_url, api_key), gate, folder)
    if kind not in BACKENDS:
        raise UsageError(f"unknown backend {kind!r}; choose one of {', '.join(BACKENDS)}")
    if kind == "openai":
        from leyline.backends.openai import OpenAIBackend

        return OpenAIBackend(model, base_url=base_url, api_key=api_key)
    if kind == "sglang":
        if base_url is None:
            raise UsageError(
                "--backend sglang needs --base-url, such as http://localhost:30000; start it: leyline serve"
            )
        from leyline.backends.sglang.client import SGLangBackend

        # The model is the server's; a folder given here only holds the same tokenizer and chat template.
        return SGLangBackend(base_url, tokenizer=None if model is None else model_folder(model), api_key=api_key)
    if any(util.find_spec(name) is None for name in ("torch", "transformers")):
        raise UsageError("the local backend is not installed; run: pip install 'leyline-kv[local]'")
    folder = model_folder(model or DEFAULT_MODEL)
    _choose_threads(folder)
    from leyline.backends.local import LocalBackend

    return LocalBackend(folder)


def _choose_threads(folder: Path) -> None:
    """One thread for a small model: its matrices are so small that more threads mostly wait for each other."""
    import torch

    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    if size < SMALL_MODEL and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def model_folder(name: str) -> Path:
    """A model folder by path, or a bundled model by name."""
    from leyline.evals import models

    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").exists():
            raise UsageError(f"{path} has no config.json; give a Hugging Face model folder")
        return path
    if name in models.names():
        return models.resolve(name)
    raise UsageError(f"no model {name!r}; give a model folder, or one of the bundled {', '.join(models.names())}")
