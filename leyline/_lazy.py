"""Names of a package that are imported when they are first used, so that importing the package costs nothing."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from sys import modules


def lazily(
    package: str, homes: Mapping[str, str], *, renamed: Mapping[str, str] | None = None
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package.

    homes: the modules, and the names that each gives, with spaces between; `load:load_records` renames one.
    renamed: old names of what the package gives, with the new ones; they go on to work, with a DeprecationWarning.
    """
    home: dict[str, tuple[str, str]] = {}
    for module, names in homes.items():
        for name in names.split():
            theirs, _, ours = name.partition(":")
            home[ours or theirs] = module, theirs

    def __getattr__(name: str) -> object:  # noqa: N807
        if renamed and name in renamed:
            return old_name(package, name, renamed[name])
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, theirs = home[name]
        value = getattr(import_module(module), theirs)
        setattr(modules[package], name, value)
        return value

    def __dir__() -> list[str]:  # noqa: N807
        return sorted({*vars(modules[package]), *home})

    return __getattr__, __dir__


def with_old_names(module: str, **renamed: str) -> Callable[[str], object]:
    """The `__getattr__` of a module some of whose names were changed: `Old="New"`."""

    def __getattr__(name: str) -> object:  # noqa: N807
        if name not in renamed:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return old_name(module, name, renamed[name])

    return __getattr__


def old_name(module: str, old: str, new: str) -> object:
    """What `old` is called now; says so in a DeprecationWarning."""
    warnings.warn(f"{module}.{old} is called {new} now", DeprecationWarning, stacklevel=3)
    return getattr(modules[module], new)
