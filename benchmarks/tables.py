"""The tables of docs/performance.md, from the files of results/speed/.

    python benchmarks/tables.py

Prints each table as Markdown. A test compares them with the page.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results" / "speed"
NAMES = {"dsv2-lite": "DeepSeek-V2-Lite (MLA)", "llama31-8b": "Llama-3.1-8B (GQA)"}


def read(name: str) -> dict[str, Any]:
    """One file of the results."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def edits() -> str:
    """Milliseconds to the first token, and as a multiple of a full hit."""
    kinds = ("del1", "rep1", "rep5", "rep20")
    rows = []
    for entry in read("edits")["edits"]:
        ms = entry["ms"]
        shown = [f"{ms[k]:.1f} ({ms[k] / ms['full_hit']:.2f}x)" for k in kinds]
        gain = f"{ms['undirected'] / ms['rep1']:.0f}x"
        rest = [f"{ms['next_turn']:.1f}", f"{ms['undirected']:.0f}", gain]
        rows.append([NAMES[entry["model"]], f"{entry['tokens']:,}", f"{ms['full_hit']:.1f}", *shown, *rest])
    return table(["shape", "tokens", "full hit", *kinds, "next turn", "undirected", "undirected / rep1"], rows)


def traffic() -> str:
    """Milliseconds to the first token on recorded conversations."""
    rows = []
    for e in read("traffic")["traffic"]:
        edited = f"{e['edited_mean']:.0f}" if "edited_mean" in e else "-"
        hit, joules = f"{e['hit_rate']:.1%}", f"{e['joules_per_turn']:.0f}"
        times = [f"{e['ttft_mean']:.0f}", f"{e['ttft_p50']:.0f}", f"{e['ttft_p95']:.0f}", edited]
        turns = "first 24" if "turns_each" in e else "all"
        rows.append([NAMES[e["model"]], e["arm"], turns, *times, hit, f"{e['turns_per_s']:.1f}", joules])
    head = ["shape", "policy/cache", "turns", "mean", "p50", "p95", "mean of edited turns", "hit rate", "turns/s"]
    return table([*head, "joules a turn"], rows)


def passes() -> str:
    """Means a forward pass: milliseconds of the scheduler's thread and of the GPU."""
    rows = []
    for e in read("passes")["passes"]:
        if not (e["arm"].endswith("/auto") or e["name"] == "without"):
            name = e["arm"] if e["name"] == "all" else f"{e['arm']}, {e['name']}"
            size = [e["real"], e["ghosts"], f"{e['tokens']:.0f}", f"{e['prefix']:,.0f}"]
            rows.append([NAMES[e["model"]], name, *size, f"{e['gpu']:.1f}", f"{e['run_batch']:.1f}", e["plugin"]])
    head = ["shape", "arm", "requests", "holes", "tokens", "prefix", "GPU", "set-up and launches", "plugin"]
    return table(head, rows)


def _others(entry: dict[str, Any]) -> tuple[float, float]:
    return entry["from_idle_ms"], entry["torch_ms"]


def kernel() -> str:
    """Milliseconds of one launch."""
    rows = [
        [NAMES[e["shape"]], f"{e['tokens']:,}", e["floor_ms"], f"{e['ms']} ({e['over_floor']:.2f}x)", *_others(e)]
        for e in read("kernel")["kernel"]
    ]
    return table(["shape", "tokens moved", "floor", "kernel", "from an idle GPU", "plain PyTorch"], rows)


def costs() -> str:
    """What `leyline bench calibrate` found."""
    found = read("costs-dsv2-lite")["costs"]
    rows = [
        ["a forward pass", f"{1e3 * found['forward']:.1f} ms"],
        ["a prefilled token", f"{1e6 * found['token']:.2f} us"],
        ["a pair of tokens", f"{1e12 * found['pair']:.0f} ps"],
        ["a turn's moves", f"{1e3 * found['move']:.2f} ms"],
        ["a moved token", f"{1e9 * found['byte'] * found['token_bytes']:.1f} ns"],
        ["each other request", f"{1e3 * found['queue']:.1f} ms of waiting"],
    ]
    return table(["what", "cost"], rows)


def check() -> str:
    """Median distance of first-token logprobs to an fp32 reference."""
    rows = []
    for kind, name in (("mla", "MLA"), ("gqa", "GQA")):
        logprobs = read("check")[kind]["logprobs"]
        columns = ("honest", "spliced", "spliced_replay_in_the_servers_precision", "unrotated_control")
        rows.append([name, *(f"{float(logprobs[c]['median']):.2f}" for c in columns)])
    return table(["shape", "honest answers", "spliced answers", "reference in bf16", "keys left unrotated"], rows)


def overheads() -> str:
    """Milliseconds of processor time a turn, outside the server."""
    rows = [
        [e["name"], f"{e['prompt_mean']:,}", e["ms_median"], f"{e['longest_prompt_mean']:,}", e["longest_ms_median"]]
        for e in read("overheads")["overheads"]
    ]
    return table(["policy", "tokens, mean", "ms, median", "tokens, longest tenth", "ms, longest tenth"], rows)


TABLES = (edits, traffic, passes, kernel, costs, check, overheads)


if __name__ == "__main__":
    for make in TABLES:
        print(f"{make()}\n")
