"""A row's own eval script, run in a checkout on this machine: the log that swebench's graders read, without Docker.

Good for rows whose environment is this machine's. The commands are those of swebench's harness: the patch goes on with
the same fallbacks, and the script runs as it stands, with the checkout in the place of /testbed.
"""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory

from leyline.directives import JsonMapping
from leyline.harness.sandbox.sandbox import CommandLimits, Sandbox
from leyline.suites.swebench.container import TESTBED
from leyline.suites.swebench.repos import Repositories

PATCH_FAILED = ">>>>> Patch Apply Failed"
TIMED_OUT = ">>>>> Tests Timed Out"
_APPLY = (
    "git apply --verbose",
    "git apply --verbose --3way",
    "git apply --verbose --reject",
    "patch --batch --forward --fuzz=5 -p1 -i",
)
_LIMITS = CommandLimits(seconds=1800, processes=1024, output=50_000_000, file_bytes=1 << 30)


def run_tests(row: JsonMapping, patch: str, repositories: Repositories, log: Path, *, seconds: float) -> None:
    """Write `test_output.txt` to `log`. Raises SuiteError where the repository cannot be had."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with repositories.checkout(row, history=True) as tree, TemporaryDirectory(prefix="leyline-home-") as home:
        sandbox = Sandbox(tree, home, limits=_LIMITS)
        patch_file, script = Path(home, "patch.diff"), Path(home, "eval.sh")
        patch_file.write_text(patch, encoding="utf-8", errors="surrogateescape")
        script.write_text(row["eval_script"].replace(TESTBED, str(tree)), encoding="utf-8")
        for attempt, command in enumerate(_APPLY):
            if attempt:
                sandbox.run("git checkout -- . ; git clean -fd")
            result = sandbox.run(f"{command} {patch_file}")
            if result.exit_code == 0:
                break
        else:
            log.write_text(f"{PATCH_FAILED}:\n{result.output}", encoding="utf-8")
            return
        result = sandbox.run(["/bin/bash", str(script)], seconds=seconds)
    output = re.sub(r"\x1b\[[0-9;]*m", "", result.output)
    if result.killed:
        output += f"\n{TIMED_OUT}: {result.killed} after {result.seconds:.0f} s\n"
    log.write_text(output, encoding="utf-8")
