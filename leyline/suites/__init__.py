"""Suites by name. A name of the form `package.module:factory` is a suite of your own."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from leyline.suites.spec import SuiteSpec
from leyline.suites.suite import Attempt, Suite, SuiteError, TaskInfo

__all__ = ["SUITES", "Attempt", "Suite", "SuiteError", "SuiteSpec", "TaskInfo", "load_suite"]

SUITES = {
    "micro": "leyline.suites.micro.micro_suite:MicroSuite",
    "debug_gym": "leyline.suites.debug_gym.gym_suite:DebugGymSuite",
    "mini_nightmare": "leyline.suites.debug_gym.folders:mini_nightmare",
    "swebench": "leyline.suites.swebench.swebench_suite:SwebenchSuite",
}


def load_suite(spec: SuiteSpec) -> Suite:
    """Build a suite. Raises SuiteError for an unknown name or options the suite does not take."""
    path = SUITES.get(spec.name, spec.name)
    module, colon, attribute = path.partition(":")
    if not colon:
        near = get_close_matches(spec.name, SUITES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise SuiteError(f"unknown suite {spec.name!r}; there are {', '.join(SUITES)}{hint}")
    try:
        factory: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise SuiteError(f"suite {spec.name!r} cannot be imported: {error}") from None
    if not callable(factory):
        raise SuiteError(f"suite {spec.name!r} is no class and no function that makes a suite")
    options = dict(spec.options)
    for key in ("folder", "dataset", "repos") if spec.name in SUITES else ():
        value = options.pop(key, None)
        if value is not None:
            options[key] = str(value)  # `folder=5` is a number to the command line
    try:
        inspect.signature(factory).bind(**options)
    except TypeError as error:
        known = ", ".join(inspect.signature(factory).parameters) or "none"
        raise SuiteError(f"suite {spec.name}: {error}; its options are {known}") from None
    suite: Suite = factory(**options)
    if lacking := [name for name in ("tasks", "digest", "open", "preflight") if not hasattr(suite, name)]:
        raise SuiteError(f"suite {spec.name!r} makes something that is no suite: it has no {', '.join(lacking)}")
    for name in ("default_n", "score"):  # suites written before these were declared
        if not hasattr(suite, name):
            setattr(suite, name, None)
    return suite
