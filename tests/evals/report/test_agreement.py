import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from leyline.evals.fidelity.probe import FidelityRecord
from leyline.evals.report import write_report


def probe(rng: random.Random, trajectory: int, edits: int, seam: int) -> FidelityRecord:
    return FidelityRecord(
        model="tiny-mla",
        trajectory=f"t{trajectory}",
        policy="truncate_older_than(n=2, max_chars=200)",
        turn=edits + 2,
        seam=seam,
        edits=edits,
        splices=edits,
        full=900,
        prompt=700,
        spliced=200,
        approximate=300,
        agree_full=rng.random() < 0.6,
        agree_honest=rng.random() < 0.9 - 0.04 * edits,
        references_agree=rng.random() < 0.8,
        common_full=3,
        common_honest=5,
        common_references=4,
        tokens_full=8,
        tokens_honest=8,
        kl_full=0.1,
        kl_honest=0.05,
        kl_references=0.1,
        margin_full=1.0,
        margin_honest=1.0,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = random.Random(0)
    probes = [probe(rng, t, edits, seam) for t in range(9) for edits in range(1, 13) for seam in (0, 32)]
    text = "".join(p.model_dump_json() + "\n" for p in probes)
    run = tmp_path / "fidelity-tiny-mla"
    run.mkdir()
    (run / "fidelity.jsonl").write_text(text + '{"format": 1}\n{"torn')
    return run


def test_agreement_by_edits_is_what_the_lines_say(folder: Path) -> None:
    written = write_report([folder], folder / "report")
    groups: dict[tuple[int, str], list[dict[str, Any]]] = defaultdict(list)
    names = {1: "1", 2: "2", **dict.fromkeys((3, 4, 5), "3 to 5"), **dict.fromkeys(range(6, 11), "6 to 10")}
    for line in (folder / "fidelity.jsonl").read_text().split("\n")[:-2]:
        value = json.loads(line)
        groups[value["seam"], names.get(value["edits"], "11 or more")].append(value)
    have = json.loads(written.results.read_text())["agreement_by_edits"]
    assert len(have) == len(groups) == 10
    for point, ((seam, label), values) in zip(have, groups_in_order(groups), strict=True):
        n = len(values)
        assert (point["seam"], point["probes"], point["trajectories"]) == (seam, n, 9)
        assert point["honest"]["estimate"] == pytest.approx(sum(v["agree_honest"] for v in values) / n)
        assert point["honest"]["low"] <= point["honest"]["estimate"] <= point["honest"]["high"]
        assert point["full"] == pytest.approx(sum(v["agree_full"] for v in values) / n)
        assert point["references"] == pytest.approx(sum(v["references_agree"] for v in values) / n)
        assert point["edits_mean"] == pytest.approx(sum(v["edits"] for v in values) / n)
        assert (
            f"| {seam} | {label} | {n} | 9 | {100 * point['honest']['estimate']:.1f}% [" in written.markdown.read_text()
        )


def groups_in_order(
    groups: dict[tuple[int, str], list[dict[str, Any]]],
) -> list[tuple[tuple[int, str], list[dict[str, Any]]]]:
    return sorted(groups.items(), key=lambda item: (item[0][0], min(v["edits"] for v in item[1])))


def test_a_fidelity_folder_alone_is_a_report(folder: Path) -> None:
    written = write_report([folder], folder / "report")
    page = written.html.read_text()
    assert 'id="plot-agreement"' in page
    assert "No trial is recorded" not in page
    assert "2 fidelity lines could not be read." in page
    assert "fidelity.jsonl:217" in page
    assert (folder / "report" / "plots" / "agreement.png").exists()
