"""How every command looks and is called: plain help, whole summaries, and options that had another name.

typer's own help differs from release to release (`{name}`, `<list[Path]>`, summaries cut at 80 columns). These classes
write it the way other Unix commands do, from the same parameters.
"""

from __future__ import annotations

import re
from collections import UserDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

from typer.core import TyperCommand, TyperGroup

from leyline.commands.terminal import say

Click = Any  # contexts, parameters and commands: some releases of typer carry a click of their own, so no name fits all

_TYPE = re.compile(r"(<|\b)(?:list\[)?(str|text|int|integer|float|path|file|directory)(?: range)?\]?(>|\b)", re.I)
_WORDS = {"int": "N", "integer": "N", "float": "NUMBER", "path": "PATH", "file": "FILE", "directory": "FOLDER"}


class Command(TyperCommand):
    """A command whose help says what it takes in plain words. `renamed`: old option -> its name of today."""

    renamed: ClassVar[Mapping[str, str]] = {}

    def parse_args(self, ctx: Click, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _today(args, self.renamed))

    def collect_usage_pieces(self, ctx: Click) -> list[str]:
        return ["[OPTIONS]", *(_argument(p) for p in self.get_params(ctx) if p.param_type_name == "argument")]

    def format_options(self, ctx: Click, formatter: Click) -> None:
        arguments, options = [], []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            if parameter.param_type_name == "argument":
                arguments.append((_name(parameter), record[1].removesuffix("  [required]")))
            else:
                options.append((_options(record[0]), record[1]))
        for title, rows in (("Arguments", arguments), ("Options", options)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


class Group(TyperGroup):
    """A group whose list of commands shows each summary as a whole."""

    def format_commands(self, ctx: Click, formatter: Click) -> None:
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                rows.append((name, _summary(command)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class LazyGroup(Group):
    """A group that imports a command when it is called; its help shows the summaries that stand in `lazy`.

    lazy: name -> (what gives the command, its summary).
    """

    lazy: ClassVar[Mapping[str, tuple[Callable[[], Click], str]]] = {}

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        self.commands = _Loading(self.lazy)

    def format_commands(self, ctx: Click, formatter: Click) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in self.lazy.items()])


class _Loading(UserDict[str, Click]):
    """Commands by name, each loaded when it is looked up."""

    def __init__(self, lazy: Mapping[str, tuple[Callable[[], Click], str]]) -> None:
        super().__init__()
        self._lazy = dict(lazy)

    def __getitem__(self, name: str) -> Click:
        if name in self._lazy and name not in self.data:
            self.data[name] = self._lazy[name][0]()
        return self.data[name]

    def __contains__(self, name: object) -> bool:
        return name in self._lazy or name in self.data

    def __iter__(self) -> Iterator[str]:
        return iter({**self._lazy, **self.data})

    def __len__(self) -> int:
        return len({**self._lazy, **self.data})


def taking(**renamed: str) -> type[Command]:
    """A command class that still takes old names of options, with a line that says the new one.

    The keys are old names with `_` for `-`: `taking(url="--base-url")`.
    """
    old = {f"--{name.replace('_', '-')}": new for name, new in renamed.items()}
    return type("Command", (Command,), {"renamed": old})


def _today(args: list[str], renamed: Mapping[str, str]) -> list[str]:
    """The arguments under the names of today; each old name is told once."""
    found: list[str] = []
    for place, word in enumerate(args):
        if word == "--":
            return [*found, *args[place:]]
        name, sign, value = word.partition("=")
        if name in renamed:
            say(f"leyline: {name} is called {renamed[name]} now", err=True)
            word = f"{renamed[name]}{sign}{value}"
        found.append(word)
    return found


def _name(parameter: Click) -> str:
    name = str(parameter.metavar or parameter.name).strip("[]{}.").upper()
    return f"{name}..." if parameter.nargs != 1 else name


def _argument(parameter: Click) -> str:
    return _name(parameter) if parameter.required else f"[{_name(parameter)}]"


def _options(names: str) -> str:
    """`--seam <int range>` as `--seam N`."""
    head, space, rest = names.rpartition(" --")  # only what stands behind the last name is a type
    last, gap, kind = rest.partition(" ")
    return f"{head}{space}{last}{gap}{_TYPE.sub(_word, kind)}"


def _word(match: re.Match[str]) -> str:
    return _WORDS.get(match.group(2).lower(), "TEXT")


def _summary(command: Click) -> str:
    """The first sentence of a command's help, on one line."""
    text = command.short_help or command.help or ""
    return " ".join(re.split(r"\n\s*\n|(?<=\.)\s", text.strip(), maxsplit=1)[0].split())
