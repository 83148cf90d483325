"""Calls in text: what is one, and what a model only thinks of."""

import itertools
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyline.directives.hermes import read_written, spoken, unpaired_tags
from leyline.policies import calls, load_policy


def block(name, **arguments):
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def names(text):
    return [json.loads(b.body)["name"] for b in read_written(text).blocks]


DRAFT, REAL = block("bash", command="rm -r build"), block("view", path="a.py")


@pytest.mark.parametrize(
    ("text", "made"),
    [
        (f"<think>\nI could run {DRAFT} but no.\n</think>\n\nI leave it.", []),
        (f"<think>\nMaybe {DRAFT}?\n</think>\n\n{REAL}", ["view"]),
        (f"I could run {DRAFT}\n</think>\n\n{REAL}", ["view"]),  # the prompt opened the thinking
        (f"<think>\nI write a <tool_call> next.\n</think>\n\n{REAL}", ["view"]),
        (f"I write a <tool_call> next. {REAL}", ["view"]),
        (f"<think>\n{DRAFT} and then", []),  # cut off
        (f"{REAL}\n<think>\n{DRAFT}\n</think>\n{REAL}", ["view", "view"]),
        (f"<thinking>{DRAFT}</thinking>{REAL}", ["view"]),
        (f"[THINK]{DRAFT}[/THINK]{REAL}", ["view"]),
        (f"\u25c1think\u25b7{DRAFT}\u25c1/think\u25b7{REAL}", ["view"]),
        (f"I add a <think> tag to the page. {REAL}", ["view"]),
        (f"```html\n<think>\n```\n{REAL}", ["view"]),
        (block("bash", command="grep '</think>' a.py"), ["bash"]),
        (block("write", text="<think>\n"), ["write"]),
        (f"<think>\n{block('bash', command='x </think> y')} no\n</think>\n{REAL}", ["view"]),
        (block("bash", command="grep '</tool_call>' a.py"), ["bash"]),
        (block("bash", command=f"echo '{REAL}'"), ["bash"]),
        (block("bash", command="a </tool_call> b") + REAL, ["bash", "view"]),
    ],
)
def test_a_draft_is_no_call(text, made):
    assert names(text) == made


def test_a_fence_in_thinking_is_no_command():
    text = "<think>\n```bash\nrm -r build\n```\n</think>\n```bash\nls\n```"
    messages = [{"role": "user", "content": "go"}, {"role": "assistant", "content": text}]
    assert [c.arguments for c in calls(messages)] == [{"command": "ls"}]
    assert spoken(text).strip() == "```bash\nls\n```"


def test_no_policy_acts_on_a_draft():
    view = {"role": "assistant", "content": block("view", path="a.py")}
    draft = {"role": "assistant", "content": f"<think>\n{block('edit', path='a.py')}\n</think>\n{block('grep')}"}
    result = {"role": "tool", "content": "x" * 300}
    messages = [{"role": "user", "content": "go"}, view, result, draft, result, {"role": "assistant", "content": "ok"}]
    assert load_policy("drop_stale").edits(messages, 3) == []


def test_tags_in_thinking_are_not_counted():
    assert unpaired_tags("<think> a <tool_call> </think> </tool_call>", 0) == (0, 1)


PIECES = ["<think>", "</think>", "<tool_call>", "</tool_call>", REAL, "\n", "```", "x", '{"a": "', "[THINK]"]


@given(st.lists(st.sampled_from(PIECES)))
def test_blocks_and_thinking_never_overlap(pieces):
    text = "".join(pieces)
    found = read_written(text)
    spans = sorted([*((b.start, b.end) for b in found.blocks), *found.thinking])
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))
    assert all(text[b.start : b.end].startswith("<tool_call>") for b in found.blocks)


@pytest.mark.parametrize("piece", [*PIECES[:4], "x<think>", "\n```", '<tool_call>{"', "<tool_call>{ ", "<think>\n```"])
def test_a_long_text_is_read_in_linear_time(piece):
    begun = time.process_time()
    read_written(piece * 80_000 + "</tool_call>")
    assert time.process_time() - begun < 5  # of the processor, not of the wall; looking through it anew each time: 20
