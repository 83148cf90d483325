"""From a spec to a policy: by name, by dotted path, by file, or by entry point."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from leyline.directives import Message
from leyline.policies.base import BasePolicy, Policy
from leyline.policies.errors import PolicyError, nearest, one_line
from leyline.policies.registry import find
from leyline.policies.rule import RulePolicy
from leyline.policies.spec import Spec, parse


def load_policy(spec: str) -> Policy:
    """The policy that `spec` names.

    `keep_all`, `truncate_older_than(n=2)`, `then(drop_stale, redact(pattern='sk-\\w+'))`, `package.module:thing`,
    `rules.py:cut(max_chars=100)`. Inside another policy's arguments, put a file or `:` path in quotes.
    Raises PolicyError, one line, for whatever is wrong with it.
    """
    if not isinstance(spec, str) or not spec.strip():
        raise PolicyError("no policy given: name one, such as keep_all or 'truncate_older_than(n=2, max_chars=200)'")
    return _load(parse(spec, _load))


@dataclass(frozen=True)
class FunctionPolicy(BasePolicy):
    """A plain function `(messages, turn) -> messages` as a policy."""

    function: Callable[[Sequence[Message], int], list[Message]]

    @property
    def name(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)

    def transform(self, messages: Sequence[Message], turn: int) -> list[Message]:
        return self.function(messages, turn)


def _load(spec: Spec) -> Policy:
    return _build(resolve(spec.target), spec)


def resolve(target: str) -> Any:
    """The object a target names: a registered name, `FILE.py:NAME`, `package.module:NAME` or `package.module.NAME`."""
    place, colon, name = target.rpartition(":")
    if colon:
        module = _file(Path(place)) if place.endswith(".py") or "/" in place else _module(place, target)
    elif target.endswith(".py") or "/" in target:
        names = ", ".join(_policies_in(_file(Path(target)))) or "no policy"
        raise PolicyError(f"{target}: say which policy of the file, as {target}:NAME; it defines {names}")
    elif "." in target:
        place, _, name = target.rpartition(".")
        module = _module(place, target)
    else:
        return find(target)
    found: object = module
    for part in name.split("."):
        if not hasattr(found, part):
            known = _policies_in(module)
            defines = ", ".join(known) or "no policy"
            raise PolicyError(f"{place} has no {name!r};{nearest(name, known)} It defines {defines}")
        found = getattr(found, part)
    return found


def _build(thing: object, spec: Spec) -> Policy:
    kwargs = dict(spec.kwargs)
    if isinstance(thing, RulePolicy):
        if spec.args:
            raise PolicyError(f"{spec.target}: name the settings of a rule, as {spec.target}(name=value)")
        made_rule = thing(**kwargs) if spec.called else thing
        made_rule.check_complete()  # here rather than at the first turn, before a model is loaded
        return made_rule
    if isinstance(thing, Policy) and not isinstance(thing, type):
        if spec.args or kwargs:
            raise PolicyError(f"{spec.target} is a finished policy and takes no arguments; write {spec.target}")
        return thing
    if not callable(thing):
        raise PolicyError(
            f"{spec.target} is a {type(thing).__name__}, not a policy; name a rule, a policy or its class"
        )
    if not isinstance(thing, type) and list(inspect.signature(thing).parameters) == ["messages", "turn"]:
        if spec.args or kwargs:
            raise PolicyError(f"{spec.target} takes no settings; make it a @rule to give it some")
        return FunctionPolicy(thing)
    _check_arguments(thing, spec)
    try:
        made = thing(*spec.args, **kwargs)
    except PolicyError:
        raise
    except (Exception, SystemExit) as error:
        raise PolicyError(f"{spec.target} cannot be made: {one_line(error)}") from error
    if not isinstance(made, Policy):
        raise PolicyError(
            f"{spec.target} is not a policy: it gives a {type(made).__name__} without name and transform; "
            "decorate the function with @rule, or subclass BasePolicy"
        )
    return made


def _check_arguments(thing: Callable[..., object], spec: Spec) -> None:
    """Raise PolicyError naming the argument that does not fit, and the ones that do."""
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        return
    parameters = signature.parameters.values()
    names = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    takes = f"It takes {', '.join(names)}" if names else "It takes no settings"
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for name, _ in spec.kwargs:
            if name not in names:
                raise PolicyError(f"{spec.target}: no setting {name!r};{nearest(name, names)} {takes}")
    try:
        signature.bind(*spec.args, **dict(spec.kwargs))
    except TypeError as error:
        raise PolicyError(f"{spec.target}: {error}. {takes}") from None


def _module(name: str, target: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and name.split(".")[0] == error.name.split(".")[0]:
            raise PolicyError(
                f"{target}: there is no module {error.name!r}; install it, or give a file as path/to/rules.py:NAME"
            ) from None
        raise PolicyError(f"{target}: importing {name} failed: {one_line(error)}") from error
    except (Exception, SystemExit) as error:
        raise PolicyError(f"{target}: importing {name} failed: {one_line(error)}") from error


def _file(path: Path) -> ModuleType:
    """Run a Python file as a module of its own. It runs anew for each load, so that edits to it count."""
    if not path.is_file():
        raise PolicyError(f"{path}: no such file; give the path to a Python file with a rule, as rules.py:NAME")
    digest = hashlib.blake2b(str(path.resolve()).encode(), digest_size=6).hexdigest()
    spec = spec_from_file_location(f"leyline_rules_{path.stem}_{digest}", path)
    if spec is None or spec.loader is None:
        raise PolicyError(f"{path}: not a Python file; name it with .py at the end")
    module = module_from_spec(spec)
    # Dataclasses look their module up by name while the file runs.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        where = f" line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise PolicyError(f"{path}{where} cannot be run: {one_line(error)}") from error
    return module


def _policies_in(module: ModuleType) -> list[str]:
    """Names in a module that are rules, policies or policy classes of its own."""
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (
            (isinstance(value, Policy) and not isinstance(value, type))
            or (isinstance(value, type) and issubclass(value, BasePolicy) and value.__module__ == module.__name__)
        )
    )
