"""The public surface: these names, and an import that costs nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

import leyline
import leyline.harness

NAMES = [
    "DROP",
    "Directive",
    "EditScript",
    "LeylineError",
    "MessageEdit",
    "Mode",
    "Policy",
    "Receipt",
    "Session",
    "__version__",
    "load_policy",
    "rule",
    "truncate",
    "wrap",
]
HARNESS = [
    "AgentResult",
    "Event",
    "Ledger",
    "LedgerError",
    "Limits",
    "Session",
    "SessionTurn",
    "Totals",
    "Trajectory",
    "TrajectoryError",
    "TrajectoryWriter",
    "read_trajectory",
    "run_agent",
]


def test_the_public_names_are_these_and_all_exist() -> None:
    assert leyline.__all__ == NAMES
    assert all(getattr(leyline, name) is not None for name in NAMES)
    assert set(NAMES) <= set(dir(leyline))
    assert leyline.harness.__all__ == HARNESS
    assert all(hasattr(leyline.harness, name) for name in HARNESS)


def test_a_star_import_gives_exactly_them() -> None:
    namespace: dict[str, object] = {}
    exec("from leyline import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(NAMES)


def test_a_name_that_is_none_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"leyline.*nothing"):
        _ = leyline.nothing  # type: ignore[attr-defined]


def loaded_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after `code`."""
    show = f"{code}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", show], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import leyline", {"openai", "torch", "transformers", "sglang", "typer", "httpx", "pydantic"}),
        ("import leyline; leyline.Session; leyline.rule; leyline.wrap", {"openai", "torch", "transformers", "typer"}),
        ("import leyline.harness", {"openai", "torch", "transformers", "typer", "sglang"}),
    ],
)
def test_importing_is_light(code: str, heavy: set[str]) -> None:
    loaded = loaded_after(code)
    assert "leyline" in loaded
    assert not loaded & heavy
