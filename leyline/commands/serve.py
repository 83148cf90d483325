"""`leyline serve`: start a stock SGLang server that splices."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import typer

from leyline import models
from leyline.backends.sglang import launch
from leyline.commands.terminal import say
from leyline.directives import LeylineError
from leyline.models.find import is_named, model_folder

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def serve(
    ctx: typer.Context,
    model: str = typer.Argument(help="A model folder, a bundled model (tiny-gqa, tiny-mla), or a Hugging Face name."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Print the command and its environment, and start nothing."),
) -> None:
    """Start an SGLang server that takes directives.

    Options of SGLang come behind the model and are passed on as they are; `leyline serve MODEL --help` lists them.
    Without a GPU the server runs on the CPU with plain PyTorch.

    Example: leyline serve tiny-mla --port 30000

    Example: leyline serve Qwen/Qwen3-8B --tp 2 --enable-metrics
    """
    path, name = _model(model)
    planned = launch.plan_launch(path, ctx.args, environ=os.environ, has_cuda=launch.cuda_available, served_name=name)
    if dry_run:
        words = [f"{key}={shlex.quote(value)}" for key, value in planned.environment.items()]
        say(" ".join([*words, shlex.join(planned.command)]))
        return
    for note in planned.notes:
        say(f"leyline: {note}", err=True)
    launch.start(planned)


def _model(name: str) -> tuple[str, str | None]:
    """The model as SGLang finds it, and the name to serve it under where the path would not tell."""
    path = Path(name).expanduser()
    if path.is_dir() or is_named(name):
        return str(model_folder(name)), None if path.is_dir() else name
    if path.exists() or not _HUB_NAME.fullmatch(name) or name.startswith((".", "/")):
        shown = ", ".join(models.names())
        raise LeylineError(
            f"no model {name!r}; give a model folder, a name of the Hugging Face hub such as Qwen/Qwen3-8B, "
            f"or a bundled model ({shown})"
        )
    return name, None
