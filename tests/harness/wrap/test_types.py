"""What a type checker knows of a wrapped client."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import leyline

ROOT = Path(__file__).parents[3]
GOOD = """
import anthropic
import openai

import leyline

client = leyline.wrap(openai.OpenAI(), policy="keep_all", audit=True)
print(client.leyline.report(), client.chat.completions)
print(leyline.wrap(openai.AsyncOpenAI()).leyline.last)
print(leyline.wrap(anthropic.Anthropic()).leyline.report(), leyline.wrap(anthropic.AsyncAnthropic()).leyline.last)
"""
WRONG = {
    "print(client.leylin)": "has no attribute",
    "leyline.wrp": "has no attribute",
    'leyline.wrap(openai.OpenAI(), polcy="keep_all")': "No overload variant",
    "leyline.wrap(openai.OpenAI(), sem=3)": "No overload variant",
}


def test_the_overloads_take_the_settings_of_wrap() -> None:
    pytest.importorskip("anthropic", reason="the types of its clients")
    from leyline.harness.wrap.typed import WrapSettings

    parameters = inspect.signature(leyline.wrap).parameters.values()
    assert {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} == set(WrapSettings.__annotations__)


def test_a_wrapped_client_is_typed_and_a_typo_is_found(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="needs the dev extra")
    for module in ("openai", "anthropic"):
        pytest.importorskip(module, reason="the types of its client")
    (tmp_path / "good.py").write_text(GOOD)
    for number, line in enumerate(WRONG):
        (tmp_path / f"wrong{number}.py").write_text(f"{GOOD}\n{line}\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", *sorted(tmp_path.glob("*.py"))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    said = done.stdout
    assert "good.py" not in said, said
    for number, problem in enumerate(WRONG.values()):
        assert any(f"wrong{number}.py" in line and problem in line for line in said.splitlines()), (number, said)
