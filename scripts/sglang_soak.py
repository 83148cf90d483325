"""Thousands of random directive requests against real SGLang servers on the CPU, each answer held to the oracle.

    make soak
    python scripts/sglang_soak.py --requests 500 --servers mla-1

Four servers in turn: MLA with YaRN and GQA, pages of 1 and of 16 tokens, small pools that evict; two of them with the
overlap schedule and forced retraction, the last one on two ranks. Conversations run twelve at a time; after each round
the receipts are replayed on a Hugging Face model and the pool is counted. Prints one JSON object, and exits with 1 if
anything failed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "backends" / "sglang" / "plugin"))

from sgl_oracle import Oracle
from sgl_server import Server, start_server
from sgl_traffic import run_conversations, verify
from tiny_models import write_model

SERVERS: dict[str, dict[str, Any]] = {
    "mla-1": {"kind": "mla", "page": 1, "pool": 4000, "retract": False},
    "gqa-16": {"kind": "gqa", "page": 16, "pool": 4000, "retract": True},
    "mla-16": {"kind": "mla", "page": 16, "pool": 3000, "retract": True},
    "gqa-1": {"kind": "gqa", "page": 1, "pool": 3000, "retract": False, "ranks": 2},
}
ROUND = 24
"""Conversations between two checks."""
TURNS = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000, help="directive requests in all (default 10000)")
    parser.add_argument("--seed", type=int, default=0, help="first seed of the conversations")
    parser.add_argument("--servers", nargs="+", choices=list(SERVERS), default=list(SERVERS), help="which servers")
    args = parser.parse_args()
    began = time.monotonic()
    share = -(-args.requests // len(args.servers))
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in args.servers:
            results[name] = soak(name, Path(folder), share, args.seed)
            if results[name]["failures"]:
                break
    total = {
        "machine": f"{os.cpu_count()}-core {platform.machine()} CPU",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "minutes": round((time.monotonic() - began) / 60, 1),
        "requests": sum(result["requests"] for result in results.values()),
        "failures": sum(len(result["failures"]) for result in results.values()),
        "servers": results,
    }
    print(json.dumps(total, indent=1))
    return 1 if total["failures"] else 0


def soak(name: str, folder: Path, requests: int, seed: int) -> dict[str, Any]:
    """Run conversations on one server until it has answered `requests` turns."""
    setup = SERVERS[name]
    model = write_model(setup["kind"], folder / name)
    environment = {"LEYLINE_MAX_GENERATIONS": "6"}
    if setup["retract"]:
        environment |= {"SGLANG_TEST_RETRACT": "1", "SGLANG_TEST_RETRACT_INTERVAL": "40"}
    arguments = []
    if setup.get("ranks", 1) > 1:
        arguments = ["--tp-size", str(setup["ranks"])]
        environment["SGLANG_CPU_OMP_THREADS_BIND"] = "|".join(
            str(i % (os.cpu_count() or 1)) for i in range(setup["ranks"])
        )
    server = start_server(
        model,
        folder / f"{name}.log",
        *arguments,
        page=setup["page"],
        pool=setup["pool"],
        chunk=256,
        overlap=setup["retract"],
        env=environment,
    )
    result: dict[str, Any] = {"requests": 0, "spliced_requests": 0, "unverified": 0, "retractions": 0, "spliced": 0}
    result |= {"prompt": 0, "worst": {}, "fallbacks": {}, "failures": []}
    try:
        oracle = Oracle(model)
        while result["requests"] < requests and not result["failures"]:
            _round(server, oracle, seed, result)
            seed += ROUND
            print(f"{name}: {result['requests']} of {requests}, worst {result['worst']}", file=sys.stderr, flush=True)
    finally:
        server.stop()
    return result


def _round(server: Server, oracle: Oracle, seed: int, result: dict[str, Any]) -> None:
    try:
        tally = verify(oracle, run_conversations(server, range(seed, seed + ROUND), turns=TURNS, answer=12))
    except Exception as error:
        result["failures"].append(f"{type(error).__name__}: {error}; the server's log ends with:\n{server.tail()}")
        return
    result["requests"] += tally.kinds["turn"]
    for key in ("spliced_requests", "unverified", "retractions", "spliced", "prompt"):
        result[key] += getattr(tally, key)
    for kind, error in tally.worst.items():
        result["worst"][kind] = max(result["worst"].get(kind, 0.0), error)
    for reason, count in tally.fallbacks.items():
        result["fallbacks"][reason] = result["fallbacks"].get(reason, 0) + count
    result["failures"] += tally.failures
    before = server.accounting()
    server.flush()
    after = server.accounting()
    if not (before["ok"] and after["ok"] and after["available"] == after["size"]):
        result["failures"].append(f"slots do not add up: {before}, after a flush {after}")


if __name__ == "__main__":
    sys.exit(main())
