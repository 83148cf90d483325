"""The table of docs/proxy.md, from the files of results/proxy/.

    python benchmarks/proxy_table.py

Prints it as Markdown. A test compares it with the page.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results" / "proxy"


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def figures() -> str:
    """What was measured, a line each."""
    late, rate, room = read("latency")["latency"], read("throughput")["throughput"], read("memory")["memory"]
    added, own, other = late["added_ms"], rate["leyline"], rate["litellm"]
    rows = [
        ["processor time a request", f"{own['processor_ms']:.2f} ms", f"{other['processor_ms']:.2f} ms"],
        ["requests/s, 32 sessions that do not wait", f"{own['requests_per_s']:.0f}", f"{other['requests_per_s']:.0f}"],
        ["added to an answer of 200 ms, p50", f"{added['p50']:.1f} ms", "-"],
        ["added, p99", f"{added['p99']:.1f} ms", "-"],
        [f"resident after {room['requests'] // 2:,} requests", f"{room['resident_mib'][4]:.1f} MiB", "-"],
        [f"resident after {room['requests']:,} requests", f"{room['resident_mib'][-1]:.1f} MiB", "-"],
    ]
    lines = [["what", "leyline proxy", "LiteLLM's proxy"], ["---"] * 3, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(figures())
