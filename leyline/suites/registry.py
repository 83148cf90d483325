"""Suites by name: built in, of installed packages, or `package.module:factory`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points

from leyline.directives.complaints import did_you_mean
from leyline.suites.spec import SuiteSpec
from leyline.suites.suite import Suite, SuiteError

GROUP = "leyline.suites"
SUITES = {
    "micro": "leyline.suites.micro.micro_suite:MicroSuite",
    "debug_gym": "leyline.suites.debug_gym.gym_suite:DebugGymSuite",
    "mini_nightmare": "leyline.suites.debug_gym.folders:mini_nightmare",
    "swebench": "leyline.suites.swebench.swebench_suite:SwebenchSuite",
}


def suite_names() -> list[str]:
    """Every name that `load_suite` takes: the built-in ones, then those of installed packages."""
    return [*SUITES, *sorted(_plugins())]


def load_suite(spec: SuiteSpec) -> Suite:
    """Build a suite. Raises SuiteError for an unknown name or options the suite does not take."""
    factory = _factory(spec.name)
    if not callable(factory):
        raise SuiteError(f"suite {spec.name!r} is no class and no function that makes a suite")
    options = dict(spec.options)
    for key in ("folder", "dataset", "repos") if spec.name in SUITES else ():
        value = options.pop(key, None)
        if value is not None:
            options[key] = str(value)  # `folder=5` is a number to the command line
    try:
        signature = inspect.signature(factory)
        signature.bind(**options)
    except TypeError as error:
        known = _choices(signature.parameters, spec.options)
        raise SuiteError(f"suite {spec.name}: {error}; its options are {known}") from None
    suite: Suite = factory(**options)
    if lacking := [name for name in ("tasks", "digest", "open", "preflight") if not hasattr(suite, name)]:
        raise SuiteError(f"suite {spec.name!r} makes something that is no suite: it has no {', '.join(lacking)}")
    for name in ("default_n", "score"):  # suites written before these were declared
        if not hasattr(suite, name):
            setattr(suite, name, None)
    return suite


def _factory(name: str) -> object:
    """What makes the suite of this name. A package cannot take the name of a built-in suite."""
    entry = None if name in SUITES else _plugins().get(name)
    module, colon, attribute = SUITES.get(name, name).partition(":")
    if entry is None and not colon:
        raise SuiteError(
            f"unknown suite {name!r}; there are {_choices(suite_names(), [name])}; "
            "one of your own is PACKAGE.MODULE:CLASS"
        )
    try:
        return entry.load() if entry else getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:
        where = f" ({entry.value})" if entry else ""
        said = " ".join(str(error).split()) or type(error).__name__
        raise SuiteError(f"suite {name!r}{where} cannot be imported: {said}") from None


def _plugins() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP) if entry.name not in SUITES}


def _choices(known: Iterable[str], given: Iterable[str]) -> str:
    """The known names, and the one that was meant where a given one is near it."""
    names = list(known)
    near = (did_you_mean(name, names) for name in given if name not in names)
    return (", ".join(names) or "none") + next(filter(None, near), "")
