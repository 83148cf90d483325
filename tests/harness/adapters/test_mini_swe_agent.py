"""mini-swe-agent's own agent through leyline's model class."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("minisweagent", reason="needs pip install 'leyline-kv[mini-swe-agent]'")

# These harnesses leave loops and sockets to the garbage collector, which is run here and not in some later test.
pytestmark = [
    pytest.mark.usefixtures("collected"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

POLICY = "truncate_older_than(n=1, max_chars=60)"


@pytest.fixture
def run(server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MSWEA_COST_TRACKING", "ignore_errors")
    monkeypatch.setenv("MSWEA_SILENT_STARTUP", "1")
    from minisweagent.agents.default import DefaultAgent
    from minisweagent.environments.local import LocalEnvironment

    from leyline.harness.adapters.mini_swe_agent import LeylineModel

    def go(**settings: Any) -> Any:
        kwargs = {"api_base": server.url, "api_key": "k"}
        model = LeylineModel(
            model_name="openai/m", model_kwargs=kwargs, cost_tracking="ignore_errors", policy=POLICY, **settings
        )
        server.arguments = {"command": "seq 1 400"}
        agent = DefaultAgent(
            model,
            LocalEnvironment(),
            system_template="You fix code.",
            instance_template="Fix {{task}}",
            step_limit=server.turns - 1,
        )
        agent.run("a.py")
        return model, agent

    return go


def test_its_own_agent_edits_once_and_stays(run: Any, server: Any, pinned: Any) -> None:
    model, agent = run()
    pinned(server.bodies)
    assert None not in server.routed
    assert len(set(server.routed)) == 1, "one session, one replica"
    report = model.leyline.report()
    assert (report.requests, report.counted) == (len(server.bodies), len(server.bodies))
    assert (report.prompt_tokens, report.cached_tokens) == (100 * report.requests, 40 * report.requests)
    assert "seq" not in str(server.bodies[-1]["messages"][1])
    assert any("399" in str(message) for message in agent.messages), "the agent's own history is whole"


def test_a_moving_cache_mark_makes_no_other_conversation(run: Any, server: Any) -> None:
    model, _ = run(set_cache_control="default_end")
    assert {turn.conversation for turn in model.leyline.report().turns} == {"#1"}
    assert "cache_control" in str(server.bodies[-1])
