"""Every number of a report, computed again from the lines of the records in plain Python."""

from __future__ import annotations

import json
import math
import random
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import combinations, product
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pytest

from leyline.evals.report import Written, write_report
from leyline.evals.trials.record import TrialRecord

pytestmark = pytest.mark.xdist_group("report-recompute")  # so that the reports are made once

Json = dict[str, Any]
Z = NormalDist().inv_cdf(0.975)
ARMS = ("keep_all", "truncate", "amortize", "unrotated")


@dataclass
class Near:
    """A bootstrap's end: another bootstrap draws others, so it is held to a share of the interval's width."""

    value: float
    slack: float


@pytest.fixture(scope="module", params=[(16, 1), (11, 2)], ids=["one seed", "two seeds"])
def made(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    trial: Callable[..., TrialRecord],
    write_run: Callable[..., Path],
) -> tuple[Json, Written]:
    """What the lines say, and the report that was written."""
    tasks, seeds = request.param
    rng = random.Random(tasks)
    records = [
        trial(arm, task, seed, rng)
        for task in range(tasks)
        for seed in range(seeds)
        for arm in ARMS
        if (arm, task) != ("truncate", 3)  # one task that an arm did not run
    ]
    redone = records[5].model_copy(update={"attempt": 1, "wall_s": 9.0})
    old = records[6].model_copy(update={"digest": "older", "started": 1.0})
    tail = redone.model_dump_json() + "\n" + redone.model_dump_json() + "\n" + '{"format": 3}\nno json\n{"torn'
    folder = tmp_path_factory.mktemp("run")
    path = write_run(folder, [old, *records], tail.encode())
    return expected(path), write_report([path], folder / "report")


def read(path: Path) -> tuple[list[Json], Json]:
    """The records that count, and an account of the lines, by rules written down a second time."""
    text = (path / "records.jsonl").read_text()
    whole = [line for line in text.split("\n")[:-1] if line.strip()]
    torn = bool(text.split("\n")[-1])
    good, broken = [], 0
    for line in whole:
        try:
            value = json.loads(line)
            good.append((value["suite"], value["task"], value["arm"], value["seed"], value["digest"], value))
        except (ValueError, KeyError):
            broken += 1
    best: dict[Any, Json] = {}
    superseded = duplicates = 0
    for *key, value in good:
        held = best.get(tuple(key))
        if held is not None and held["attempt"] == value["attempt"]:
            duplicates += 1
            continue
        superseded += held is not None
        best[tuple(key)] = value
    latest: dict[Any, Json] = {}
    for key, value in best.items():
        if key[:4] not in latest or value["started"] >= latest[key[:4]]["started"]:
            latest[key[:4]] = value
    account = {
        "total": len(whole),
        "counted": len(latest),
        "superseded": superseded,
        "duplicates": duplicates,
        "outdated": len(best) - len(latest),
        "broken": broken,
        "torn": int(torn),
        "interrupted": 0,
    }
    return list(latest.values()), account


def total(record: Json, *fields: str) -> int:
    return sum(turn[field] for turn in record["turns"] for field in fields)


def wilson(k: int, n: int) -> Json:
    p, scale = k / n, 1 + Z * Z / n
    centre = (p + Z * Z / (2 * n)) / scale
    half = Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n)) / scale
    return {"estimate": p, "low": 0.0 if k == 0 else centre - half, "high": 1.0 if k == n else centre + half}


def bootstrap(statistic: Callable[[list[str]], float], tasks: list[str]) -> Json:
    """A percentile bootstrap over tasks; its ends are near, not equal, to another one's."""
    rng = random.Random(1)
    values = sorted(statistic(rng.choices(tasks, k=len(tasks))) for _ in range(1500))
    low, high = values[37], values[1462]
    slack = 0.15 * (high - low) + 1e-9
    return {"estimate": statistic(tasks), "low": Near(low, slack), "high": Near(high, slack)}


def by_task(records: list[Json]) -> dict[str, list[Json]]:
    groups = defaultdict(list)
    for record in records:
        groups[f"{record['suite']}/{record['task']}"].append(record)
    return dict(groups)


def ratio(records: list[Json], top: Callable[[Json], float], bottom: Callable[[Json], float]) -> Json:
    groups = by_task(records)

    def statistic(tasks: list[str]) -> float:
        chosen = [record for task in tasks for record in groups[task]]
        return sum(map(top, chosen)) / sum(map(bottom, chosen))

    return bootstrap(statistic, sorted(groups))


def quantile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    place = (len(ordered) - 1) * q
    low = int(place)
    return ordered[low] + (place - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])


SOLVED = (lambda r: float(r["outcome"] == "solved"), lambda r: 1.0)
HIT = (lambda r: total(r, "prefix", "spliced"), lambda r: total(r, "prompt"))
PREFILLED = (lambda r: total(r, "prefilled"), lambda r: 1.0)


def arm_numbers(label: str, records: list[Json]) -> Json:
    turns = [turn for record in records for turn in record["turns"]]
    known = [turn for turn in turns if turn["full"] is not None]
    ttft = [turn["ttft"] for turn in turns if turn["ttft"] is not None]
    energy = [record["energy_j"] for record in records if record["energy_j"] is not None]
    outcomes = [record["outcome"] for record in records]
    groups = by_task(records)
    single = all(len(group) == 1 for group in groups.values())
    fallbacks: dict[str, int] = {}
    for turn in turns:
        if turn["fallback"]:
            fallbacks[turn["fallback"]] = fallbacks.get(turn["fallback"], 0) + 1
    first = records[0]
    return {
        "label": label,
        "control": first["control"],
        "facts": {name: first[name] for name in ("policy", "mode", "backend", "model")},
        "group": "micro · local · tiny-mla",
        "trials": len(records),
        "tasks": len(groups),
        "seeds": len({record["seed"] for record in records}),
        **{name: outcomes.count(name) for name in ("solved", "failed", "limit", "error", "unscored")},
        "scored": len(records),
        "solve_rate": wilson(outcomes.count("solved"), len(records)) if single else ratio(records, *SOLVED),
        "solve_method": "wilson" if single else "bootstrap",
        "hit_rate": ratio(records, *HIT),
        "turns": len(turns),
        "tokens": {
            **{n: sum(t[n] for t in turns) for n in ("prompt", "prefix", "spliced", "prefilled", "completion")},
            "shed": sum(max(0, turn["full"] - turn["prompt"]) for turn in known),
            "shed_turns": len(known),
            "unbalanced": sum(t["prompt"] != t["prefix"] + t["spliced"] + t["prefilled"] for t in turns),
        },
        "prefilled_per_trial": ratio(records, *PREFILLED),
        "per_solved": per_solved(records),
        "edits": sum(turn["edits"] for turn in turns),
        "directives": sum(turn["directives"] for turn in turns),
        "fallbacks": fallbacks,
        "approximate": sum(record["approximate"] for record in records),
        "timing": {
            "ttft_p50": quantile(ttft, 0.5),
            "ttft_p95": quantile(ttft, 0.95),
            "ttft_turns": len(ttft),
            "wall_total": sum(record["wall_s"] for record in records),
            "wall_p50": quantile([record["wall_s"] for record in records], 0.5),
            "wall_trials": len(records),
            "energy_j": sum(energy) if energy else None,
            "energy_trials": len(energy),
        },
    }


def per_solved(records: list[Json]) -> Json:
    def share(spent: list[tuple[Json, float]]) -> float | None:
        solved = sum(record["outcome"] == "solved" for record, _ in spent)
        return sum(value for _, value in spent) / solved if solved else None

    computed = []
    for record in records:
        parts = [(turn["prefill_s"], turn["decode_s"], turn["splice_s"] or 0.0) for turn in record["turns"]]
        if all(part[0] is not None for part in parts):
            computed.append((record, math.fsum(seconds for part in parts for seconds in part)))
    metered = [(record, record["energy_j"]) for record in records if record["energy_j"] is not None]
    assert 0 < len(computed) < len(records)
    return {
        "prefilled": share([(record, float(total(record, "prefilled"))) for record in records]),
        "compute_s": share(computed),
        "compute_trials": len(computed),
        "energy_j": share(metered),
        "energy_trials": len(metered),
    }


def partners(first: list[Json], second: list[Json]) -> list[tuple[Json, Json]]:
    left, right = ({(r["task"], r["seed"]): r for r in records} for records in (first, second))
    return [(left[key], right[key]) for key in sorted(left.keys() & right.keys())]


def comparison(names: tuple[str, str], first: list[Json], second: list[Json]) -> Json:
    pairs = partners(first, second)
    outcomes = [(a["outcome"] == "solved", b["outcome"] == "solved") for a, b in pairs]
    wins, losses = outcomes.count((False, True)), outcomes.count((True, False))
    tasks = sorted({a["task"] for a, _ in pairs})
    single = len(tasks) == len(pairs)
    if single:
        n = wins + losses
        p = min(1.0, 2 * sum(math.comb(n, k) for k in range(min(wins, losses) + 1)) / 2**n)
    else:
        deltas = defaultdict(list)
        for (a, _), (x, y) in zip(pairs, outcomes, strict=True):
            deltas[a["task"]].append(y - x)
        moved = [d for d in (sum(v) / len(v) for v in deltas.values()) if d]
        sums = [
            abs(sum(s * d for s, d in zip(signs, moved, strict=True))) for signs in product((1, -1), repeat=len(moved))
        ]
        p = sum(s >= abs(sum(moved)) - 1e-9 for s in sums) / len(sums)

    def difference(top: Callable[[Json], float], bottom: Callable[[Json], float]) -> Json:
        groups = defaultdict(list)
        for a, b in pairs:
            groups[a["task"]].append((a, b))

        def statistic(drawn: list[str]) -> float:
            chosen = [pair for task in drawn for pair in groups[task]]
            low = sum(top(a) for a, _ in chosen) / sum(bottom(a) for a, _ in chosen)
            return sum(top(b) for _, b in chosen) / sum(bottom(b) for _, b in chosen) - low

        return bootstrap(statistic, tasks)

    return {
        "first": names[0],
        "second": names[1],
        "pairs": len(pairs),
        "tasks": len(tasks),
        "unpaired_first": len(first) - len(pairs),
        "unpaired_second": len(second) - len(pairs),
        "both": outcomes.count((True, True)),
        "wins": wins,
        "losses": losses,
        "neither": outcomes.count((False, False)),
        "unscored": 0,
        "test": "McNemar, exact" if single else "sign flip by task",
        "p_value": p,
        "p_holm": None,  # filled in when all are known
        "solve_rate": difference(*SOLVED),
        "hit_rate": difference(*HIT),
        "prefilled": difference(*PREFILLED),
        "equal": [],
    }


def need(names: tuple[str, str], first: list[Json], second: list[Json]) -> Json:
    pairs = partners(first, second)
    deltas = defaultdict(list)
    for a, b in pairs:
        deltas[a["task"]].append((b["outcome"] == "solved") - (a["outcome"] == "solved"))
    discordant = max(0.05, sum(abs(d) for group in deltas.values() for d in group) / len(pairs))
    k, n = len(deltas), len(pairs)
    clustering = 1.0
    if n > k:
        grand = sum(sum(group) for group in deltas.values()) / n
        means = {task: sum(group) / len(group) for task, group in deltas.items()}
        between = sum(len(g) * (means[t] - grand) ** 2 for t, g in deltas.items()) / (k - 1)
        within = sum((d - means[t]) ** 2 for t, g in deltas.items() for d in g) / (n - k)
        size = n / k  # every task has as many pairs
        clustering = 1 + (size - 1) * max(0.0, (between - within) / (between + (size - 1) * within))
    needed = pairs_for(0.05, discordant)
    whole = max(1, round(n / clustering))
    grid = [k / 10_000 for k in range(1, 10_001) if k / 10_000 <= discordant]
    seen = [effect for effect in grid if pairs_for(effect, discordant) <= whole]
    return {
        "first": names[0],
        "second": names[1],
        "pairs": n,
        "discordant": discordant,
        "design_effect": clustering,
        "pairs_needed": math.ceil(needed * clustering),
        "power_now": exact_power(whole, (discordant - 0.05) / 2, (discordant + 0.05) / 2),
        "detectable": Near(seen[0] - 5e-5, 1e-4) if seen else None,
    }


def pairs_for(effect: float, discordant: float) -> int:
    spread = Z * math.sqrt(discordant) + NormalDist().inv_cdf(0.8) * math.sqrt(discordant - effect**2)
    return math.ceil((spread / effect) ** 2)


def exact_power(n: int, first: float, second: float) -> float:
    power = 0.0
    for a in range(n + 1):
        for b in range(n + 1 - a):
            m = a + b
            if m and 2 * sum(math.comb(m, k) for k in range(min(a, b) + 1)) / 2**m <= 0.05:
                ways = math.comb(n, a) * math.comb(n - a, b)
                power += ways * first**a * second**b * (1 - first - second) ** (n - m)
    return power


def turn_points(records: list[Json]) -> list[Json]:
    points = []
    for k in range(max(len(record["turns"]) for record in records)):
        here = [record["turns"][k] for record in records if k < len(record["turns"])]
        prompt = sum(turn["prompt"] for turn in here)
        so_far = sum(turn["prefilled"] for record in records for turn in record["turns"][: k + 1])
        points.append(
            {
                "turn": k + 1,
                "trials": len(here),
                "prompt": prompt / len(here),
                "hit_rate": sum(turn["prefix"] + turn["spliced"] for turn in here) / prompt,
                "edits": sum(turn["edits"] for turn in here),
                "cumulative": so_far / len(records),
            }
        )
    return points


def load_points(records: list[Json], everything: list[Json]) -> list[Json]:
    levels = defaultdict(list)
    for record in records:
        start, end = record["started"], record["started"] + record["wall_s"]
        shared = sum(
            max(0.0, min(end, other["started"] + other["wall_s"]) - max(start, other["started"]))
            for other in everything
        )
        times = [turn["ttft"] for turn in record["turns"] if turn["ttft"] is not None]
        if times:
            levels[max(1, round(shared / (end - start)))].append(times)
    return [
        {
            "level": level,
            "trials": len(levels[level]),
            "turns": len(flat := [t for times in levels[level] for t in times]),
            "p50": quantile(flat, 0.5),
            "p95": quantile(flat, 0.95),
        }
        for level in sorted(levels)
    ]


def task_rows(arms: dict[str, list[Json]]) -> list[Json]:
    rows = []
    for task in sorted({f"{r['suite']}/{r['task']}" for records in arms.values() for r in records}):
        cells: dict[str, Json | None] = {}
        for label, records in arms.items():
            mine = [r["outcome"] for r in by_task(records).get(task, [])]
            counts = {name: mine.count(name) for name in ("solved", "limit", "error", "unscored")}
            cells[label] = {"trials": len(mine), **counts} if mine else None
        rates = {cell["solved"] / cell["trials"] for cell in cells.values() if cell}
        rows.append({"task": task, "split": len(rates) > 1, "cells": cells})
    return sorted(rows, key=lambda row: not row["split"])


def origins(records: list[Json]) -> list[Json]:
    keys = {(r["machine"], json.dumps(r["versions"], sort_keys=True)) for r in records}
    found = []
    for machine, versions in keys:
        here = [r["started"] for r in records if (r["machine"], r["versions"]) == (machine, json.loads(versions))]
        item = {"machine": machine, "versions": json.loads(versions), "trials": len(here)}
        found.append({**item, "first": min(here), "last": max(here)})
    return sorted(found, key=lambda item: item["first"])


def expected(path: Path) -> Json:
    records, account = read(path)
    arms: dict[str, list[Json]] = {}
    for record in records:
        arms.setdefault(record["arm"], []).append(record)
    comparisons = [comparison((a, b), arms[a], arms[b]) for a, b in combinations(arms, 2)]
    worst = 0.0
    for rank, item in enumerate(sorted(comparisons, key=lambda item: item["p_value"])):
        worst = max(worst, min(1.0, (len(comparisons) - rank) * item["p_value"]))
        item["p_holm"] = worst
    return {
        "lines": account,
        "arms": [arm_numbers(label, arms[label]) for label in arms],
        "comparisons": comparisons,
        "power": [need((a, b), arms[a], arms[b]) for a, b in combinations(arms, 2)],
        "tasks": task_rows(arms),
        "turns": {label: turn_points(arms[label]) for label in arms},
        "ttft_by_trials_in_flight": {label: load_points(arms[label], records) for label in arms},
        "agreement_by_edits": [],
        "origins": origins(records),
    }


def differences(want: Any, have: Any, place: str = "") -> list[str]:
    """Where `have` is not `want`, key by key; a key that only one of them has is a difference."""
    if isinstance(want, dict):
        if not isinstance(have, dict) or want.keys() != have.keys():
            return [f"{place}: keys {want.keys() ^ set(have or ())}"]
        return [found for key in want for found in differences(want[key], have[key], f"{place}.{key}")]
    if isinstance(want, list):
        if len(want) != len(have):
            return [f"{place}: {len(want)} items, {len(have)} found"]
        return [f for k, (a, b) in enumerate(zip(want, have, strict=True)) for f in differences(a, b, f"{place}[{k}]")]
    if isinstance(want, Near):
        return [] if have is not None and abs(have - want.value) <= want.slack else [f"{place}: {want}, {have} found"]
    if isinstance(want, float):
        return [] if have == pytest.approx(want, rel=1e-9, abs=1e-12) else [f"{place}: {want}, {have} found"]
    return [] if want == have and type(want) is type(have) else [f"{place}: {want!r}, {have!r} found"]


def test_every_number_of_the_results(made: tuple[Json, Written]) -> None:
    want, written = made
    have = json.loads(written.results.read_text())
    assert {"format", "confidence", "notes", "runs", *want} == have.keys()
    assert differences(want, {key: have[key] for key in want}) == []
    assert [run["lines"] for run in have["runs"]] == [want["lines"]]


def test_denominators_add_up(made: tuple[Json, Written]) -> None:
    results = json.loads(made[1].results.read_text())
    lines = results["lines"]
    parts = ("counted", "superseded", "duplicates", "outdated", "broken")
    assert lines["total"] == sum(lines[name] for name in parts)
    assert all(lines[name] for name in (*parts, "torn"))
    assert lines["counted"] == sum(arm["trials"] for arm in results["arms"])
    for arm in results["arms"]:
        assert arm["trials"] == sum(arm[name] for name in ("solved", "failed", "limit", "error", "unscored"))
        assert arm["tokens"]["prompt"] == sum(arm["tokens"][name] for name in ("prefix", "spliced", "prefilled"))
        for name in ("trials", "solved", "limit", "error"):
            assert arm[name] == sum(
                row["cells"][arm["label"]][name] for row in results["tasks"] if row["cells"][arm["label"]]
            )
    for c in results["comparisons"]:
        assert c["pairs"] == c["both"] + c["wins"] + c["losses"] + c["neither"] + c["unscored"]


class Tables(HTMLParser):
    """The text of the tables of a page, by id: rows of cells."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self._rows: list[list[str]] | None = None
        self._cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self._rows = []
            name = dict(attrs).get("id")
            if name is not None:
                self.tables[name.removeprefix("table-")] = self._rows
        elif tag == "tr" and self._rows is not None:
            self._rows.append([])
        elif tag in ("td", "th") and self._rows is not None:
            self._rows[-1].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data: str) -> None:
        if self._cell and self._rows is not None:
            self._rows[-1][-1] += data


def shown(cell: str) -> list[float]:
    """The numbers of a cell in base units: shares, tokens, seconds."""
    scale = {"%": 0.01, "ms": 0.001, "min": 60.0, "h": 3600.0}
    text = cell.replace(",", "") if "donor" not in cell else cell
    found = re.findall(r"([−-]?)(\d+(?:\.\d+)?)\s*(%|ms|min|h\b|s\b|J)?", text)
    percents = "%" in cell
    return [
        (-1 if sign else 1) * float(number) * (0.01 if percents else scale.get(unit, 1.0))
        for sign, number, unit in found
    ]


def values(want: Any) -> list[float]:
    if isinstance(want, dict):
        return [end.value if isinstance(end, Near) else end for end in (want["estimate"], want["low"], want["high"])]
    return [] if want is None else [float(want)]


def check(cell: str, want: Any, digits: float, scale: float = 1.0) -> None:
    """A cell shows `want` to within half of its last digit, or an end of a bootstrap to within its slack."""
    slack = [digits * 0.5001] * 3
    if isinstance(want, dict):
        slack = [digits * 0.5001 + (w.slack * scale if isinstance(w, Near) else 0) for w in want.values()]
    have = shown(cell)
    assert len(have) == len(values(want)), cell
    for a, b, room in zip(have, values(want), slack, strict=False):
        assert a == pytest.approx(b * scale, abs=room), (cell, want)


def test_every_number_of_the_page_and_the_text(made: tuple[Json, Written]) -> None:
    want, written = made
    parser = Tables()
    parser.feed(written.html.read_text())
    tables = parser.tables
    for arm, row in zip(want["arms"], tables["headline"][1:], strict=True):
        assert row[0].removesuffix(" negative control") == arm["label"]
        check(row[1], arm["solve_rate"], 0.001)
        check(row[2], arm["hit_rate"], 0.001)
        check(row[3], arm["prefilled_per_trial"], 1)
        cost = arm["per_solved"]
        check(row[4], cost["prefilled"], 1)
        for cell, value, known in zip(
            row[5:], ("compute_s", "energy_j"), ("compute_trials", "energy_trials"), strict=True
        ):
            said, _, of = cell.partition(" [")
            assert shown(said) == ([] if cost[value] is None else [pytest.approx(cost[value], rel=0.02)])
            some = cost[value] is not None and cost[known] < arm["scored"]
            assert of == (f"{cost[known]} of {arm['scored']} trials]" if some else "")
    for arm, row in zip(want["arms"], tables["outcomes"][1:], strict=True):
        assert row[1] == f"{arm['solved']} of {arm['scored']}"
        check(row[2], arm["solve_rate"], 0.001)
        names = ("tasks", "trials", "solved", "failed", "limit", "error", "unscored")
        assert row[4:11] == [str(arm[name]) for name in names]
        assert row[11:] == [arm["facts"][name] for name in ("mode", "policy", "backend", "model")]
    for arm, row in zip(want["arms"], tables["tokens"][1:], strict=True):
        check(row[1], arm["hit_rate"], 0.001)
        sums = ("prompt", "prefix", "spliced", "prefilled")
        assert row[2:6] == [f"{arm['tokens'][name]:,}" for name in sums]
        check(row[6], arm["prefilled_per_trial"], 1)
        shed, known = arm["tokens"]["shed"], arm["tokens"]["shed_turns"]
        assert row[7] == f"{shed:,}" + (f" ({known} of {arm['turns']} turns)" if known < arm["turns"] else "")
        counts = (arm["tokens"]["completion"], arm["turns"], arm["edits"], arm["directives"])
        assert row[8:12] == [f"{number:,}" for number in counts]
        assert row[12] == (f"donor_missing {n}" if (n := arm["fallbacks"].get("donor_missing")) else "none")
        assert row[13] == str(arm["approximate"])
    for arm, row in zip(want["arms"], tables["times"][1:], strict=True):
        time = arm["timing"]
        for cell, value in zip(
            (row[1], row[2], row[4], row[5]), ("ttft_p50", "ttft_p95", "wall_p50", "wall_total"), strict=True
        ):
            assert shown(cell) == [pytest.approx(time[value], rel=0.01)]
        assert row[3] == f"{time['ttft_turns']} of {arm['turns']}"
        assert row[6] == f"{time['wall_trials']} of {arm['trials']}"
        check(row[7], time["energy_j"], 1)
        assert row[8] == f"{time['energy_trials']} of {arm['trials']}"
    for c, row in zip(want["comparisons"], tables["comparisons"][1:], strict=True):
        assert row[:3] == [c["second"], c["first"], str(c["pairs"])]
        check(row[3], c["solve_rate"], 0.1, 100)
        check(row[4], c["hit_rate"], 0.1, 100)
        check(row[5], c["prefilled"], 1)
    for c, item, row in zip(want["comparisons"], want["power"], tables["tests"][1:], strict=True):
        assert row[:3] == [c["second"], c["first"], str(c["pairs"])]
        assert row[3:7] == [str(c[name]) for name in ("wins", "losses", "both", "neither")]
        for cell, p in zip(row[7:9], (c["p_value"], c["p_holm"]), strict=True):
            assert cell == ("<0.001" if p < 0.001 else f"{p:.3f}")
        check(row[9], item["power_now"], 0.001)
        assert row[10] == c["test"]
        assert row[11] == f"{c['unpaired_second']} / {c['unpaired_first']}"
    for item, row in zip(want["power"], tables["power"][1:], strict=True):
        assert row[:3] == [item["second"], item["first"], str(item["pairs"])]
        check(row[3], item["discordant"], 0.001)
        check(row[4], item["design_effect"], 0.01)
        assert row[5] == f"{item['pairs_needed']:,}"
        found = item["detectable"]
        assert shown(row[6]) == ([] if found is None else [pytest.approx(100 * found.value, abs=0.07)])
    points = [(label, point) for label, curve in want["turns"].items() for point in curve]
    for (label, point), row in zip(points, tables["turns"][1:], strict=True):
        assert row[:3] == [label, str(point["turn"]), str(point["trials"])]
        check(row[3], point["prompt"], 1)
        check(row[4], point["hit_rate"], 0.001)
        assert row[5] == str(point["edits"])
        check(row[6], point["cumulative"], 1)
    assert tables["account"][1][1:] == [*(str(number) for number in want["lines"].values()), "–"]
    text = written.markdown.read_text()
    for name, rows in tables.items():
        if name != "turns":
            for row in rows:
                cells = [cell.strip().removesuffix(" negative control") for cell in row]
                assert " | ".join(cell.replace("*", "\\*").replace("<", "&lt;") for cell in cells) in text


def test_the_heat_map_shows_every_task(made: tuple[Json, Written]) -> None:
    want, written = made
    page = written.html.read_text()
    for row in want["tasks"]:
        line = next(
            line
            for line in page.split("\n")
            if f">{row['task'].replace('/', '/<wbr>').replace('-', '-<wbr>')}<" in line
        )
        titles = re.findall(r'title="([^":]*): ([^"]*)"', line)
        for (label, said), (name, cell) in zip(titles, row["cells"].items(), strict=True):
            assert label == name
            assert said.partition(" (")[0] == (f"{cell['solved']} of {cell['trials']} solved" if cell else "not run")
