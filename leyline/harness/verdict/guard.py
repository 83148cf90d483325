"""Keep new files of an agent from standing in front of the modules that a test run is made of, and see the run's end.
Standard library only.

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


def _watch_end() -> None:
    """Leave a note that is gone when this interpreter comes to its end, as `os._exit` does not let it.

    Only for those that the command itself starts: what they start has its own way to end.
    """
    import atexit
    import os

    note = os.environ.pop("LEYLINE_ENDS", None)
    if note is None:
        return
    number = os.getpid()
    place = f"{note}.{number}"
    open(place, "x").close()  # noqa: PTH123

    def end() -> None:
        if os.getpid() == number:  # a fork's end is not this one's
            os.unlink(place)  # noqa: PTH108

    atexit.register(end)


def _other_customisation(here: str) -> None:
    """Run the `sitecustomize` in whose place this one stands, if there is one."""
    import importlib

    path, own = sys.path[:], sys.modules.pop("sitecustomize")
    sys.path[:] = [place for place in path if place != here]
    try:
        importlib.import_module("sitecustomize")
    except ImportError:
        sys.modules["sitecustomize"] = own
    finally:
        sys.path[:] = path


def _main() -> None:
    import os  # there since the start, as is what it imports

    _watch_end()
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    if not os.path.exists(os.path.join(here, "guard.json")):  # noqa: PTH110, PTH118
        _other_customisation(here)
        return
    path = sys.path[:]
    library = os.path.dirname(os.__file__)  # noqa: PTH120
    # A command may have a path of its own.
    sys.path[:] = [library, os.path.join(library, "lib-dynload")]  # noqa: PTH118
    try:
        import importlib.machinery  # noqa: F401 - used by the guard
        import json
    finally:
        sys.path[:] = path
    with open(os.path.join(here, "guard.json"), encoding="utf-8") as file:  # noqa: PTH118, PTH123
        guard = Guard(**json.load(file))
    sys.meta_path.insert(0, guard)  # type: ignore[arg-type]
    sys.addaudithook(guard.watch)


if __name__ == "sitecustomize":
    _main()
