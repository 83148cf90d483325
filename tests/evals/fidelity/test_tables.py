from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from leyline.directives import Mode
from leyline.evals.fidelity import FidelityError, FidelityRecord, by_edits, by_margin, read_records, recommend, rows
from leyline.evals.fidelity.summary import LEAST_PROBES, bounds, followed, least_trajectories
from leyline.evals.stats.clustered import wilson_share


def record(**changes: Any) -> FidelityRecord:
    values = {
        **dict.fromkeys(("edits", "splices", "turn"), 1),
        **dict.fromkeys(("agree_full", "agree_honest", "references_agree"), True),
        **dict.fromkeys(("common_full", "common_honest", "common_references", "tokens_full", "tokens_honest"), 10),
        **dict.fromkeys(("kl_full", "kl_honest", "kl_references"), 0.0),
        **dict.fromkeys(("margin_full", "margin_honest"), 2.0),
        **dict.fromkeys(("full", "prompt", "spliced", "approximate"), 50),
        **dict.fromkeys(("model", "trajectory", "policy"), "t0"),
        "seam": 0,
    }
    return FidelityRecord(**{**values, **changes})


OFF: dict[str, Any] = {"agree_full": False, "agree_honest": False, "common_full": 0, "common_honest": 0}


def probes(count: int, seam: int = 0, wrong: int = 0, trajectories: int = 50, **changes: Any) -> list[FidelityRecord]:
    """The first `wrong` agree with neither reference from the first token on."""
    return [
        record(trajectory=f"t{n % trajectories}", turn=n, seam=seam, **{**changes, **(OFF if n < wrong else {})})
        for n in range(count)
    ]


def test_rows_are_means_over_the_probes_of_a_seam() -> None:
    records = [record(kl_full=1.0, common_full=4, agree_honest=False), record(kl_full=0.5, trajectory="t1")]
    records += [record(seam=8, agree_full=False)]
    first, second = rows(records)
    assert (first.seam, first.probes, first.trajectories, second.seam, second.probes) == (0, 2, 2, 8, 1)
    assert (first.kl_full, first.common_full, first.agree_honest, first.agree_full) == (0.75, 7.0, 0.5, 1.0)
    assert (first.either, second.either, second.agree_full) == (1.0, 1.0, 0.0)
    with pytest.raises(FidelityError, match="no probe"):
        rows([])


def test_followed_is_the_better_of_the_two_references() -> None:
    assert followed(record(common_full=3, common_honest=6)) == 0.6
    assert followed(record(common_full=8, tokens_full=8, common_honest=0)) == 1.0


def test_parts_by_margin_and_by_edits_add_up() -> None:
    records = [record(edits=e, margin_honest=m) for e, m in ((1, 0.2), (2, 0.9), (3, 1.0), (5, 2.5), (12, 9.0))]
    records += [record(seam=8, edits=40, margin_honest=40.0)]
    margins, edits = by_margin(records, 0), by_edits(records, 0)
    assert [(r.label, r.probes) for r in margins] == [
        ("0.0 to 1.0 nats", 2),
        ("1.0 to 3.0 nats", 2),
        ("3.0 nats or more", 1),
    ]
    assert [(r.label, r.probes) for r in edits] == [
        ("1 to 2 edits", 2),
        ("3 to 5 edits", 2),
        ("11 edits or more", 1),
    ]
    assert sum(r.probes for r in margins) == sum(r.probes for r in edits) == 5


def test_a_model_that_follows_is_recommended_amortize() -> None:
    verdict = recommend(probes(100))
    assert (verdict.mode, verdict.seam, verdict.text) == (Mode.AMORTIZE, 0, "AMORTIZE")
    assert "92.9%" in verdict.reason  # Wilson's lower bound of 50 of 50 trajectories, not 100 %


def test_probes_of_one_trajectory_prove_no_more_than_the_trajectory() -> None:
    few = recommend([record(trajectory=f"t{n % 2}", turn=n) for n in range(40)])
    assert few.mode is Mode.FORGET
    assert few.reason == (
        "2 trajectories are too few to say: if all agreed, the bound would be 34.2%; at least 35 are needed for the "
        "threshold 90%"
    )
    assert bounds([record(trajectory=f"t{n % 2}", turn=n) for n in range(40)]) == pytest.approx(
        (0.3424, 0.3424), abs=1e-4
    )
    assert recommend(probes(700, trajectories=34)).mode is Mode.FORGET
    assert recommend(probes(700, trajectories=35)).mode is Mode.AMORTIZE
    assert least_trajectories(0.9) == 35
    assert recommend(probes(100, trajectories=1), threshold=0.2).mode is Mode.AMORTIZE


def test_disagreement_that_sits_in_some_trajectories_costs_as_much_as_those() -> None:
    # 10 of 200 probes are wrong: spread out, or all probes of two trajectories of forty
    spread = [record(trajectory=f"t{n % 40}", turn=n, **(OFF if n < 10 else {})) for n in range(200)]
    packed = [record(trajectory=f"t{n % 40}", turn=n, **(OFF if n % 40 < 2 else {})) for n in range(200)]
    low, worse = bounds(spread)[0], bounds(packed)[0]
    assert worse <= low < 0.9
    assert low == pytest.approx(wilson_share(0.95, 40).low)


def test_the_smallest_seam_that_keeps_the_threshold_is_recommended() -> None:
    records = [*probes(100, 0, wrong=40), *probes(100, 8, wrong=30), *probes(100, 32), *probes(100, 128)]
    verdict = recommend(records)
    assert (verdict.mode, verdict.seam, verdict.text) == (Mode.AMORTIZE, 32, "AMORTIZE with seam 32")


def test_a_model_that_goes_its_own_way_is_recommended_forget() -> None:
    verdict = recommend([*probes(100, 0, wrong=40), *probes(100, 8, wrong=30)])
    assert (verdict.mode, verdict.text) == (Mode.FORGET, "FORGET")
    assert "at seam 8" in verdict.reason
    # A first token that agrees does not help where the rest of the answer does not follow.
    drifting = probes(100, common_full=2, common_honest=5)
    assert recommend(drifting).mode is Mode.FORGET
    assert recommend(drifting, threshold=0.3).mode is Mode.AMORTIZE


def test_too_few_probes_prove_nothing() -> None:
    verdict = recommend(probes(LEAST_PROBES - 1))
    assert verdict.mode is Mode.FORGET
    assert "too few" in verdict.reason
    assert recommend(probes(1)).reason.startswith("1 probe is too few to say; ")
    with pytest.raises(FidelityError, match="between 0 and 1"):
        recommend(probes(50), threshold=1.0)


def test_agreement_with_either_reference_counts() -> None:
    only_full = probes(100, agree_honest=False, common_honest=0)
    only_honest = probes(100, agree_full=False, common_full=0)
    assert recommend(only_full).mode is recommend(only_honest).mode is Mode.AMORTIZE


def test_records_survive_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text(record().model_dump_json() + "\n" + record().model_dump_json()[:40])
    assert read_records(path) == [record()]
    path.write_text("{}\n")
    with pytest.raises(FidelityError, match="line 1"):
        read_records(path)
    with pytest.raises(FidelityError, match="cannot read"):
        read_records(tmp_path / "none")
