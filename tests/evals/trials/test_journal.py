import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from leyline.directives.digest import config_digest
from leyline.evals.trials.journal import FILE, Journal, JournalError, load, merge
from leyline.evals.trials.record import TrialOutcome, TrialRecord, TurnRecord

WRITER = """
import sys
from leyline.evals.trials.journal import Journal
from leyline.evals.trials.record import TrialOutcome, TrialRecord, TurnRecord
total = int(sys.argv[2])
turn = TurnRecord(prompt=9, prefix=4, spliced=3, prefilled=2)
with Journal(sys.argv[1]) as journal:
    print("open", flush=True)
    for seed in range(total):
        record = TrialRecord(suite="s", task="t" * 4000, arm="a", seed=seed, digest="d",
                             outcome=TrialOutcome.SOLVED, turns=(turn,) * 50)
        if not journal.done(record.key):
            journal.append(record)
"""


def record(seed: int = 0, **fields: object) -> TrialRecord:
    base = {"suite": "s", "task": "t", "arm": "a", "seed": seed, "digest": "d", "outcome": TrialOutcome.SOLVED}
    return TrialRecord.model_validate(base | fields)


def test_append_and_load(tmp_path: Path) -> None:
    turn = TurnRecord(prompt=10, prefix=5, spliced=2, prefilled=3, full=14, fallback="donor_missing")
    with Journal(tmp_path) as journal:
        journal.append(record(1, turns=(turn, turn), tags={"level": "m"}))
        journal.append(record(2))
    loaded = load(tmp_path)
    assert [r.seed for r in loaded.records] == [1, 2]
    assert loaded.records[0].turns == (turn, turn)
    assert loaded.records[0].total("shed") == 8
    assert not loaded.torn
    assert not loaded.broken


def test_a_record_that_json_has_no_words_for_is_kept(tmp_path: Path) -> None:
    turn = TurnRecord(prompt=1, prefix=1, spliced=0, prefilled=0, ttft=float("inf"))
    with Journal(tmp_path) as journal:
        journal.append(
            record(1, detail="cannot read caf\udce9.py", turns=[TurnRecord(prompt=0, prefix=0, spliced=0, prefilled=0)])
        )
        journal.append(record(2, turns=[turn]))
    for line in (tmp_path / FILE).read_text(encoding="utf-8").splitlines():
        json.loads(line, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))
    loaded = load(tmp_path)
    assert loaded.broken == []
    assert [found.detail for found in loaded.records] == ["cannot read caf?.py", None]
    assert loaded.records[1].turns[0].ttft is None


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with Journal(tmp_path), pytest.raises(JournalError, match="another run is writing"):
        Journal(tmp_path)
    Journal(tmp_path).close()


def test_a_recorded_trial_is_not_written_twice_but_can_be_redone(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.append(record(1, outcome=TrialOutcome.ERROR))
        with pytest.raises(JournalError, match="recorded already"):
            journal.append(record(1))
        redo = record(1, attempt=journal.next_attempt(record(1).key))
        journal.append(redo)
    loaded = load(tmp_path)
    assert loaded.records == [redo]
    assert loaded.superseded == 1


@pytest.mark.parametrize("cut", [1, 2, 40, 200])
def test_a_torn_line_is_skipped_then_cut(tmp_path: Path, cut: int) -> None:
    with Journal(tmp_path) as journal:
        journal.append(record(1))
        journal.append(record(2))
    file = tmp_path / FILE
    data = file.read_bytes()
    file.write_bytes(data[:-cut])
    torn = load(tmp_path)
    assert torn.torn
    assert [r.seed for r in torn.records] == [1]
    with Journal(tmp_path) as journal:
        assert not journal.done(record(2).key)
        journal.append(record(2))
    assert file.read_bytes() == data


def test_a_file_of_nothing_but_a_torn_line_is_emptied(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"x" * 200_000)
    with Journal(tmp_path) as journal:
        journal.append(record(1))
    assert [r.seed for r in load(tmp_path).records] == [1]


def test_broken_lines_are_named(tmp_path: Path) -> None:
    good = record(1).model_dump_json()
    bad = good.replace('"seed":1', '"seed":"many"')
    (tmp_path / FILE).write_text(f"{good}\n{{not json\n{bad}\n\n{good}\n")
    loaded = load(tmp_path)
    assert len(loaded.records) == 1
    assert loaded.duplicates == 1
    assert len(loaded.broken) == 2
    assert loaded.broken[1].startswith("records.jsonl:3: seed: ")


def test_merge_counts_a_trial_once(tmp_path: Path) -> None:
    for name, seeds in (("a", (1, 2)), ("b", (2, 3))):
        with Journal(tmp_path / name) as journal:
            for seed in seeds:
                journal.append(record(seed))
    merged = merge([load(tmp_path / "a"), load(tmp_path / "b")])
    assert [r.seed for r in merged.records] == [1, 2, 3]
    assert merged.duplicates == 1


def test_missing_file_is_empty(tmp_path: Path) -> None:
    assert load(tmp_path / "nothing").records == []


def test_unwritable_directory_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="choose another --out"):
        Journal(tmp_path / "file")


def test_config_digest_ignores_order() -> None:
    assert config_digest({"a": 1, "b": [1, 2]}) == config_digest({"b": [1, 2], "a": 1})
    assert config_digest({"a": 1}) != config_digest({"a": 2})


def test_killed_at_any_point_no_trial_is_lost_or_doubled(tmp_path: Path) -> None:
    """A real writer is killed with SIGKILL again and again, at random moments, until it gets through."""
    total = 400
    generator = random.Random(7)
    kills = finished = 0
    seen = 0
    while not finished:
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(total)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        time.sleep(generator.uniform(0, 0.03))
        if kills < 12:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        finished = process.wait() == 0
        process.stdout.close()
        if kills % 3 == 0 and not finished:  # a tear that the kernel happened not to make
            with (tmp_path / FILE).open("ab") as file:
                file.write(b'{"format":"leyline-trial/1","sui')
        now = len(load(tmp_path).records)
        assert now >= seen
        seen = now
    loaded = load(tmp_path)
    assert sorted(r.seed for r in loaded.records) == list(range(total))
    assert (loaded.duplicates, loaded.superseded, loaded.broken, loaded.torn) == (0, 0, [], False)
