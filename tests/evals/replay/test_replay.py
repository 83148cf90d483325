from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from leyline.backends.mock import MockBackend
from leyline.cli import app
from leyline.directives import Message
from leyline.evals.replay import (
    BUILTIN_POLICIES,
    ReplayPlan,
    ReplayRecord,
    Setting,
    by_turn,
    read_records,
    replay,
    replay_together,
    run_plan,
    summarise,
)
from leyline.evals.replay.replayed import ReplayError
from leyline.evals.replay.run import run_on_backend
from leyline.evals.replay.traces import Recording
from leyline.evals.replay.walk import iter_settings
from leyline.models.find import load_renderer
from leyline.policies import PolicyError, list_policies

SHARED = Path(__file__).parents[4] / "shared" / "traces" / "swebench-verified-60.jsonl.gz"
WORDS = ["def", "return", "self", "import", "value", "result", "none", "assert", "index", "error", "path"]


def recording(name: str, turns: int, seed: int) -> Recording:
    draw = random.Random(seed)

    def text(least: int, most: int) -> str:
        return " ".join(draw.choice(WORDS) for _ in range(draw.randint(least, most)))

    messages: list[Message] = [{"role": "system", "content": "fix it"}, {"role": "user", "content": text(20, 40)}]
    for _ in range(turns):
        messages.append({"role": "assistant", "content": f"look\n```bash\ncat {draw.choice(WORDS)}.py\n```"})
        messages.append({"role": "user", "content": f"<returncode>0</returncode>\n<output>\n{text(5, 120)}\n</output>"})
    return Recording(name, messages, "Submitted")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "t.jsonl"
    lines = [{"instance_id": f"task-{n}", "messages": recording("", 6 + n, n).messages} for n in range(3)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_one_trajectory_that_a_template_cannot_say_does_not_end_the_others(tmp_path: Path) -> None:
    """Half an emoji counts as a `?`, as for the bundled tokenizer; an image that is left out ends its own."""
    odd = recording("", 6, 1).messages
    odd[3] = {**odd[3], "content": "caf\udce9 \ud83d"}
    image = recording("", 6, 2).messages
    image[3] = {**image[3], "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}
    path = tmp_path / "t.jsonl"
    named = {"half an emoji": odd, "an image": image, "sound": recording("", 6, 3).messages}
    path.write_text("".join(json.dumps({"instance_id": n, "messages": m}) + "\n" for n, m in named.items()))
    for tokenizer in ("tiny-gqa", None):
        out = tmp_path / f"{tokenizer}.jsonl"
        options = [] if tokenizer is None else ["--tokenizer", tokenizer]
        done = CliRunner().invoke(app, ["replay", str(path), "--policy", "keep_all", "--out", str(out), *options])
        assert done.exit_code == 0, done.output
        records = {(r.trajectory, r.cache): r for r in read_records(out)}
        assert all(len(records[name, "radix"].turns) == 6 for name in ("half an emoji", "sound"))
        if tokenizer is not None:
            assert records["half an emoji", "radix"].stopped is None
            assert "image_url" in str(records["an image", "radix"].stopped)


def test_the_list_of_built_in_policies_is_complete() -> None:
    named = {spec.split("(")[0] for spec in BUILTIN_POLICIES}
    beaten = {"freeze", "at_arrival"}  # what an edit policy has to beat
    assert named == {info.name for info in list_policies() if info.kind == "built-in"} | beaten


@pytest.mark.parametrize("policy", BUILTIN_POLICIES)
def test_turns_add_up_under_every_built_in(policy: str) -> None:
    trajectory, renderer = recording("a", 8, 1), load_renderer()
    records = {c: replay(trajectory, Setting(policy, c), renderer) for c in ("radix", "splice", "forget")}
    full = [t.prompt for t in replay(trajectory, Setting("keep_all"), renderer).turns]
    for record in records.values():
        assert len(record.turns) == 8
        assert all(turn.balanced for turn in record.turns)
        assert [turn.full for turn in record.turns] == full
    assert records["radix"].total("prefilled") == records["forget"].total("prefilled")
    assert records["radix"].total("spliced") == records["forget"].total("spliced") == 0
    assert records["splice"].total("prefilled") <= records["radix"].total("prefilled")
    assert [t.prompt for t in records["splice"].turns] == [t.prompt for t in records["radix"].turns]


def test_splicing_does_nothing_where_nothing_is_edited() -> None:
    trajectory, renderer = recording("a", 8, 1), load_renderer()
    radix, splice = (replay(trajectory, Setting("keep_all", c), renderer) for c in ("radix", "splice"))
    assert radix.turns == splice.turns


def test_trajectories_that_share_a_cache_share_its_prefixes_and_its_room() -> None:
    trajectories = [recording(f"t{n}", 5, n) for n in range(3)]
    twin = [Recording("first", trajectories[0].messages), Recording("again", trajectories[0].messages)]
    renderer = load_renderer()
    first, again = replay_together(twin, Setting("keep_all"), renderer)
    assert again.total("prefilled") == len(again.turns)  # of each prompt only the last token is computed
    assert first.total("prefilled") > again.total("prefilled")
    alone = [replay(t, Setting("keep_all"), renderer) for t in trajectories]
    tight = replay_together(trajectories, Setting("keep_all", capacity=900), renderer, concurrency=3)
    assert [r.trajectory for r in tight] == ["t0", "t1", "t2"]
    assert sum(r.total("prefilled") for r in tight) > sum(r.total("prefilled") for r in alone)


def test_larger_pages_hit_less() -> None:
    trajectory, renderer = recording("a", 8, 2), load_renderer()
    hits = [replay(trajectory, Setting("keep_all", page_size=p), renderer).total("prefix") for p in (1, 16, 64)]
    assert hits == sorted(hits, reverse=True)
    assert len(set(hits)) == 3


def test_workers_change_nothing(file: Path) -> None:
    plan = ReplayPlan((str(file),), tuple(iter_settings(("keep_all", "keep_last(n=2)"), ("radix", "splice"))))
    one = [r for piece in run_plan(plan) for r in piece]
    two = [r for piece in run_plan(plan, workers=2) for r in piece]
    assert len(one) == 12
    key = ReplayRecord.model_dump_json
    assert sorted(map(key, one)) == sorted(map(key, two))


def test_tables_are_sums_over_the_records(file: Path) -> None:
    plan = ReplayPlan((str(file),), tuple(iter_settings(("keep_all", "keep_last(n=2)"), ("radix", "splice"))))
    records = [r for piece in run_plan(plan) for r in piece]
    rows = {(r.policy, r.cache): r for r in summarise(records)}
    plain = sum(t.prefilled for r in records if (r.policy, r.cache) == ("keep_all", "radix") for t in r.turns)
    for (policy, cache), row in rows.items():
        turns = [t for r in records if (r.policy, r.cache) == (policy, cache) for t in r.turns]
        assert row.turns == len(turns) == 21
        assert row.prompt == sum(t.prompt for t in turns)
        assert row.prompt == row.prefix + row.spliced + row.prefilled
        assert row.shed == sum((t.full or 0) - t.prompt for t in turns)
        assert row.hit_rate == sum(t.prefix + t.spliced for t in turns) / row.prompt
        assert row.saved == plain - sum(t.prefilled for t in turns)
        assert row.interval is not None
        assert row.interval[0] <= row.hit_rate <= row.interval[1]
        buckets = by_turn([r for r in records if (r.policy, r.cache) == (policy, cache)], edges=(1, 3, 6))
        assert [(b.first, b.last) for b in buckets] == [(1, 2), (3, 5), (6, 8)]
        assert sum(b.turns for b in buckets) == row.turns
        assert round(sum(b.prefilled * b.turns for b in buckets)) == row.prefilled
        assert sum(b.edits for b in buckets) == row.edits
    with pytest.raises(ReplayError, match="nothing was replayed"):
        summarise([])
    with pytest.raises(ReplayError, match="start at 1"):
        by_turn(records, edges=(2, 3))
    only = summarise([r for r in records if r.policy != "keep_all"])
    assert only[0].saved is None


def test_records_survive_a_torn_line(tmp_path: Path) -> None:
    record = replay(recording("a", 2, 1), Setting("keep_all"), load_renderer())
    path = tmp_path / "r.jsonl"
    path.write_text(record.model_dump_json() + "\n" + record.model_dump_json()[:50])
    assert read_records(path) == [record]
    path.write_text('{"format": "leyline-replay/1"}\n')
    with pytest.raises(ReplayError, match="line 1"):
        read_records(path)


def test_a_recording_without_answers_says_so() -> None:
    record = replay(Recording("a", [{"role": "user", "content": "x"}]), Setting("keep_all"), load_renderer())
    assert record.turns == ()
    assert record.stopped == "the recording holds no answer of a model"
    assert summarise([record])[0].hit_rate == 0.0


def test_a_server_that_renders_counts_by_its_own_usage(file: Path) -> None:
    plan = ReplayPlan((str(file),), (Setting("keep_all"), Setting("keep_last(n=2)")), limit=1)
    backend = MockBackend(lambda request: "x")
    keep, drop = (piece[0] for piece in run_on_backend(plan, backend))
    assert keep.backend.startswith("mock/")
    assert len(keep.turns) == len(drop.turns) == 6
    assert keep.total("prompt") > drop.total("prompt")
    assert all(t.balanced for t in [*keep.turns, *drop.turns])
    # The recording's answers went into the history, not the ones that the backend gave.
    sent = backend.requests[1].messages
    assert [m["content"] for m in sent] == [m["content"] for m in plan.trajectories()[0].messages[:4]]


def invoke(*args: str) -> Any:
    return CliRunner().invoke(app, ["replay", *args])


def test_the_command_prints_tables_and_writes_records(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "records.jsonl"
    chosen = ["--policy", "keep_all", "--policy", "keep_last(n=2)", "--workers", "1"]
    done = invoke(str(file), *chosen, "--by-turn", "--out", str(out))
    assert done.exit_code == 0, done.output
    assert "keep_last(n=2)  splice" in done.output
    rows = summarise(read_records(out))
    assert len(rows) == 4
    assert all(f"{row.prefilled:,}" in done.output for row in rows)
    as_json = json.loads(invoke(str(file), *chosen, "--json").stdout)
    assert [r["prefilled"] for r in as_json["rows"]] == [row.prefilled for row in rows]
    assert sum(b["turns"] for b in as_json["rows"][0]["by_turn"]) == rows[0].turns
    table = invoke(str(file), *chosen, "--markdown").stdout.splitlines()
    assert table[1].startswith("| --- | --- | ---:")
    assert len(table) == 6


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--policy", "kep_all"], "unknown policy 'kep_all'"),
        (["--cache", "lru"], "unknown cache 'lru'"),
        (["--id", "nobody"], "no trajectory 'nobody'; the first are task-0"),
        (["--tokenizer", "nowhere"], "no tokenizer in 'nowhere'"),
        (["--backend", "local", "--capacity", "9"], "belong to the simulated cache"),
        (["--page-size", "16", "--capacity", "8"], "at least one page"),
    ],
)
def test_what_cannot_be_replayed_is_said_in_one_line(file: Path, args: list[str], said: str) -> None:
    done = invoke(str(file), *args)
    assert done.exit_code != 0
    assert said in str(done.exception)
    assert "\n" not in str(done.exception)


def test_a_policy_that_fails_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(
        "from leyline.policies import rule\n@rule(roles='user')\ndef boom(message, ctx):\n    raise ValueError('no')\n"
    )
    with pytest.raises(PolicyError, match="boom"):
        replay(recording("a", 3, 1), Setting(f"{tmp_path}/bad.py:boom"), load_renderer())


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.exists(), reason="the recorded trajectories are not beside the repository")
def test_recorded_runs_hit_almost_everything_until_they_are_edited() -> None:
    plan = ReplayPlan(
        (str(SHARED),), tuple(iter_settings(("keep_all", "keep_last(n=5)"), ("radix", "splice"))), limit=2
    )
    records = [r for piece in run_plan(plan) for r in piece]
    rows = {(r.policy, r.cache): r for r in summarise(records)}
    assert rows["keep_all", "radix"].hit_rate > 0.95
    assert rows["keep_last(n=5)", "radix"].hit_rate < 0.7
    assert rows["keep_last(n=5)", "splice"].prefilled == rows["keep_all", "radix"].prefilled
    assert rows["keep_last(n=5)", "splice"].shed > 0
