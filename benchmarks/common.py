"""What the benchmarks of a server share: requests with token ids, random prompts, and files with their origin.

The benchmarks start no server. For a stock server and one with the plugin beside it on one machine:

    python -m sglang.launch_server --model-path MODEL --port 30000 --skip-tokenizer-init
    leyline serve MODEL --port 30001 --skip-tokenizer-init

On a GPU without weights at hand, `--load-format dummy` gives the same times. Two servers on one GPU need
`--mem-fraction-static` and `--max-total-tokens`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from leyline.directives import Directive, EditScript, Mode, Receipt, WireRequest
from leyline.evals.trials.environment import machine_name

LOW, HIGH = 300, 30_000
"""Random token ids lie in [LOW, HIGH): ordinary ones in every large vocabulary. `--vocabulary` lowers HIGH."""


@dataclass(frozen=True)
class Server:
    """A server by its address. Each request has a connection of its own: a server closes idle ones."""

    url: str

    def post(self, path: str, body: Any, timeout: float = 600.0) -> tuple[float, bytes]:
        """Seconds from the sending to the whole answer, and the answer."""
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=timeout)
        data = json.dumps(body).encode()
        connection.connect()
        began = time.perf_counter()
        connection.request("POST", path, data, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
        seconds = time.perf_counter() - began
        connection.close()
        if response.status != 200:
            raise SystemExit(f"{self.url}{path} answered {response.status}: {answer[:300].decode(errors='replace')}")
        return seconds, answer

    def ask(
        self, ids: Sequence[int], leyline: WireRequest | None = None, *, tokens: int = 1, **extra: Any
    ) -> tuple[float, Receipt | None]:
        """Milliseconds to the whole answer of `tokens` tokens (1: the time to the first), and the receipt."""
        params: dict[str, Any] = {"max_new_tokens": tokens, "temperature": 0, "ignore_eos": True}
        if leyline is not None:
            params["custom_params"] = {"leyline": leyline.to_json()}
        seconds, answer = self.post("/generate", {"input_ids": list(ids), "sampling_params": params, **extra})
        return 1e3 * seconds, Receipt.from_meta_info(json.loads(answer)["meta_info"])

    def flush(self) -> None:
        """Empty the cache."""
        self.post("/flush_cache", {})
        time.sleep(0.5)


class Prompts:
    """Random prompts and edits of them."""

    def __init__(self, seed: int, high: int = HIGH) -> None:
        self._random = random.Random(seed)
        self._low, self._high = min(LOW, high // 4), high

    def fresh(self, count: int) -> list[int]:
        """So many random token ids."""
        return [self._random.randrange(self._low, self._high) for _ in range(count)]

    def edit(
        self, source: Sequence[int], spans: Sequence[tuple[int, int]], put: int, mode: Mode = Mode.AMORTIZE
    ) -> tuple[list[int], WireRequest]:
        """`source` with `put` random tokens in the place of each `(start, length)`, and the request that says so."""
        script = EditScript(tuple(Directive(s, s + n, tuple(self.fresh(put)), mode) for s, n in spans))
        return script.apply(source), WireRequest.build(script, source)


def continued(receipt: Receipt) -> WireRequest:
    """The next turn of a receipt's lineage, without new edits."""
    return WireRequest(EditScript(), (), receipt.lineage, receipt.approximate_from)


def summary(values: Sequence[float]) -> dict[str, float]:
    """Mean, median and 95th percentile."""
    ordered = sorted(values)
    return {
        "mean": round(statistics.fmean(ordered), 2),
        "p50": round(statistics.median(ordered), 2),
        "p95": round(ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))], 2),
    }


def gpu() -> str | None:
    """The first GPU's name, where `nvidia-smi` tells it."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        found = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()
        return found[0].strip() if found else None
    return None


def write(path: str | None, **content: Any) -> None:
    """Write a result with its machine, date and command, or print it. A file that is there keeps its other entries.

    A list in `content` is added to the file's list of that name; of two entries that agree in model, tokens, arm,
    concurrency, decoding, pool, shape and name the new one stays.
    """
    about = {
        "machine": machine_name(gpu()),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
    if path is None:
        print(json.dumps({**content, **about}, indent=1))
        return
    target = Path(path)
    held = json.loads(target.read_text()) if target.is_file() else {}
    for name, value in content.items():
        if isinstance(value, list):
            mine = {_key(entry) for entry in value}
            content[name] = [e for e in held.get(name, []) if _key(e) not in mine] + value
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps({**held, **content, **about}, indent=1) + "\n")


def _key(entry: Any) -> str:
    names = ("model", "tokens", "arm", "concurrency", "decode", "pool", "shape", "name")
    return json.dumps([entry.get(name) for name in names]) if isinstance(entry, dict) else json.dumps(entry)
