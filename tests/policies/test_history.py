"""Reading who called what."""

import pytest

from leyline.policies.history import written_calls

CALL = '<tool_call>\n\n {"name": "view", "arguments": {"path": "a.py"}} \n</tool_call>'


@pytest.mark.parametrize("body", ["\n", " x", "<tool_call>", "<tool_call>\n", "```bash\n", "```bash "])
def test_long_text_with_a_call_that_is_not_closed(body):
    text = CALL + "<tool_call>" + body * (200_000 // len(body)) + "x"
    assert written_calls(text) == (("view", '{"path": "a.py"}'),)
    assert written_calls(text.removeprefix(CALL)) in ((), (("bash", '{"command": ""}'),))
