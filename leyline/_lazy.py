"""Names of a package that are imported when they are first used, so that importing the package costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from sys import modules


def lazily(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package.

    homes: the modules, and the names that each gives, with spaces between; `load:load_records` renames one.
    """
    home: dict[str, tuple[str, str]] = {}
    for module, names in homes.items():
        for name in names.split():
            theirs, _, ours = name.partition(":")
            home[ours or theirs] = module, theirs

    def __getattr__(name: str) -> object:  # noqa: N807
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, theirs = home[name]
        value = getattr(import_module(module), theirs)
        setattr(modules[package], name, value)
        return value

    def __dir__() -> list[str]:  # noqa: N807
        return sorted({*vars(modules[package]), *home})

    return __getattr__, __dir__
