"""Time of validate, apply and segments on a long source with many directives.

    python benchmarks/directives.py --tokens 131072 --directives 200

Prints one JSON object: the median over the repetitions in milliseconds, with the machine, the command and the date.
Exit code 1 when the median of the three together is over `--limit-ms`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from leyline.directives import Directive, EditScript, Mode, WireRequest


def make_case(tokens: int, directives: int, seed: int) -> tuple[list[int], EditScript]:
    """A source of `tokens` ids and evenly spread directives that cut, replace or insert up to 64 tokens."""
    rng = random.Random(seed)
    source = [rng.randrange(150_000) for _ in range(tokens)]
    stride = tokens // directives
    made = []
    for k in range(directives):
        start = k * stride + rng.randrange(stride // 4)
        end = start + rng.randrange(1, stride // 2)
        replacement = tuple(rng.randrange(150_000) for _ in range(rng.randrange(64)))
        made.append(Directive(start, end, replacement, Mode.AMORTIZE))
    return source, EditScript(tuple(made))


def median_ms(call: Callable[[], object], repeat: int) -> float:
    times = []
    for _ in range(repeat):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return round(statistics.median(times) * 1000, 3)


def machine() -> str:
    """The CPU's name as Linux tells it, else the architecture; and the number of usable cores."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        name = names[0] if names else name
    return f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Time directives on a long source.")
    parser.add_argument("--tokens", type=int, default=131_072)
    parser.add_argument("--directives", type=int, default=200)
    parser.add_argument("--repeat", type=int, default=101)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit-ms", type=float, default=5.0)
    args = parser.parse_args()
    source, script = make_case(args.tokens, args.directives, args.seed)
    removed, target = script.removed(source), script.apply(source)
    request = WireRequest(script, removed)
    text = request.to_json()

    def together() -> None:
        script.validate(len(source))
        script.apply(source)
        script.segments(len(source), seam=8)

    calls: dict[str, Callable[[], object]] = {
        "validate": lambda: script.validate(len(source)),
        "apply": lambda: script.apply(source),
        "segments": lambda: script.segments(len(source), seam=8),
        "validate_apply_segments": together,
        "restore": lambda: script.restore(target, removed),
        "invert": lambda: script.invert(source),
        "compose": lambda: script.compose(script.invert(source)),
        "to_json": request.to_json,
        "from_json": lambda: WireRequest.from_json(text),
    }
    result = {
        "tokens": args.tokens,
        "directives": args.directives,
        "wire_bytes": len(text),
        "median_ms": {name: median_ms(call, args.repeat) for name, call in calls.items()},
        "repeat": args.repeat,
        "machine": machine(),
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    print(json.dumps(result, indent=2))
    return 0 if result["median_ms"]["validate_apply_segments"] <= args.limit_ms else 1


if __name__ == "__main__":
    raise SystemExit(main())
