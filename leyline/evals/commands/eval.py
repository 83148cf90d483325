"""`leyline eval`: suites under several arms, and the other evals as sub-commands beside them."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

SUITE = "SUITE"


class _Group(TyperGroup):
    """A word that is no sub-command is the name of a suite: `leyline eval micro` runs the command SUITE with it."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            return SUITE, self.commands[SUITE], args
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_Group,
    help="Measure what a policy does to solve rate and cache-hit rate. For example: leyline eval micro --n 20",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command(SUITE)
def suite(
    name: str = typer.Argument(..., metavar="SUITE", help="micro, mini_nightmare, debug_gym, swebench."),
) -> None:
    """Run a suite's tasks under several arms."""
    from leyline.evals.config import SuiteSpec
    from leyline.evals.suites import load_suite

    load_suite(SuiteSpec(name=name))
