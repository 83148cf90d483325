"""Grading of stored test logs with swebench's own graders, of releases 4 and 5; and what scoring needs to work."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from leyline.directives import JsonMapping, JsonObject
from leyline.suites.suite import SuiteError
from leyline.suites.swebench.container import docker_missing
from leyline.suites.swebench.rows import INSTALL

RELEASES = (4, 5)
ROW_FIELDS = ("image", "eval_script", "log_parser", "eval_type")  # what release 5 reads from a row, and 4 derives
DISK_GB = 120  # what swebench's own documentation asks for


@dataclass(frozen=True)
class Verdict:
    """What swebench says of one patch. applied: the patch applied and the tests ran; report: its whole report."""

    resolved: bool
    applied: bool
    report: JsonMapping

    @property
    def detail(self) -> str | None:
        """One line for a record; None when resolved."""
        if self.resolved:
            return None
        if not self.applied:
            reason = self.report.get("infra_failure_reason")
            return f"not resolved: no test result ({reason or 'the patch did not apply, or the tests did not run'})"
        status = self.report.get("tests_status", {})
        parts = []
        for kind in ("FAIL_TO_PASS", "PASS_TO_PASS"):
            counts = status.get(kind, {})
            good, bad = len(counts.get("success", ())), len(counts.get("failure", ()))
            parts.append(f"{kind} {good}/{good + bad}")
        return f"not resolved: {', '.join(parts)}"


def release() -> int | None:
    """The installed major release of swebench, or None."""
    try:
        return int(metadata.version("swebench").split(".")[0])
    except metadata.PackageNotFoundError:
        return None


def grade(row: Mapping[str, object], prediction: Mapping[str, object], log: Path) -> Verdict:
    """The verdict on a stored `test_output.txt`; needs no Docker.

    row: with FAIL_TO_PASS and PASS_TO_PASS as lists. prediction: with the three keys. Raises SuiteError.
    """
    spec = _spec(row)
    from swebench.harness.grading import get_eval_report

    name = row["instance_id"]
    try:
        found = get_eval_report(
            test_spec=spec, prediction=dict(prediction), test_log_path=str(log), include_tests_status=True
        )[name]
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise SuiteError(f"{name}: swebench cannot grade {log}: {type(error).__name__}: {error}") from None
    return verdict(found)


def verdict(report: Mapping[str, object]) -> Verdict:
    """From an instance's part of a `report.json`."""
    return Verdict(bool(report.get("resolved")), bool(report.get("patch_successfully_applied")), report)


def _spec(row: JsonMapping) -> Any:
    """What the graders of the installed release read of a row."""
    installed = release()
    if installed not in RELEASES:
        raise SuiteError(f"grading needs swebench 4 or 5: {INSTALL}")
    tests = {field: list(row[field]) for field in ("FAIL_TO_PASS", "PASS_TO_PASS")}
    common = {"instance_id": row["instance_id"], "repo": row["repo"], "version": str(row.get("version", ""))}
    if installed == 5:
        from swebench.types import TestSpec

        _need(row, ("log_parser", "eval_type"))
        from swebench.harness.log_parsers import PARSER_REGISTRY

        if row["log_parser"] not in PARSER_REGISTRY:
            raise SuiteError(f"{row['instance_id']}: swebench has no log parser {row['log_parser']!r}")
        parts = {"image": str(row.get("image", "")), "log_parser": row["log_parser"], "eval_type": row["eval_type"]}
        return TestSpec(**common, **tests, **parts, eval_script_list=[])
    from swebench.harness.constants import MAP_REPO_VERSION_TO_SPECS
    from swebench.harness.test_spec.test_spec import TestSpec as TestSpec4

    if common["version"] not in MAP_REPO_VERSION_TO_SPECS.get(row["repo"], {}):
        raise SuiteError(
            f"{row['instance_id']}: swebench 4 does not know {row['repo']} {common['version']}; use swebench 5"
        )
    scripts: JsonObject = {f"{kind}_script_list": [] for kind in ("repo", "eval", "env")}
    return TestSpec4(
        **common, **tests, **scripts, arch="x86_64", language=_language(row["repo"]), docker_specs={}, namespace=None
    )


def _language(repo: str) -> str:
    from swebench.harness.constants import MAP_REPO_TO_EXT

    return str(MAP_REPO_TO_EXT[repo])


def _need(row: Mapping[str, object], fields: Iterable[str]) -> None:
    lacking = [field for field in fields if not row.get(field)]
    if lacking:
        raise SuiteError(
            f"{row['instance_id']}: swebench 5 needs {', '.join(lacking)} in the row; take this year's revision of the "
            "data set, or swebench 4: pip install 'swebench<5'"
        )


def scoring_problems(rows: Iterable[Mapping[str, object]], how: str) -> tuple[list[str], list[str]]:
    """What stands in the way of scoring, and what a person should know; both empty for `how="none"`."""
    if how == "none":
        return [], []
    problems, notes = [], []
    installed = release()
    if installed is None:
        problems.append(f"swebench is not installed ({INSTALL})")
    elif installed not in RELEASES:
        problems.append(f"swebench {metadata.version('swebench')} is not supported ({INSTALL})")
    fields = ROW_FIELDS if how == "docker" and installed == 5 else ("log_parser", "eval_type") if installed == 5 else ()
    fields = (*fields, "eval_script") if how == "here" else fields
    for row in rows:
        lacking = [field for field in dict.fromkeys(fields) if not row.get(field)]
        if lacking:
            hint = "" if how == "here" else "; swebench 4 does without: pip install 'swebench<5'"
            problems.append(f"row {row['instance_id']} has no {', '.join(lacking)}{hint}")
            break
    if how == "docker":
        missing = docker_missing()
        if missing:
            problems.append(f"{missing}; swebench runs the tests in its images")
        free = shutil.disk_usage("/").free / 1e9
        if free < DISK_GB:
            notes.append(f"{free:.0f} GB of disk are free; swebench's images may need {DISK_GB}")
        if platform.machine() not in ("x86_64", "AMD64"):
            notes.append(f"swebench's images are for x86_64, this machine is {platform.machine()}")
    else:
        notes.append("tests run on this machine, not in swebench's images: the verdicts are not official ones")
    return problems, notes
