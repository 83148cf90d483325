"""The source of a policy: whatever it is called by, a rewritten one is another."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from leyline.policies import load_policy
from leyline.policies.source import policy_sources

RULE = """
from leyline.policies import rule, truncate
{more}
@rule(roles="tool")
def cut(message, ctx):
    return truncate(message, max_chars={chars})
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Writes a module where it can be imported, and forgets what was imported before."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def make(name: str, text: str) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        for known in [known for known in sys.modules if known.partition(".")[0] in ("mine", "pack", "helper")]:
            monkeypatch.delitem(sys.modules, known)
        return file

    return make


def of(spec: str) -> list[str]:
    return policy_sources(load_policy(spec))


def rule(chars: int, more: str = "") -> str:
    return RULE.format(chars=chars, more=more)


def test_built_in_policies_have_none() -> None:
    for spec in ("keep_all", "truncate_older_than(n=2)", "then(drop_stale, protect(keep_last(n=2), last=3))"):
        assert of(spec) == []


@pytest.mark.parametrize(
    "spec",
    [
        "mine.py:cut",
        "mine:cut",
        "mine.cut",
        "then(drop_stale, 'mine.py:cut')",
        "then(drop_stale, 'mine:cut')",
        "with_mode('mine:cut', mode='forget')",
    ],
)
def test_a_rule_by_file_by_path_and_inside_another(write: Callable[[str, str], Path], spec: str) -> None:
    write("mine.py", rule(50))
    assert of(spec) == [rule(50)]
    write("mine.py", rule(60))
    assert of(spec) == [rule(60)]


@pytest.mark.parametrize("spec", ["mine.py:cut", "mine:cut"])
def test_what_a_rule_imports_belongs_to_it(write: Callable[[str, str], Path], spec: str) -> None:
    write("mine.py", rule(50, "from helper import much\nimport json, pytest\n"))
    write("helper.py", "def much(): return 1\n")
    first = of(spec)
    assert len(first) == 2
    write("helper.py", "def much(): return 2\n")
    assert of(spec) != first


@pytest.mark.parametrize("spec", ["pack:cut", "pack.rules:cut", "pack.rules.cut"])
def test_all_modules_of_a_package_belong_to_it(write: Callable[[str, str], Path], spec: str) -> None:
    write("pack/__init__.py", "from pack.rules import cut\n")
    write("pack/rules.py", rule(50))
    write("pack/later.py", "LIMIT = 1\n")  # imported inside a function, perhaps
    first = of(spec)
    assert len(first) == 3
    write("pack/later.py", "LIMIT = 2\n")
    assert of(spec) != first
    write("pack/later.py", "LIMIT = 1\n")
    assert of(spec) == first
    write("pack/rules.py", rule(60))
    assert of(spec) != first


def test_a_plug_in(write: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from leyline.policies import registry

    write("mine.py", rule(50))
    entry = metadata.EntryPoint("plugged", "mine:cut", "leyline.policies")
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry])
    assert of("plugged") == of("then(plugged, drop_stale)") == [rule(50)]
    write("mine.py", rule(60))
    assert of("plugged") == [rule(60)]


def test_classes_closures_and_plain_functions(write: Callable[[str, str], Path]) -> None:
    text = """
from leyline.policies import BasePolicy
from helper import much

class Own(BasePolicy):
    def __init__(self, keep=much):
        self.keep = keep
    name = "own"
    def transform(self, messages, turn):
        return list(messages)

def plain(messages, turn):
    return list(messages)

def made(n=2):
    return Own(lambda: n)
"""
    write("mine.py", text)
    write("helper.py", "def much(): return 1\n")
    for spec in ("mine:Own", "mine:plain", "mine:made(n=3)"):
        assert of(spec) == [text, "def much(): return 1\n"]


def test_an_object_that_answers_to_everything_does_no_harm(write: Callable[[str, str], Path]) -> None:
    write("mine.py", rule(50, "from unittest import mock\nodd = mock.MagicMock()\n"))
    assert len(of("mine:cut")) == 1
    policy = load_policy("keep_all")
    loop = SimpleNamespace()
    loop.self = loop
    object.__setattr__(policy, "odd", loop)
    assert policy_sources(policy) == []
