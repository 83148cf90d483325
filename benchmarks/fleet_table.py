"""The tables of docs/many-machines.md, from results/fleet/fleet.json: `python benchmarks/fleet_table.py`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def read() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "results" / "fleet" / "fleet.json").read_text(encoding="utf-8"))
    return found


def fleets(found: Mapping[str, Any]) -> str:
    """What each router makes of fleets of three sizes."""
    lines = [
        "| Policy | Replicas | Router | Stay % | Hit % | Spliced % | Wait ms | TTFT p50 ms | p95 ms |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        if row["policy"] not in ("keep_all", "truncate") or row["replicas"] not in (1, 8, 1000):
            continue
        if row["replicas"] == 1 and row["router"] != "affinity":
            continue
        router = "any" if row["replicas"] == 1 else f"`{row['router']}`"
        shares = " | ".join(f"{row[name]:.1f}" for name in ("stayed", "hit", "spliced"))
        times = " | ".join(f"{1000 * row[name]:.0f}" for name in ("wait", "ttft_p50", "ttft_p95"))
        lines.append(f"| `{row['policy']}` | {row['replicas']} | {router} | {shares} | {times} |")
    return "\n".join(lines)


def capacities(found: Mapping[str, Any]) -> str:
    """How many sessions the KV of one GPU holds to their end."""
    tokens = int(found["settings"]["capacity"])
    base = found["sessions"]["keep_all"]["mean_longest"]
    lines = ["| Policy | Longest prompt, mean | Shorter by | Sessions in a GPU's KV |", "|---|---|---|---|"]
    for name, about in found["sessions"].items():
        longest = about["mean_longest"]
        lines.append(f"| `{name}` | {longest:,.0f} | {100 * (1 - longest / base):.0f} % | {tokens / longest:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(fleets(read()), capacities(read()), sep="\n\n")
