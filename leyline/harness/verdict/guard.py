"""Keep new files of an agent from standing in front of the modules that a test run is made of. Standard library only.

Laid as `sitecustomize.py` in a folder of its own, which the environment of a verdict puts on the path of its
interpreters, with `guard.json` beside it: `root`, the folder under test; `new`, the modules of the interpreter that a
new file there stands in front of; `asked`, modules and the names that the guarded files want of them; `used`, the
modules that its other files import.

Until a file of the folder runs, an interpreter finds its own modules, so a new `json.py` beside the tests is no part of
the runner. From then on the new modules are found that the folder's own files import, or tests that want of them what
the interpreter's do not have; where tests want what those have, they get it.
"""

import sys

AT_START = set(sys.modules)


class Guard:
    """A finder in front of all others, for the new names alone, and a watch over what is run."""

    def __init__(self, root: str, new: list[str], asked: dict[str, list[str]], used: list[str]) -> None:
        self._root, self._asked, self._used = root, asked, used
        self._held = set(new)
        self._waiting = True

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        if name not in self._held:
            return None
        from importlib import machinery

        places = [place for place in sys.path if place and not self._inside(place)]
        spec = machinery.BuiltinImporter.find_spec(name) or machinery.FrozenImporter.find_spec(name)
        return spec or machinery.PathFinder.find_spec(name, places)

    def watch(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "exec" and self._waiting and self._inside(getattr(arguments[0], "co_filename", "")):
            self._waiting = False
            self._let_go()

    def _let_go(self) -> None:
        for name in sorted(self._held - AT_START):
            wanted = self._asked.get(name)
            if (name not in self._used and wanted is None) or (wanted is not None and _serves(name, wanted)):
                continue
            self._held.discard(name)
            for module in [known for known in sys.modules if known.partition(".")[0] == name]:
                del sys.modules[module]

    def _inside(self, path: str) -> bool:
        import os

        real = os.path.realpath(path)
        return real == self._root or (real.startswith(self._root + os.sep) and os.path.exists(real))  # noqa: PTH110


def _serves(name: str, wanted: list[str]) -> bool:
    """Whether the interpreter's own module has all that is wanted of it."""
    import importlib

    try:
        module = importlib.import_module(name)
    except Exception:
        return False
    for each in wanted:
        if each != "*" and not hasattr(module, each):
            try:
                importlib.import_module(f"{name}.{each}")
            except Exception:
                return False
    return True


def asked_of(tree: object) -> dict[str, set[str]]:
    """The modules at the top that a program imports, each with the names that it wants of it."""
    import ast

    found: dict[str, set[str]] = {}
    bound: dict[str, str] = {}
    nodes = list(ast.walk(tree))  # type: ignore[arg-type]
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                top, _, below = alias.name.partition(".")
                found.setdefault(top, set()).update({below.partition(".")[0]} - {""})
                if not (alias.asname and below):
                    bound[alias.asname or top] = top
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            top, _, below = node.module.partition(".")
            found.setdefault(top, set()).update([below.partition(".")[0]] if below else [a.name for a in node.names])
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in bound:
            found[bound[node.value.id]].add(node.attr)
    return found


def _main() -> None:
    import os  # there since the start, as is what it imports

    path = sys.path[:]
    library = os.path.dirname(os.__file__)  # noqa: PTH120
    # A command may have a path of its own.
    sys.path[:] = [library, os.path.join(library, "lib-dynload")]  # noqa: PTH118
    try:
        import importlib.machinery  # noqa: F401 - used by the guard
        import json
    finally:
        sys.path[:] = path
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    with open(os.path.join(here, "guard.json"), encoding="utf-8") as file:  # noqa: PTH118, PTH123
        guard = Guard(**json.load(file))
    sys.meta_path.insert(0, guard)  # type: ignore[arg-type]
    sys.addaudithook(guard.watch)


if __name__ == "sitecustomize":
    _main()
