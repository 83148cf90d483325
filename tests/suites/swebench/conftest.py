"""A small git repository with a bug, and its row in SWE-bench's form."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

BUGGY = (
    'def median(values):\n    """The middle value."""\n    ordered = values\n    return ordered[len(ordered) // 2]\n'
)
FIXED_LINE = "    ordered = sorted(values)"
TESTS = "from stats import median\n\n\ndef test_odd():\n    assert median([1, 2, 3]) == 2\n"
TEST_PATCH = """\
diff --git a/tests/test_stats.py b/tests/test_stats.py
--- a/tests/test_stats.py
+++ b/tests/test_stats.py
@@ -3,3 +3,7 @@

 def test_odd():
     assert median([1, 2, 3]) == 2
+
+
+def test_unsorted():
+    assert median([3, 1, 2]) == 2
"""
EVAL_SCRIPT = """\
#!/bin/bash
set -uxo pipefail
cd /testbed
git checkout {commit} tests/test_stats.py
git apply -v - <<'EOF_114329324912'
{patch}EOF_114329324912
: '>>>>> Start Test Output'
python -m pytest -rA -p no:cacheprovider tests/test_stats.py
: '>>>>> End Test Output'
git checkout {commit} tests/test_stats.py
"""
GOLD = """\
diff --git a/stats.py b/stats.py
--- a/stats.py
+++ b/stats.py
@@ -1,4 +1,4 @@
 def median(values):
     \"\"\"The middle value.\"\"\"
-    ordered = values
+    ordered = sorted(values)
     return ordered[len(ordered) // 2]
"""


def git(folder: Path, *arguments: str) -> str:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GIT_CONFIG_NOSYSTEM": "1",
        **{f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    done = subprocess.run(["git", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="session")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the repository acme__stats; the bug is at HEAD~1, its fix at HEAD."""
    folder = tmp_path_factory.mktemp("repos")
    repo = folder / "acme__stats"
    (repo / "tests").mkdir(parents=True)
    (repo / "stats.py").write_text(BUGGY)
    (repo / "conftest.py").write_text("")
    (repo / "tests" / "test_stats.py").write_text(TESTS)
    (repo / ".gitignore").write_text("build/\n")
    git(repo, "init", "-q", "-b", "main")
    git(repo, "add", "-A")
    git(repo, "commit", "-q", "-m", "start")
    (repo / "stats.py").write_text(BUGGY.replace("    ordered = values", FIXED_LINE))
    git(repo, "commit", "-q", "-am", "fix")
    return folder


@pytest.fixture(scope="session")
def row(repositories: Path) -> dict[str, Any]:
    commit = git(repositories / "acme__stats", "rev-parse", "HEAD~1")
    return {
        "instance_id": "acme__stats-1",
        "repo": "acme/stats",
        "base_commit": commit,
        "version": "1.0",
        "problem_statement": "median([3, 1, 2]) gives 1. It should sort first.",
        "patch": GOLD,
        "test_patch": TEST_PATCH,
        "FAIL_TO_PASS": json.dumps(["tests/test_stats.py::test_unsorted"]),
        "PASS_TO_PASS": json.dumps(["tests/test_stats.py::test_odd"]),
        "image": "example.org/acme-stats:1",
        "eval_script": EVAL_SCRIPT.format(commit=commit, patch=TEST_PATCH),
        "log_parser": "parse_log_pytest",
        "eval_type": "pass_and_fail",
    }


@pytest.fixture
def rows_file(row: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    return path
