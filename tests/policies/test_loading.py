"""Specs, names, files, dotted paths and entry points."""

import sys
import warnings
from importlib.metadata import EntryPoint, EntryPoints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyline.policies import (
    PolicyError,
    list_policies,
    load_policy,
    protect,
    redact,
    registry,
    then,
    truncate_older_than,
    when,
    with_mode,
)

RULES = """
from dataclasses import dataclass
from leyline.policies import BasePolicy, rule, truncate

@rule(roles="tool")
def cut(message, ctx, max_chars: int = 200):
    return truncate(message, max_chars)

@dataclass(frozen=True)
class KeepHead(BasePolicy):
    n: int = 1

    def transform(self, messages, turn):
        return list(messages[: self.n])

def plain(messages, turn):
    return messages[:1]

def factory(n=2):
    return KeepHead(n)

def other(a, b, c):
    return 3

ready = KeepHead(3)
number = 3
"""
MESSAGES = [{"role": "user", "content": "0123456789"}, {"role": "tool", "content": "0123456789" * 9}]


@pytest.fixture
def rules(tmp_path):
    path = tmp_path / "my rules.py"
    path.write_text(RULES)
    return path


@pytest.mark.parametrize(
    ("spec", "policy"),
    [
        ("truncate_older_than", truncate_older_than()),
        (" truncate_older_than ( n = 3 ) ", truncate_older_than(n=3)),
        ("truncate_older_than(3, 50)", truncate_older_than(3, 50)),
        (r"redact(pattern='sk-\w+\b')", redact(r"sk-\w+\b")),
        (r"redact('sk-\\w+')", redact(r"sk-\w+")),
        (r"redact(r'\(\\')", redact(r"\(\\")),
        (r"redact('it\'s')", redact("it's")),
        (
            r"then(truncate_older_than(n=2), redact(pattern='sk-\w+'))",
            then(truncate_older_than(n=2), redact(r"sk-\w+")),
        ),
        ("protect(truncate_older_than(n=1), tools=['edit'])", protect(truncate_older_than(n=1), tools=("edit",))),
        ("protect('truncate_older_than(n=1)', tools='edit')", protect(truncate_older_than(n=1), tools="edit")),
        ("when(truncate_older_than, every=3)", when(truncate_older_than(), every=3)),
        ("with_mode(truncate_older_than, 'FORGET')", with_mode(truncate_older_than(), "forget")),
    ],
)
def test_specs(spec, policy):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load_policy(spec)
    assert loaded == policy
    assert load_policy(str(loaded)) == policy


@given(st.text(min_size=1))
def test_any_text_survives_as_a_setting(text):
    policy = redact("secret", replacement=text) if "secret" not in text else redact("other", replacement="x")
    assert load_policy(str(policy)) == policy


@given(st.text(alphabet="then(keep_last=3,'\"[]{}:.*\\ \n#rb+-lambda)", max_size=40))
def test_any_spec_loads_or_says_why(spec):
    try:
        load_policy(spec)
    except PolicyError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_files(rules):
    assert load_policy(f"{rules}:cut(max_chars=4)").transform(MESSAGES, 1)[1]["content"].startswith("01\n[... 86 ")
    assert load_policy(f"{rules}:cut").name == "cut"
    assert len(load_policy(f"{rules}:KeepHead(n=1)").transform(MESSAGES, 1)) == 1
    assert len(load_policy(f"{rules}:plain").transform(MESSAGES, 1)) == 1
    assert load_policy(f"{rules}:factory(n=7)").n == 7
    assert load_policy(f"{rules}:ready").n == 3
    nested = load_policy(f"then('{rules}:cut(max_chars=4)', keep_all)")
    assert nested.transform(MESSAGES, 1)[1]["content"].startswith("01\n[... 86 ")


def test_an_edited_file_is_read_again(rules):
    assert load_policy(f"{rules}:factory").n == 2
    rules.write_text(RULES.replace("n=2", "n=5"))
    assert load_policy(f"{rules}:factory").n == 5


def test_dotted_paths(rules, monkeypatch):
    rules.rename(rules.with_name("dotted_rules_of_a_test.py"))
    monkeypatch.syspath_prepend(rules.parent)
    assert load_policy("dotted_rules_of_a_test:KeepHead(n=4)").n == 4
    assert load_policy("dotted_rules_of_a_test.KeepHead(n=4)").n == 4
    assert load_policy("then(dotted_rules_of_a_test.ready, keep_all)").policies[0].n == 3
    del sys.modules["dotted_rules_of_a_test"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("", ["no policy given", "keep_all"]),
        ("trunkate_older_than(n=2)", ["unknown policy 'trunkate_older_than'", "'truncate_older_than'", "policy list"]),
        ("truncate_older_than(m=2)", ["no setting 'm'", "It takes n, max_chars, mode"]),
        ("truncate_older_than(n=2, n=3)", ["truncate_older_than", "n is given twice"]),
        ("truncate_older_than(1, 2, 3)", ["truncate_older_than", "too many positional", "It takes"]),
        ("truncate_older_than(n=2", ["cannot read"]),
        ("truncate_older_than(n=2))", ["cannot read"]),
        ("truncate_older_than(n=1) + 1", ["cannot read"]),
        ("truncate_older_than(n=__import__('os'))", ["unknown policy '__import__'"]),
        ("truncate_older_than(n=1+1)", ["1 + 1", "neither a literal nor a policy"]),
        ("truncate_older_than(n=two)", ["unknown policy 'two'", "quote it"]),
        ("truncate_older_than(**{'n': 1})", ["not allowed"]),
        ("keep_all(lambda: 0)", ["lambda: 0", "neither a literal nor a policy"]),
        ("then(keep_al)", ["unknown policy 'keep_al'", "'keep_all'"]),
        ("keep_all()()", ["cannot read"]),
        ("then('keep_al')", ["unknown policy 'keep_al'"]),
        ("no_such_package:thing", ["no module 'no_such_package'"]),
        ("no_such_package.thing", ["no module 'no_such_package'"]),
        ("json:dumpz", ["json has no 'dumpz'"]),
        ("json:dumps", ["json:dumps", "missing a required argument"]),
        ("json:decoder", ["is a module, not a policy"]),
        ("missing.py:cut", ["missing.py", "no such file"]),
        ("{rules}", ["say which policy", "KeepHead", "cut", "ready"]),
        ("{rules}:cutt", ["no 'cutt'", "Did you mean 'cut'"]),
        ("{rules}:cut(3)", ["name the settings"]),
        ("{rules}:cut(size=3)", ["no setting 'size'", "max_chars"]),
        ("{rules}:ready(n=1)", ["takes no arguments"]),
        ("{rules}:plain(n=1)", ["takes no settings"]),
        ("{rules}:number", ["is a int, not a policy"]),
        ("{rules}:other(1, 2, 3)", ["is not a policy", "@rule"]),
        ("{rules}:KeepHead(m=1)", ["no setting 'm'", "n"]),
    ],
)
def test_errors_are_one_line_and_say_what_to_do(spec, words, rules):
    with pytest.raises(PolicyError) as caught:
        load_policy(spec.replace("{rules}", str(rules)))
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def f(:", "line 1"),
        ("1/0", "ZeroDivisionError"),
        ("import nix_da", "nix_da"),
        ("raise SystemExit('bye')", "bad.py cannot be run: SystemExit: bye"),
        ("import sys; sys.exit()", "bad.py cannot be run: SystemExit"),
    ],
)
def test_files_that_do_not_run(tmp_path, code, words):
    path = tmp_path / "bad.py"
    path.write_text(code)
    with pytest.raises(PolicyError, match=words):
        load_policy(f"{path}:cut")


def test_modules_and_classes_that_exit(tmp_path, monkeypatch):
    (tmp_path / "exits_when_imported.py").write_text("raise SystemExit(3)")
    (tmp_path / "exits_when_made.py").write_text("class Cut:\n    def __init__(self):\n        raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PolicyError, match="importing exits_when_imported failed: SystemExit: 3"):
        load_policy("exits_when_imported:cut")
    with pytest.raises(PolicyError, match="exits_when_made:Cut cannot be made: SystemExit: 3"):
        load_policy("exits_when_made:Cut")


def test_entry_points(monkeypatch, tmp_path):
    points = EntryPoints(
        [
            EntryPoint("shorter", "leyline.policies.builtin.truncate_older_than:TruncateOlderThan", registry.GROUP),
            EntryPoint("broken", "no_such_package:thing", registry.GROUP),
            EntryPoint("exits", "plug_in_that_exits:thing", registry.GROUP),
            EntryPoint("keep_all", "no_such_package:thing", registry.GROUP),
        ]
    )
    monkeypatch.setattr(registry, "entry_points", lambda group: points.select(group=group))
    assert load_policy("shorter(n=5)") == truncate_older_than(n=5)
    assert load_policy("keep_all").name == "keep_all"
    infos = {info.name: info for info in list_policies()}
    assert infos["shorter"].kind == "plug-in"
    assert infos["broken"].summary.startswith("cannot be loaded")
    with pytest.raises(PolicyError, match=r"plug-in policy 'broken' .* cannot be loaded: ModuleNotFoundError"):
        load_policy("broken")
    (tmp_path / "plug_in_that_exits.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PolicyError, match=r"plug-in policy 'exits' .* cannot be loaded: SystemExit: 3"):
        load_policy("exits")


def test_list():
    ours = [info for info in list_policies() if info.kind != "plug-in"]
    assert [info.name for info in ours] == [*registry.BUILTINS, *registry.COMBINATORS]
    assert all(info.summary.endswith(".") for info in ours)
