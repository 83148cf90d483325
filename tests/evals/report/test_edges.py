"""Reports of little or odd data say so, and do not fail."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from leyline.evals.report import ReportError, Written, write_report
from leyline.evals.report.compare import select_pairs
from leyline.evals.report.sources import gather
from leyline.evals.trials.record import TrialOutcome, TrialRecord, TurnRecord

Make = Callable[..., TrialRecord]
Write = Callable[..., Path]


def written(tmp_path: Path, write_run: Write, records: list[TrialRecord], tail: bytes = b"") -> Written:
    run = write_run(tmp_path / "run", records, tail)
    report = write_report([run], tmp_path / "out")
    json.loads(report.results.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    return report


def test_no_trial(tmp_path: Path, write_run: Write) -> None:
    made = written(tmp_path, write_run, [])
    page = made.html.read_text()
    assert "No trial is recorded" in page
    assert "<svg" not in page
    assert "No trial is recorded" in made.markdown.read_text()
    assert json.loads(made.results.read_text())["arms"] == []
    assert made.plots == ()


def test_only_broken_records(tmp_path: Path, write_run: Write) -> None:
    made = written(tmp_path, write_run, [], b'{"suite": 3}\nnot json\n{"to')
    page = made.html.read_text()
    for said in ("No trial is recorded", "2 record lines could not be read", "1 record file ended in a torn line"):
        assert said in page
    assert "records.jsonl:2" in page
    assert "records.jsonl:2" in made.markdown.read_text()


def test_one_arm(tmp_path: Path, trial: Make, write_run: Write) -> None:
    rng = random.Random(0)
    made = written(tmp_path, write_run, [trial("keep_all", task, 0, rng) for task in range(12)])
    assert "There is one arm only" in made.html.read_text()
    assert made.report.comparisons == ()


def all_equal(trial: Make, turns: tuple[TurnRecord, ...] | None = None) -> list[TrialRecord]:
    """Twelve tasks that both arms solve."""
    rng = random.Random(11)
    fields = {"outcome": TrialOutcome.SOLVED} | ({} if turns is None else {"turns": turns})
    return [trial(arm, task, 0, rng, **fields) for task in range(12) for arm in ("keep_all", "truncate")]


def test_pairs_that_are_all_equal_tell_nothing(tmp_path: Path, trial: Make, write_run: Write) -> None:
    made = written(tmp_path, write_run, all_equal(trial))
    [item] = json.loads(made.results.read_text())["comparisons"]
    assert item["solve_rate"] == {"estimate": 0.0, "low": None, "high": None}
    assert item["equal"] == ["solve_rate"]
    assert item["prefilled"]["low"] < item["prefilled"]["high"]
    said = "all pairs equal: nothing can be told"
    assert f"| 0.0 [{said}] |" in made.markdown.read_text()
    assert f'<span class="value">0.0</span> <span class="ci">[{said}]</span>' in made.html.read_text()
    for text in (made.markdown.read_text(), made.html.read_text(), "".join(made.report.notes)):
        assert "In 1 comparison all pairs came out equal, so nothing can be told of a difference." in text
        assert "[0.0, 0.0]" not in text


def test_what_has_no_width_is_no_interval(tmp_path: Path, trial: Make, write_run: Write) -> None:
    """All arms and tasks spend alike; one arm solves everything that the other does not."""
    turns = (TurnRecord(prompt=10, prefix=3, spliced=0, prefilled=7),) * 3
    records = all_equal(trial, turns)
    lost = [r.model_copy(update={"outcome": TrialOutcome.FAILED}) if r.arm == "keep_all" else r for r in records]
    made = written(tmp_path, write_run, lost)
    [item] = json.loads(made.results.read_text())["comparisons"]
    assert item["solve_rate"] == {"estimate": 1.0, "low": None, "high": None}
    assert item["equal"] == ["hit_rate", "prefilled"]
    text = made.markdown.read_text()
    assert "| +100.0 [no interval] | 0.0 [all pairs equal: nothing can be told] | 0 [all pairs equal:" in text
    assert "| 30.0% [no interval] | 21 [no interval] |" in text
    assert [arm.per_solved.prefilled for arm in made.report.arms] == [None, 21]


def test_cost_is_told_where_it_is_known(tmp_path: Path, trial: Make, write_run: Write) -> None:
    turns = (TurnRecord(prompt=10, prefix=3, spliced=0, prefilled=7),) * 3
    records = [r.model_copy(update={"energy_j": None}) for r in all_equal(trial, turns)]
    head = written(tmp_path, write_run, records).markdown.read_text().partition("| arm |")[2].split("\n")[0]
    assert head == " solve rate | hit rate | prefilled a trial | prefilled per solved task |"


def test_one_trial(tmp_path: Path, trial: Make, write_run: Write) -> None:
    made = written(tmp_path, write_run, [trial(arm, 0, 0, random.Random(1)) for arm in ("keep_all", "amortize")])
    arm = made.report.arms[0]
    assert (arm.trials, arm.tasks) == (1, 1)
    assert "[no interval]" in made.html.read_text()
    assert json.loads(made.results.read_text())["arms"][0]["hit_rate"]["low"] is None
    assert any("Fewer than 10 tasks" in note for note in made.report.notes)


def test_trials_without_turns(tmp_path: Path, trial: Make, write_run: Write) -> None:
    rng = random.Random(2)
    broken = {"turns": (), "outcome": TrialOutcome.ERROR, "wall_s": 0.0, "started": 0.0, "detail": "no server"}
    made = written(
        tmp_path, write_run, [trial(arm, t, 0, rng, **broken) for t in range(3) for arm in ("keep_all", "truncate")]
    )
    arm = made.report.arms[0]
    assert arm.hit_rate is None
    assert arm.timing.ttft_p50 is None
    assert "6 trials ended in an error" in made.html.read_text()


def test_one_of_a_kind_is_told_in_the_singular(tmp_path: Path, trial: Make, write_run: Write) -> None:
    rng = random.Random(5)
    records = [
        trial("keep_all", n, 0, rng, outcome=kind) for n, kind in enumerate((TrialOutcome.ERROR, TrialOutcome.UNSCORED))
    ]
    page = written(tmp_path, write_run, records, b"{}\n").html.read_text()
    for said in (
        "1 trial ended in an error, counted as not solved.",
        "1 trial without a verdict, left out of the solve rates.",
        "1 record line could not be read: not counted.",
    ):
        assert said in page


@pytest.mark.parametrize(
    ("machines", "releases", "said"),
    [
        (("A", "A"), ("1", "1"), None),
        (("A", "B"), ("1", "1"), "on several machines"),
        (("A", ""), ("1", "1"), "on several machines"),
        (("A", "A"), ("1", "2"), "under several sets of releases"),
    ],
)
def test_where_the_trials_ran(
    tmp_path: Path,
    trial: Make,
    write_run: Write,
    machines: tuple[str, str],
    releases: tuple[str, str],
    said: str | None,
) -> None:
    rng = random.Random(2)
    made = written(
        tmp_path,
        write_run,
        [
            trial("keep_all", task, 0, rng, machine=machines[task % 2], versions={"torch": releases[task % 2]})
            for task in range(12)
        ],
    )
    notes = [note for note in made.report.notes if "not one measurement" in note]
    assert [str(said) in note for note in notes] == ([] if said is None else [True])
    markdown = made.markdown.read_text()
    assert all(machine in markdown.split("\n")[2].split(" · ") for machine in machines if machine)
    table = markdown.partition("## Where the trials ran")[2].partition("## ")[0]
    assert table.count("| 6 |") == (2 if said else 0)
    assert table.count("| 12 |") == (0 if said else 1)
    assert ("not recorded" in table) == ("" in machines)


def test_trials_without_a_verdict(tmp_path: Path, trial: Make, write_run: Write) -> None:
    rng = random.Random(3)
    waiting = {"outcome": TrialOutcome.UNSCORED}
    records = [trial("keep_all", t, 0, rng, **waiting) for t in range(12)]
    records += [trial("truncate", t, 0, rng, **({} if t % 2 else waiting)) for t in range(12)]
    records += [trial("amortize", t, 0, rng, outcome=TrialOutcome.SOLVED) for t in range(12)]
    made = written(tmp_path, write_run, records)
    first, second, _ = made.report.arms
    assert (first.solve_rate, first.scored, first.unscored) == (None, 0, 12)
    assert (second.scored, second.unscored, second.trials) == (6, 6, 12)
    comparison, _, tested = made.report.comparisons
    assert (comparison.pairs, comparison.unscored, comparison.solve_rate) == (12, 12, None)
    assert comparison.hit_rate is not None
    assert (tested.pairs, tested.unscored) == (12, 6)
    assert tested.p_holm == tested.p_value  # the two comparisons without a verdict are no tests
    assert [(need.first, need.second) for need in made.report.needs] == [("truncate", "amortize")]
    assert "18 trials without a verdict" in made.html.read_text()


def test_arms_without_a_common_task(tmp_path: Path, trial: Make, write_run: Write) -> None:
    rng = random.Random(4)
    records = [trial("keep_all", t, 0, rng) for t in range(5)] + [trial("truncate", t, 0, rng) for t in range(5, 10)]
    [comparison] = written(tmp_path, write_run, records).report.comparisons
    assert (comparison.pairs, comparison.unpaired_first, comparison.unpaired_second) == (0, 5, 5)
    assert comparison.solve_rate is None
    assert comparison.p_holm == 1.0


def test_tokens_that_do_not_add_up_are_reported(tmp_path: Path, trial: Make, write_run: Write) -> None:
    turn = TurnRecord(prompt=10, prefix=4, spliced=1, prefilled=4)
    made = written(tmp_path, write_run, [trial("keep_all", 0, 0, random.Random(5), turns=(turn, turn))])
    assert made.report.arms[0].tokens.unbalanced == 2
    assert "In 2 turns cached, spliced and prefilled tokens do not add up" in made.html.read_text()


def test_names_cannot_break_the_page(tmp_path: Path, trial: Make, write_run: Write) -> None:
    rng = random.Random(6)
    names = ["<script>alert(1)</script>", "_under $x^2$ | *b*", "温度 🙂 " + "long " * 20]
    records = [trial(name, t, 0, rng, task=f"</script><b>{t}", policy="a|b<i>") for name in names for t in range(12)]
    made = written(tmp_path, write_run, records)
    page = made.html.read_text()
    assert "<script>alert" not in page
    assert "</script><b>" not in page
    text = made.markdown.read_text()
    assert "<script>" not in text
    tables = [block.split("\n") for block in text.split("\n\n") if block.startswith("| ")]
    for table in tables:
        assert len({line.replace("\\|", "").count("|") for line in table}) == 1, table


def test_many_arms_are_compared_within_their_group(tmp_path: Path, trial: Make, write_run: Write) -> None:
    rng = random.Random(7)
    models = ("mla", "gqa")
    arms = ("keep_all", "truncate", "amortize", "unrotated")
    records = [
        trial(arm, t, 0, rng, arm=f"{arm} ({model})", model=model) for t in range(3) for model in models for arm in arms
    ]
    data = gather([write_run(tmp_path / "run", records)])
    pairs = [(a.label, b.label) for a, b in select_pairs(data.arms)]
    assert len(pairs) == 2 * 6
    assert all(a.split()[1] == b.split()[1] for a, b in pairs)
    only = select_pairs(data.arms, "truncate (gqa)")
    assert len(only) == 7
    assert {a.label for a, _ in only} == {"truncate (gqa)"}
    with pytest.raises(ReportError, match="no arm is called 'x'; there are: keep_all"):
        select_pairs(data.arms, "x")


def test_nothing_in_the_page_is_fetched(tmp_path: Path, trial: Make, write_run: Write) -> None:
    rng = random.Random(8)
    page = written(
        tmp_path, write_run, [trial(a, t, 0, rng) for t in range(4) for a in ("keep_all", "amortize")]
    ).html.read_text()
    assert "default-src 'none'" in page
    assert (
        re.findall(r"<link[^>]*>", page)
        == re.findall(r'<link rel="icon" href="data:image/svg[+]xml,[^"]*">', page)
        != []
    )
    assert not [part for part in (" src=", "@import", "url(http") if part in page]


def test_the_same_records_give_the_same_files(tmp_path: Path, trial: Make, write_run: Write) -> None:
    rng = random.Random(9)
    run = write_run(tmp_path / "run", [trial(a, t, 0, rng) for t in range(4) for a in ("keep_all", "amortize")])
    first, second = (write_report([run], tmp_path / name) for name in ("one", "two"))
    for a, b in ((first.html, second.html), (first.markdown, second.markdown), (first.results, second.results)):
        assert a.read_bytes() == b.read_bytes()
    for path in first.plots:
        assert path.read_bytes() == (tmp_path / "two" / "plots" / path.name).read_bytes()


def test_a_place_that_cannot_be_written(tmp_path: Path, write_run: Write) -> None:
    run = write_run(tmp_path / "run", [])
    (tmp_path / "file").touch()
    with pytest.raises(ReportError, match=r"cannot write to .*choose another --out"):
        write_report([run], tmp_path / "file" / "out")
