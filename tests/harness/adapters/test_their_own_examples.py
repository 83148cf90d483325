"""The examples that mini-swe-agent and LangChain ship, with the lines changed that docs/plug-in.md says."""

from __future__ import annotations

import inspect
import re
import textwrap
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "plug-in.md"
DIFF = re.compile(r"^```diff\n(.*?)^```", re.M | re.S)

# These harnesses leave loops and sockets to the garbage collector, which is run here and not in some later test.
pytestmark = [
    pytest.mark.usefixtures("collected"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def changed(source: str, naming: str) -> str:
    """The source with the lines of the page's diff that names an adapter; three at most."""
    (diff,) = [block for block in DIFF.findall(PAGE.read_text("utf-8")) if naming in block]
    lines = diff.splitlines()
    old = [line[1:] for line in lines if line.startswith("-")]
    new = [line[1:] for line in lines if line.startswith("+")]
    assert len(old) == len(new) <= 3
    for before, after in zip(old, new, strict=True):
        assert source.count(before + "\n") == 1, f"the example has no line {before!r}"
        source = source.replace(before + "\n", after + "\n")
    return source


def test_the_diffs_of_the_page_name_these_two() -> None:
    found = DIFF.findall(PAGE.read_text("utf-8"))
    assert len(found) == 2, found
    assert "minisweagent" in found[0]
    assert "create_agent" in found[1]


def test_mini_swe_agents_hello_world(server: Any, monkeypatch: pytest.MonkeyPatch, pinned: Any, tmp_path: Path) -> None:
    pytest.importorskip("minisweagent", reason="needs pip install 'leyline-kv[mini-swe-agent]'")
    monkeypatch.setenv("MSWEA_COST_TRACKING", "ignore_errors")
    monkeypatch.setenv("MSWEA_SILENT_STARTUP", "1")
    monkeypatch.setenv("OPENAI_API_BASE", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.chdir(tmp_path)
    spec = find_spec("minisweagent.run.hello_world")
    assert spec is not None
    assert spec.origin is not None
    namespace: dict[str, Any] = {"__name__": "hello_world"}
    exec(changed(Path(spec.origin).read_text("utf-8"), "mini_swe_agent"), namespace)
    server.turns, server.last = 7, {"command": "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"}
    server.arguments = {"command": "seq 1 400"}
    agent = namespace["main"](task="Fix a.py", model_name="openai/m")
    assert len(server.bodies) == 7
    pinned(server.bodies)
    report = agent.model.leyline.report()
    assert (report.requests, report.counted, report.edits) == (7, 7, 4)
    assert not any("characters removed" in str(message) for message in agent.messages), "its own history is whole"


def test_langchains_create_agent(
    server: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("langchain", reason="needs pip install 'leyline-kv[langchain]'")
    pytest.importorskip("langchain_openai", reason="needs pip install 'leyline-kv[langchain]'")
    from langchain.agents import create_agent

    monkeypatch.setenv("OPENAI_API_BASE", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    found = re.search(r"```python\n(.*?)```", inspect.getdoc(create_agent) or "", re.S)
    assert found is not None
    server.tool, server.arguments, server.turns = "check_weather", {"location": "sf"}, 6
    exec(changed(textwrap.dedent(found.group(1)), "LeylineMiddleware"), {})
    said = capsys.readouterr().out
    assert said.count("always sunny in sf") == 5, "the agent's own state has each output"
    sent = [sum(m["role"] == "tool" for m in body["messages"]) for body in server.bodies]
    assert sent == [0, 1, 2, 2, 2, 2], "the two newest exchanges"
