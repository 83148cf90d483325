"""Reading who called what."""

import pytest

from leyline.policies import load_policy, observations
from leyline.policies.reading.calls import written_calls

CALL = '<tool_call>\n\n {"name": "view", "arguments": {"path": "a.py"}} \n</tool_call>'


@pytest.mark.parametrize("body", ["\n", " x", "<tool_call>", "<tool_call>\n", "```bash\n", "```bash "])
def test_long_text_with_a_call_that_is_not_closed(body):
    text = CALL + "<tool_call>" + body * (200_000 // len(body)) + "x"
    assert written_calls(text) == (("view", '{"path": "a.py"}'),)
    assert written_calls(text.removeprefix(CALL)) in ((), (("bash", '{"command": ""}'),))


GREETED = [
    {"role": "system", "content": "You are a coder."},
    {"role": "assistant", "content": "Hello! What shall I do?"},
    {"role": "user", "content": "Fix issue 17: " + "details " * 60},
    {"role": "assistant", "content": "```bash\ncat a.py\n```"},
    {"role": "user", "content": "text " * 60},
    {"role": "assistant", "content": "```bash\ncat b.py\n```"},
    {"role": "user", "content": "text " * 60},
]


def test_what_the_user_said_first_is_no_output():
    assert observations(GREETED) == [4, 6]
    assert observations(GREETED[1:]) == [3, 5]
    assert observations(GREETED[:3]) == []


@pytest.mark.parametrize(
    "spec",
    ["keep_last(n=1)", "clear_over(trigger=10, keep=1, at_least=1)", "truncate_older_than(n=1, max_chars=9)", "dedupe"],
)
def test_the_task_stays_when_the_assistant_spoke_first(spec):
    policy = load_policy(spec)
    edited = policy.transform(GREETED, 3)
    assert edited != GREETED
    assert GREETED[2] in edited
    assert policy.transform(edited, 3) == edited
