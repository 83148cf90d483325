"""Memory of a wrapped client over many calls, and what planning a turn costs.

    python benchmarks/wrap_memory.py --calls 20000

Serves conversations of 8 turns against a server in process. Prints one JSON object: resident memory in MiB after every
tenth of the calls, its growth over the second half, and the median processor time of planning a turn of 200 messages
under each built-in policy and some combinations, in milliseconds: with outputs of 1.5 kB, with outputs of 20 kB, and
where no turn before was served, so that every edit is a new one. With the machine, the command and the date. Exit code
1 when memory grew by more than `--limit-mib` over the second half.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import platform
import statistics
import sys
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from openai import OpenAI

import leyline

POLICIES = [
    *("keep_all", "truncate_older_than(n=2, max_chars=200)", "drop_stale", "drop_failed", "dedupe", "keep_last(n=10)"),
    *("clear_over(trigger=3000, keep=3, at_least=100)", "redact(pattern='sk-[a-z]+')", "append_erratum"),
    *("freeze(drop_stale)", "at_arrival(truncate_older_than(n=0))", "cost_aware(drop_stale)"),
    *("protect(drop_stale, last=2)", "then(drop_stale, drop_failed)"),
]
NESTED = ("freeze", "at_arrival", "cost_aware", "protect", "then")
TURNS = 8


def resident_mib() -> float:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def serve(request: httpx.Request) -> httpx.Response:
    usage = {"prompt_tokens": 900, "completion_tokens": 5, "total_tokens": 905}
    message = {"role": "assistant", "content": "Next."}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    head = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
    return httpx.Response(200, json={**head, "choices": [choice], "usage": usage})


def step(number: int, chars: int, task: int = 0) -> list[dict[str, Any]]:
    function = {"name": "view", "arguments": json.dumps({"path": f"src/part_{number % 7}.py"})}
    call = {"id": f"c{number}", "type": "function", "function": function}
    text = f"{task}.{number} " + "line of code\n" * (chars // 13)
    return [
        {"role": "assistant", "content": f"I look at step {number}.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": f"c{number}", "content": text},
    ]


def memory(calls: int) -> list[float]:
    http = httpx.Client(transport=httpx.MockTransport(serve))
    client = leyline.wrap(
        OpenAI(api_key="none", base_url="http://s/v1", http_client=http),
        policy="truncate_older_than(n=2, max_chars=200)",
    )
    figures = []
    for call in range(calls):
        task, turn = divmod(call, TURNS)
        if turn == 0:
            history: list[Any] = [{"role": "user", "content": f"Task {task}"}]
        client.chat.completions.create(model="m", messages=history)
        history += step(turn, 1000, task)
        if (call + 1) % (calls // 10) == 0:
            figures.append(round(resident_mib(), 1))
    return figures


def planning(chars: int, *, served: bool = True) -> dict[str, float]:
    """Processor time of a turn in which every message but the last two was seen before, median of 50.

    chars: of an output. served: whether the edits of earlier turns are in force, as in a session; else all are new.
    """
    figures = {}
    for policy in POLICIES:
        editor = leyline.Editor(policy)
        history: list[Any] = [
            {"role": "system", "content": "You fix bugs. " * 200},
            {"role": "user", "content": "Fix it."},
        ]
        for number in range(99):
            history += step(number, chars)
            if number > 90:
                plan = editor.plan(history[:-2])
                if served:
                    plan.served()
        costs = []
        for _ in range(50):
            started = time.thread_time()
            editor.plan(history)
            costs.append(time.thread_time() - started)
        figures[policy if policy.startswith(NESTED) else policy.partition("(")[0]] = round(
            statistics.median(costs) * 1000, 2
        )
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--limit-mib", type=float, default=8.0)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore", UserWarning)  # conversations are forgotten here, which is the point
    costs = {
        "plan_200_messages_ms": planning(1500),
        "plan_200_messages_of_20_kb_ms": planning(20_000),
        "plan_200_messages_all_new_ms": planning(1500, served=False),
    }
    figures = memory(options.calls)
    growth = round(figures[-1] - figures[4], 1)
    found = {
        "resident_mib": figures,
        "growth_second_half_mib": growth,
        **costs,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.now(UTC).date().isoformat(),
    }
    print(json.dumps(found, indent=1))
    return int(growth > options.limit_mib)


if __name__ == "__main__":
    sys.exit(main())
