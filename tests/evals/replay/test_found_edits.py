"""What a server finds by itself, on recorded conversations: as good as the spans that a client would have sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from leyline.backends.contract import Turn, TurnInput
from leyline.backends.simulated.backend import SimulatedBackend
from leyline.backends.simulated.radix import RadixCache
from leyline.directives import EditScript, Message, Mode, find_script
from leyline.evals.replay.traces import load_trajectories
from leyline.evals.trials.turns import answer_places
from leyline.harness import Session
from leyline.models.find import load_renderer

SHARED = Path(__file__).parents[4] / "shared" / "traces" / "swebench-verified-60.jsonl.gz"
POLICIES = [
    "keep_all",
    "truncate_older_than(n=2, max_chars=200)",
    "drop_stale",
    "drop_failed",
    "dedupe",
    "keep_last(n=5)",
    "clear_over(trigger=8000, keep=3, at_least=2000)",
    "append_erratum",
    "redact('[0-9a-f]{8}')",
]


class Watched(SimulatedBackend):
    """Notes what each turn holds, sends, and says of the edits."""

    def __init__(self, *given: Any, **settings: Any) -> None:
        super().__init__(*given, **settings)
        self.seen: list[tuple[Sequence[int], Sequence[int], EditScript]] = []

    def chat(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None, session: TurnInput) -> Turn:
        if session.source is not None and session.prompt is not None:
            self.seen.append((session.source, session.prompt.ids, session.script))
        return super().chat(messages, tools, session)


def reused(script: EditScript, source: Sequence[int]) -> int:
    return sum(s.length for s in script.segments(len(source)) if s.kind != "prefill")


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.exists(), reason="the recorded trajectories are not beside the repository")
@pytest.mark.parametrize("policy", POLICIES)
def test_found_edits_reuse_what_told_ones_do(policy: str) -> None:
    renderer, told, found = load_renderer(), 0, 0
    for trajectory in load_trajectories(SHARED)[:3]:
        places = answer_places(trajectory.messages)
        answers = [trajectory.messages[place] for place in places]
        backend = Watched(renderer, RadixCache(), answers, splice=True)
        session = Session(backend, policy)
        for place in places:
            session.turn(trajectory.messages[:place])
        for source, prompt, script in backend.seen:
            own = find_script(source, prompt, Mode.AMORTIZE)
            target = own.apply(source)
            assert list(prompt[: len(target)]) == target
            told, found = told + reused(script, source), found + reused(own, source)
    assert found >= 0.95 * told > 0
