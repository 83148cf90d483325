"""Negative controls: a broken splice, or no tool output at all, must cost far more than an honest one.

Here on a few turns of scripted episodes, on the CPU; on whole episodes in the results that the repository keeps.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from leyline import models
from leyline.backends.contract import Sampling, TurnInput
from leyline.directives import Rendered, diff, token_script
from leyline.evals.stats.clustered import mcnemar
from leyline.rendering.render import Renderer

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "results" / "tiny-agent"
POLICY = "truncate_older_than(n=2, max_chars=200)"
SEEDS = (300, 307, 312, 315)  # of 300 to 315, three that tiny-mla gets wrong behind an unrotated splice

pytest.importorskip("torch")
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from training import checkpoint, tables  # noqa: E402
from training.batch import BatchBackend  # noqa: E402
from training.engine import Fault  # noqa: E402

Turn = tuple[list[Any], list[Any], str]


def edited_turns() -> list[Turn]:
    """For each seed the first turn at which the policy edits and the oracle repairs: what was sent before, what is sent
    now, what the oracle says now."""
    from leyline.suites.micro.corpus import episode, render_message

    out = []
    for seed in SEEDS:
        run = episode(seed, "long", "seen", POLICY)
        for before, now in zip(run.turns, run.turns[1:], strict=False):
            old = [*(before.view or run.messages[: before.index]), run.messages[before.index]]
            new = list(now.view or run.messages[: now.index])
            if new[: len(old)] != old and now.action == "edit":
                text = render_message(run.messages[now.index]).partition("\n")[2].removesuffix("<|im_end|>\n")
                out.append((old, new, text))
                break
    return out


class Splices:
    """Prefills what stood before each edit once; then answers behind the splice, as often as one likes."""

    def __init__(self, name: str, turns: list[Turn]) -> None:
        folder = models.resolve(name)
        self.renderer = Renderer.from_dir(folder)
        self.turns = turns
        self.backend = BatchBackend(checkpoint.load_model(folder), self.renderer, len(turns))
        self.sources = []
        for old, _, _ in turns:
            whole = self.renderer.render(old)
            self.sources.append(Rendered(whole.ids[: whole.spans[-1][1]], whole.spans))
        self._ask([TurnInput(str(i), prompt=s, sampling=Sampling(max_tokens=0)) for i, s in enumerate(self.sources)])
        self._cache = [c.clone() for c in self.backend.engine.cache]
        self._held = {name: list(row.cache) for name, row in self.backend.conversations.items()}

    def answers(self, fault: Fault) -> list[str]:
        """What the model says after each edit."""
        engine = self.backend.engine
        self.backend.fault = fault
        for cache, saved in zip(engine.cache, self._cache, strict=True):
            cache[:, :, :, : saved.shape[3]] = saved
        for name, row in self.backend.conversations.items():
            row.cache.clear()
            row.cache.insert(self._held[name][0])
        asked = []
        for i, (old, new, _) in enumerate(self.turns):
            prompt, source = self.renderer.render(new), self.sources[i]
            script = token_script(source, prompt, diff(old, new))
            asked.append(
                TurnInput(str(i), prompt=prompt, source=source.ids, script=script, sampling=Sampling(max_tokens=90))
            )
        turns = self._ask(asked)
        assert all(turn.receipt.spliced_tokens > 100 for turn in turns)
        return [self.renderer.decode(turn.output_ids or ()) for turn in turns]

    def _ask(self, asked: list[TurnInput]) -> list[Any]:
        """One batch: every session asks from a thread of its own."""
        out: dict[int, Any] = {}
        self.backend._live = len(asked)

        def ask(number: int) -> None:
            out[number] = self.backend.chat((), None, asked[number])
            with self.backend._changed:
                self.backend._live -= 1
                self.backend._changed.notify_all()

        threads = [threading.Thread(target=ask, args=(i,), daemon=True) for i in range(len(asked))]
        for thread in threads:
            thread.start()
        assert self.backend.serve(float("inf"))
        return [out[i] for i in range(len(asked))]


@pytest.mark.parametrize("name", models.names())
def test_a_broken_splice_is_noticed(name: str) -> None:
    turns = edited_turns()
    wanted = [text for _, _, text in turns]
    splices = Splices(name, turns)

    def right(fault: Fault) -> int:
        return sum(a == b for a, b in zip(splices.answers(fault), wanted, strict=True))

    honest = right("none")
    assert honest >= len(turns) - 1
    assert right("unrotated") < honest


@pytest.mark.parametrize(
    ("name", "control", "honest", "share"),
    [
        # an agent that is lost once often finds back within its turns: a third, not none
        ("tiny-mla", "unrotated", "amortize", 0.3),
        ("tiny-mla", "cut_all", "truncate", 0.1),
        # MLA's latent feeds key and value alike, so that a latent of the next token costs less than a wrong value
        ("tiny-mla", "shifted", "amortize", 0.9),
        ("tiny-gqa", "unrotated", "amortize", 0.2),
        ("tiny-gqa", "shifted", "amortize", 0.1),
        ("tiny-gqa", "cut_all", "truncate", 0.1),
    ],
)
def test_controls_fall_below_the_honest_arm(name: str, control: str, honest: str, share: float) -> None:
    """Whole long episodes, within the turns that both cells reached."""
    cells = tables.read(RESULTS / f"{name}.json")
    broken, right = cells[f"long/seen/{control}"], cells[f"long/seen/{honest}"]
    within = min((turn for turn in (tables.reach(broken), tables.reach(right)) if turn is not None), default=None)
    first, second = tables.solved_tasks(right, within), tables.solved_tasks(broken, within)
    assert len(second) <= share * len(first)
    assert mcnemar((task in first, task in second) for task in first | second).p_value < 0.001
