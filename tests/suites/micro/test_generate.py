"""Tasks: deterministic, decided by their tests, of the split and the length they say."""

from __future__ import annotations

import gc
import hashlib
import random

import pytest

from leyline.suites import micro
from leyline.suites.micro import catalogue, generate, mutations, runner
from leyline.suites.micro.generate import LENGTHS, TaskError, make_task
from leyline.suites.micro.rollout import attempt, characters

CELLS = [(level, split) for level in micro.LEVELS for split in micro.SPLITS]
KINDS = {
    "alias",
    "attribute",
    "bounds",
    "call",
    "comparison",
    "constant",
    "default",
    "flow",
    "indentation",
    "line twice",
    "literal",
    "logic",
    "missing line",
    "no return",
    "operator",
    "order",
    "swapped arguments",
    "swapped operands",
    "variable",
}


@pytest.mark.parametrize(("level", "split"), CELLS)
def test_tests_decide(level: str, split: str) -> None:
    for seed in range(1 if level == "xlong" else 3):
        task = make_task(seed, level, split)
        assert task.id == f"micro-{level}-{split}-{seed:06d}"
        right = {**task.files, **task.reference}
        assert runner.passes(right, task.test_path, task.files[task.test_path], task.hidden)
        assert runner.run(task.files, task.test_path).failed
        assert runner.run({**task.files, task.test_path: task.hidden}, task.test_path).failed
        assert not task.solved(task.files)
        for bug in task.bugs:
            now, before = task.files[bug.path].split("\n"), task.reference[bug.path].split("\n")
            assert now != before
            assert catalogue.held_out(bug.family) is (split == "unseen")
        shortest, longest = LENGTHS[level]
        assert shortest <= characters(attempt(task)) < longest


def test_every_bug_fails_the_task_alone() -> None:
    task = make_task(4, "long", "seen")
    assert len(task.bugs) > 1
    for path in {bug.path for bug in task.bugs}:
        assert not task.solved({**task.files, **task.reference, path: task.files[path]})


def test_a_seed_gives_the_same_task() -> None:
    from leyline.suites.micro import generate

    first = make_task(11, "short", "unseen")
    generate._make.cache_clear()
    second = make_task(11, "short", "unseen")
    assert first is not second
    assert first.files == second.files
    assert first.hidden == second.hidden
    assert first.bugs == second.bugs
    assert make_task(12, "short", "unseen").files != first.files
    assert make_task(11, "short", "seen").files != make_task(11, "short", "train").files


def test_training_draws_no_held_out_family() -> None:
    rng, used = random.Random(5), set[str]()
    units: list[catalogue.Unit] = []
    for _ in range(600):
        helpers = [u for u in units[-5:] if u.kind == "function"]
        unit = catalogue.draw_unit(rng, used, helpers, "train")
        units += [unit] if unit else []
    assert not [unit.family for unit in units if catalogue.held_out(unit.family)]
    assert len({unit.family for unit in units}) > 250


def test_methods_of_composed_classes_are_held_out_with_their_bugs() -> None:
    """A held-out class may have one seen method; no bug goes there."""
    rng = random.Random(1)
    found = 0
    for _ in range(1000):
        unit = catalogue.draw_unit(rng, set(), [], "unseen")
        if unit is not None and unit.first_buggable:
            found += 1
            for _ in range(5):
                bug = mutations.draw_bug(rng, unit)
                if bug is not None:
                    assert bug[1][: unit.first_buggable] == unit.lines[: unit.first_buggable]
    assert found > 5


@pytest.mark.parametrize("kind", list(catalogue.counts()))
def test_a_quarter_of_each_kind_is_held_out(kind: str) -> None:
    seen, unseen = catalogue.counts()[kind]
    assert 0.25 <= unseen / (seen + unseen) < 0.35


def test_every_kind_of_bug_occurs_and_no_other() -> None:
    rng = random.Random(2)
    kinds: dict[str, int] = {}
    for _ in range(1500):
        unit = catalogue.draw_unit(rng, set(), [], "train")
        bug = mutations.draw_bug(rng, unit) if unit else None
        if bug is not None:
            kinds[bug[0]] = kinds.get(bug[0], 0) + 1
            assert bug[1] != unit.lines
    assert set(kinds) == KINDS
    assert max(kinds.values()) < sum(kinds.values()) / 4


def test_every_family_loads_and_says_what_it_does() -> None:
    rng = random.Random(3)
    for _ in range(400):
        unit = catalogue.draw_unit(rng, set(), [], rng.choice(["train", "unseen"]))
        if unit is None:
            continue
        text = "\n".join(unit.lines)
        compile(text, unit.family, "exec")
        assert '"""' in unit.lines[1]
        assert "{" not in unit.lines[1]
        assert "FIRST" not in text, unit.lines


@pytest.mark.parametrize(
    ("arguments", "message"), [((1, "tiny"), "unknown level 'tiny'; choose"), ((1, "short", "x"), "unknown split 'x'")]
)
def test_bad_input(arguments: tuple[int, str], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        make_task(*arguments)


def test_tasks_are_those_that_results_were_measured_on() -> None:
    """Whoever changes this changes every task: results under other digests cannot be compared."""
    digest = hashlib.sha256()
    for level, split in CELLS:
        task = make_task(77_000, level, split)
        digest.update(repr((dict(task.files), task.hidden, micro.user_prompt(task), task.bugs)).encode())
    assert digest.hexdigest()[:16] == "e844f453a312fefe"


def test_a_case_whose_value_cannot_be_printed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    draft = generate._Draft(random.Random(1), generate.Shape(1, 1, (3, 3), 0), "train")
    drawn = iter(["10 ** 5000", "3 + 4"])
    monkeypatch.setattr(generate, "draw_case", lambda rng, unit: ([], next(drawn)))
    assert draft._candidates({}, draft.units[0], 2) == [([], "3 + 4", 7)]


def test_no_garbage_is_collected_under_a_time_limit() -> None:
    """A collection that runs when the time is up would swallow the stop, and the code under test would go on."""
    assert runner.limited(gc.isenabled) is False
    assert gc.isenabled()
