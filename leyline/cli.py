"""The `leyline` command: mounts the sub-commands and turns every expected failure into one line.

Exit codes: 0 done, 1 the run finished but something in it failed, 2 bad input or a missing piece, 130 interrupted, 141
nobody reads the output any more.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, ClassVar

import typer

from leyline.commands.shape import Click, Command, LazyGroup, taking
from leyline.commands.terminal import safe, say
from leyline.directives import LeylineError
from leyline.directives.complaints import plain_complaint

# Some releases of typer carry a click of their own, so the class is taken from what typer itself raises.
_UsageError: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

CLOSED = 128 + 13  # as for a command that SIGPIPE ended; Python ignores that signal, for the sake of its sockets

SUBCOMMANDS = (
    ("run", "run:run", "Run an agent on one task or several, editing its context as it goes."),
    ("eval", "eval:app", "Measure what a policy does to solve rate and cache-hit rate."),
    ("policy", "policy:app", "List policies, show one, or test one on a recorded trajectory."),
    ("micro", "micro:app", "Show, export and measure the generated debugging tasks."),
    ("models", "models:app", "List the models that go by a name, and fetch the pretrained one."),
    ("serve", "serve:serve", "Start an SGLang server that takes directives."),
    (
        "replay",
        "replay:replay",
        "Replay recorded trajectories: what hits the cache, what is spliced, what is computed.",
    ),
    (
        "report",
        "report:report",
        "Write report.html, report.md, results.json and plots for one run directory or several.",
    ),
    (
        "proxy",
        "proxy:proxy",
        "Put a policy in front of any server that speaks chat completions, Responses or Anthropic messages.",
    ),
    ("bench", "bench:app", "Measure a server."),
    ("doctor", "doctor:doctor", "Say what works here, and what to install for the rest."),
)
"""Name, function or group below `leyline.commands`, and its summary: the help of `leyline` imports none of them."""

_SETTINGS: dict[str, dict[str, object]] = {
    "run": {"cls": taking(max_turns="--turns")},
    # Everything behind the model belongs to SGLang.
    "serve": {
        "context_settings": {
            "allow_extra_args": True,
            "ignore_unknown_options": True,
            "allow_interspersed_args": False,
        }
    },
}


def _load(name: str, place: str) -> Click:
    """The command or group, imported now."""
    from typer.main import get_command

    module, _, attribute = place.partition(":")
    found = getattr(import_module(f"leyline.commands.{module}"), attribute)
    around = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    if isinstance(found, typer.Typer):
        around.add_typer(found, name=name)
        group: Click = get_command(around)
        return group.commands[name]
    settings: Any = {"cls": Command, **_SETTINGS.get(name, {})}
    around.command(name, **settings)(found)
    command: Click = get_command(around)
    command.name = name
    return command


class _Root(LazyGroup):
    lazy: ClassVar[dict[str, tuple[Callable[[], Click], str]]] = {
        name: (partial(_load, name, place), summary) for name, place, summary in SUBCOMMANDS
    }


app = typer.Typer(
    name="leyline",
    cls=_Root,
    help="Edit what a language model remembers, cheaply.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(value: bool) -> None:
    if value:
        from leyline import __version__

        say(f"leyline {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: bool = typer.Option(False, "--version", "-V", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def main() -> None:
    """Entry point: one line for an expected failure, none for a closed pipe, a traceback only for a bug."""
    # The tokenizers library warns when a process that used it forks; workers and sandboxes fork.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # OpenMP's threads otherwise spin while they wait, and beside any other load take ten times the processor time.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # A kill or a closed terminal ends a run as Ctrl-C does: trajectories are closed, copies of files removed.
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(number, signal.default_int_handler)
    try:
        code = _call()
        sys.stdout.flush()
    except BrokenPipeError:
        code = CLOSED
    except SystemExit as left:  # how typer and rich themselves end for a closed pipe, as if something had failed
        if not isinstance(left.__context__, BrokenPipeError):
            raise
        code = CLOSED
    if code == CLOSED:  # nothing more can be said, and what is left in the buffers must not be tried again
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
    sys.exit(code)


def _call() -> int:
    """Run the command and say what went wrong; returns the exit code."""
    try:
        code = app(standalone_mode=False, prog_name="leyline")
    except LeylineError as error:
        say(f"leyline: {error}", err=True)
        code = 2
    except _UsageError as error:
        error.message = safe(plain_complaint(error.message))
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    if code == 130:  # some releases of typer turn Ctrl-C into this code themselves
        say("leyline: interrupted", err=True)
    return int(code or 0)
