"""`leyline policy list | show | test`."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from leyline.backends.mock import MockBackend, tool_call
from leyline.harness import TrajectoryWriter, run_agent
from leyline.harness.session.session import Session

RULES = '''
from leyline import DROP, rule, truncate


@rule(roles="tool")
def cut(message, ctx, size: int = 20):
    """Cut old outputs."""
    if ctx.newer_tool_messages >= 1:
        return truncate(message, max_chars=size)


@rule(roles="tool")
def orphan(message, ctx):
    return DROP
'''


def history(turns: int) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Fix it."}]
    for k in range(turns):
        call = {"id": f"c{k}", "type": "function", "function": {"name": "view", "arguments": "{}"}}
        messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        output = "\n".join(f"line {n} of output {k}" for n in range(40))
        messages.append({"role": "tool", "tool_call_id": f"c{k}", "content": output})
    return [*messages, {"role": "assistant", "content": "Done."}]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "runs.jsonl.gz"
    with gzip.open(path, "wt") as stream:
        for k in (2, 4):
            stream.write(json.dumps({"instance_id": f"task-{k}", "messages": history(k)}) + "\n")
    return path


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.py"
    path.write_text(RULES)
    return path


def test_list_names_every_policy_with_a_sentence(leyline: Any) -> None:
    done = leyline("policy", "list")
    for name in ("keep_all", "truncate_older_than", "clear_over", "redact", "then", "protect"):
        line = next(line for line in done.out.splitlines() if line.strip().startswith(f"{name} "))
        assert line.endswith(".")
    names = {info["name"] for info in leyline("policy", "list", "--json").json}
    assert {"drop_stale", "with_mode"} <= names


def test_show_gives_settings_and_words(leyline: Any, rules: Path) -> None:
    done = leyline("policy", "show", "truncate_older_than")
    assert done.out.startswith("truncate_older_than(n=2, max_chars=200, *, mode=None)")
    assert "How many of the newest outputs stay whole" in done.out
    done = leyline("policy", "show", "then(drop_stale, keep_last(n=3))")
    assert done.out.startswith("then(drop_stale, keep_last(n=3))")
    done = leyline("policy", "show", f"{rules}:cut")
    assert done.out.startswith(f"{rules}:cut(size: int = 20, mode=None)")
    assert "Cut old outputs." in done.out


def test_test_shows_each_turn_as_a_diff(leyline: Any, trace: Path) -> None:
    done = leyline("policy", "test", "truncate_older_than(n=1, max_chars=40)", "--trace", trace, "--id", "task-4")
    assert done.code == 0, done.err
    assert "task-4: 10 messages, 5 turns" in done.out
    assert "message 2 (tool): " in done.out
    assert "- line 1 of output 0" in done.out
    assert "+ [... " in done.out
    lines = [line for line in done.out.splitlines() if line.startswith("turn ")]
    assert len(lines) == 5
    assert "1 new edit" in lines[2]
    assert "3 edits; over 5 prompts" in done.out


def test_test_as_json_adds_up(leyline: Any, trace: Path) -> None:
    spec = "truncate_older_than(n=1, max_chars=40)"
    told = leyline("policy", "test", spec, "--trace", trace, "--index", 1, "--json").json
    assert (told["policy"], told["trajectory"], told["turns"], told["edits"]) == (spec, "task-4", 5, 3)
    for name in ("full_tokens", "prompt_tokens", "shed_tokens", "prefix_tokens", "spliced_tokens"):
        assert told[name] == sum(turn[name] for turn in told["per_turn"])
    assert told["shed_tokens"] == told["full_tokens"] - told["prompt_tokens"] > 0
    assert 0 < told["hit_rate_without_splicing"] < told["hit_rate_with_splicing"] < 1
    edit = told["per_turn"][2]["edits"][0]
    assert (edit["message"], edit["mode"], edit["insert"]) == (2, "amortize", False)
    assert len(edit["after"]["content"]) < len(edit["before"]["content"])


def test_forget_splices_nothing(leyline: Any, trace: Path) -> None:
    arguments = ("policy", "test", "truncate_older_than(n=1, max_chars=40)", "--trace", trace, "--id", "task-4")
    told = leyline(*arguments, "--mode", "forget", "--json").json
    assert told["spliced_tokens"] == 0
    assert told["hit_rate_with_splicing"] == told["hit_rate_without_splicing"] > 0


def test_keep_all_edits_nothing(leyline: Any, trace: Path) -> None:
    told = leyline("policy", "test", "keep_all", "--trace", trace, "--json").json
    assert (told["edits"], told["shed_tokens"], told["trajectory"]) == (0, 0, "task-2")


def test_drops_and_insertions_are_told(leyline: Any, trace: Path) -> None:
    done = leyline("policy", "test", "keep_last(n=2)", "--trace", trace, "--id", "task-4", "--lines", 0)
    assert "message 1 (assistant): dropped" in done.out
    assert "message 2 (tool): dropped" in done.out
    assert "- line" not in done.out


def test_a_trajectory_of_ours(leyline: Any, tmp_path: Path, rules: Path) -> None:
    class Job:
        messages = ({"role": "user", "content": "Go."},)

        def call(self, name: str, arguments: Any) -> Any:
            return type("Output", (), {"text": "word " * 50, "done": name == "submit"})()

        def solved(self) -> bool:
            return True

    session = Session(MockBackend([tool_call("a"), tool_call("b"), tool_call("submit")]))
    with TrajectoryWriter(tmp_path / "ours.jsonl", task="ours") as writer:
        run_agent(Job(), Job(), session, trajectory=writer)
    told = leyline("policy", "test", f"{rules}:cut(size=10)", "--trace", tmp_path / "ours.jsonl", "--json").json
    assert (told["trajectory"], told["turns"], told["edits"]) == ("ours", 3, 1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["show", "truncate_older"], "Did you mean 'truncate_older_than'"),
        (["show", "keep_last(m=3)"], "no setting 'm'"),
        (["test", "keep_last(n=0)", "--trace", "TRACE"], "n must be"),
        (["test", "keep_all", "--trace", "nowhere.jsonl"], "cannot read nowhere.jsonl"),
        (["test", "keep_all", "--trace", "TRACE", "--index", "9"], "holds 2 trajectories"),
        (["test", "keep_all", "--trace", "TRACE", "--id", "task-9"], "no trajectory 'task-9'; it has task-2, task-4"),
        (["test", "RULES:orphan", "--trace", "TRACE"], "keeps its call in message 1"),
        (["test", "keep_all", "--trace", "RULES"], "not JSON"),
        (["test", "keep_all", "--trace", "TRACE", "--tokenizer", "nowhere"], "no tokenizer in 'nowhere'"),
        (["test", "keep_all", "--trace", "TRACE", "--tokenizer", "RULES"], "is no tokenizer"),
    ],
)
def test_what_is_wrong_is_one_line(leyline: Any, trace: Path, rules: Path, arguments: list[str], says: str) -> None:
    places = {"TRACE": str(trace), "RULES": str(rules)}
    done = leyline(
        "policy", *[a.replace("TRACE", places["TRACE"]).replace("RULES", places["RULES"]) for a in arguments]
    )
    assert done.code == 2
    assert says in done.error


@pytest.mark.shared
def test_on_the_shared_traces(leyline: Any) -> None:
    path = Path(__file__).parents[3] / "shared" / "traces" / "swebench-verified-60.jsonl.gz"
    if not path.is_file():
        pytest.skip("the recorded traces are not here")
    told = leyline("policy", "test", "clear_over(trigger=8000, keep=3)", "--trace", path, "--index", 3, "--json").json
    assert told["turns"] > 30
    assert told["hit_rate_with_splicing"] > told["hit_rate_without_splicing"]
