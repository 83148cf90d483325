"""What a policy is made of: the text of every module that its code stands in, so that a rewritten one is another."""

from __future__ import annotations

import contextlib
import inspect
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

from leyline.policies.base import Policy

_MOST_OBJECTS = 10_000  # of a policy that holds half the program
_MOST_FILES = 500  # of a package; of a larger one only what the policy imports
_INSTALLED = tuple(Path(sysconfig.get_paths()[name]).resolve() for name in ("purelib", "platlib"))
_STANDARD = tuple(Path(sysconfig.get_paths()[name]).resolve() for name in ("stdlib", "platstdlib"))


def policy_sources(policy: Policy) -> list[str]:
    """The text of the modules that a policy comes from, however it was named: the first one first, others by path.

    Covered are the modules of its class, its functions and the policies inside it; of a package all modules; and what
    those import, if it is somebody's own file and not an installed package. Built-in policies have no text: they belong
    to the release. A module that is no Python text is given by its bytes in hex.
    """
    found: dict[Path, str] = {}
    roots: list[Path] = []
    for module in _modules(policy, set()):
        file = _file(module)
        if file is not None and _counts(module, file):
            roots.append(file)
            _collect(module, found)
    return [found[file] for file in roots[:1]] + [found[file] for file in sorted(found) if file not in roots[:1]]


def _modules(value: object, seen: set[int]) -> Iterator[ModuleType]:
    """The modules of an object's class or function, and of the objects that it holds."""
    plain = isinstance(value, str | bytes | int | float | complex | bool | None)
    if plain or id(value) in seen or len(seen) > _MOST_OBJECTS:
        return
    seen.add(id(value))
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        for part in list(value.values() if isinstance(value, Mapping) else value):
            yield from _modules(part, seen)
        return
    if isinstance(value, ModuleType):
        yield value
        return
    code = inspect.unwrap(value) if inspect.isroutine(value) else value if isinstance(value, type) else type(value)
    for owner in code.__mro__ if isinstance(code, type) else (code,):
        module = _module_of(owner)
        if module is not None:
            yield module
    for part in _held(value, code):
        yield from _modules(part, seen)


def _held(value: object, code: object) -> Iterator[object]:
    """What an object refers to: attributes, and what a function closes over."""
    for cell in getattr(code, "__closure__", None) or ():
        with contextlib.suppress(ValueError):  # not filled yet
            yield cell.cell_contents
    if isinstance(value, type):
        return
    slots = [slot for owner in type(value).__mro__ for slot in _slots(owner)]
    for name in ("__self__", "__wrapped__", "func", "args", "keywords", *slots):  # three are of a functools.partial
        with contextlib.suppress(Exception):
            yield getattr(value, name)
    yield from list(getattr(value, "__dict__", {}).values())


def _slots(owner: type) -> tuple[str, ...]:
    slots = owner.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _collect(module: ModuleType, found: dict[Path, str]) -> None:
    """Add the text of a module, of its package, and of the modules it uses that belong to the policy."""
    todo = [module]
    while todo:
        here = todo.pop()
        file = _file(here)
        if file is None or file in found:
            continue
        found[file] = _text(file)
        for other in _package_files(here):
            found.setdefault(other, _text(other))
        package = here.__name__.partition(".")[0]
        for value in list(vars(here).values()):
            used = value if isinstance(value, ModuleType) else _module_of(value)
            place = _file(used) if used is not None else None
            if used is None or place is None or not _counts(used, place):
                continue
            if used.__name__.partition(".")[0] == package or not _below(place, _INSTALLED):
                todo.append(used)


def _package_files(module: ModuleType) -> list[Path]:
    """Every Python file of the package that a module belongs to; none of a module that stands alone."""
    top = sys.modules.get(module.__name__.partition(".")[0])
    file = _file(top) if top is not None and hasattr(top, "__path__") else None
    if file is None or file.name != "__init__.py":
        return []
    files = sorted(path.resolve() for path in file.parent.rglob("*.py") if path.is_file())
    return files if len(files) <= _MOST_FILES else []


def _module_of(value: object) -> ModuleType | None:
    try:
        name = value.__module__
    except Exception:  # an object may answer as it likes
        return None
    return sys.modules.get(name) if isinstance(name, str) else None


def _counts(module: ModuleType, file: Path) -> bool:
    """Whether a module may be part of a policy: not of this package, not of Python itself."""
    ours = module.__name__.partition(".")[0] == "leyline"
    return not ours and (not _below(file, _STANDARD) or _below(file, _INSTALLED))


def _below(file: Path, places: tuple[Path, ...]) -> bool:
    return any(file.is_relative_to(place) for place in places)


def _file(module: ModuleType) -> Path | None:
    place = getattr(module, "__file__", None)
    file = Path(place).resolve() if isinstance(place, str) else None
    return file if file is not None and file.is_file() else None


def _text(file: Path) -> str:
    data = file.read_bytes()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.hex()
