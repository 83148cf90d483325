"""Suites: what agents work on, task by task. One of your own is `package.module:factory`, or an entry point."""

from leyline.suites.registry import SUITES, load_suite, suite_names
from leyline.suites.spec import SuiteSpec
from leyline.suites.suite import Attempt, Suite, SuiteError, TaskInfo

__all__ = ["SUITES", "Attempt", "Suite", "SuiteError", "SuiteSpec", "TaskInfo", "load_suite", "suite_names"]
