"""Hold real SGLang servers to an independent reference, on a GPU (or, slowly, on a CPU).

For an MLA and a GQA model with random weights of a real scale it starts two servers, one with the plugin and one
without, and checks

* logprobs: random conversations with directives, 12 at a time; the first token's logprobs of every answer against a
  Hugging Face model on which the receipt was carried out by hand, in fp32. The yardstick is the same replay in the
  server's own precision: spliced answers must be as close to the exact reference as that one is. Keys left unrotated
  must be far from it.
* bits: undirected requests, FORGETs and other tenants' requests, after a splice of the same tokens, against the server
  without the plugin: equal cache hits and bit-equal logprobs.
* slots: free and tree-owned KV slots add up at idle, and after a flush.

It prints one JSON object, and exits with 1 if a check failed. From a checkout, with SGLang and transformers installed:

    python scripts/sglang_gpu_check.py --json result.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sglang_distances import Distances
from sglang_rig import SIZES, machine_name, make_importable, make_oracle, write_model


def main() -> int:
    args = _arguments()
    import torch

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(args.work or scratch)
        work.mkdir(parents=True, exist_ok=True)
        make_importable(work)
        began = time.monotonic()
        rigs = {kind: Rig(kind, work, device, args) for kind in args.kinds}
        result: dict[str, Any] = {"machine": machine_name(device), "date": time.strftime("%Y-%m-%d", time.gmtime())}
        try:
            for rig in rigs.values():
                rig.wait()
            _say(f"servers ready after {time.monotonic() - began:.0f} s")
            for kind, rig in rigs.items():
                result[kind] = rig.check()
                _say(f"{kind}: {json.dumps(result[kind])}")
        finally:
            for rig in rigs.values():
                rig.stop()
        result["seconds"] = round(time.monotonic() - began, 1)
    result["ok"] = all(result[kind]["ok"] for kind in args.kinds)
    print(json.dumps(result, indent=1))
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n")
    return 0 if result["ok"] else 1


class Rig:
    """One model, its two servers, and the checks."""

    def __init__(self, kind: str, work: Path, device: str, args: argparse.Namespace) -> None:
        self.kind, self.device, self.args = kind, device, args
        self.path = write_model(kind, work / kind, device, args)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.server = self._start(work / f"{kind}-plugin.log", plugin=True)
        self.stock = self._start(work / f"{kind}-stock.log", plugin=False)

    def _start(self, log: Path, *, plugin: bool) -> Any:
        from sgl_server import Server, free_port

        from leyline.backends.sglang.launch import plan_launch

        port = free_port()
        options = [
            *("--host", "127.0.0.1", "--port", str(port), "--dtype", self.args.dtype, "--log-level", "warning"),
            *("--max-total-tokens", str(self.args.pool), "--page-size", str(self.args.page)),
            *("--chunked-prefill-size", str(self.args.chunk), "--max-running-requests", "16"),
            *("--mem-fraction-static", "0.3", "--skip-server-warmup", *self.args.server_args.split()),
        ]
        launch = plan_launch(str(self.path), options, environ=os.environ, has_cuda=lambda: self.device == "cuda")
        command, environment = list(launch.command), {**os.environ, **launch.environment, "LEYLINE_DEBUG": "1"}
        if not plugin:
            at = command.index("--radix-cache-backend")
            del command[at : at + 2]
            environment["SGLANG_PLUGINS"] = "none"
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
        self.processes.append(process)
        return Server(process, f"http://127.0.0.1:{port}", log)

    def wait(self) -> None:
        """Wait until both servers answer."""
        import httpx

        for server in (self.server, self.stock):
            deadline = time.monotonic() + self.args.wait
            while True:
                if not server.alive() or time.monotonic() > deadline:
                    raise SystemExit(f"the server of {self.kind} did not start:\n{server.tail(40)}")
                try:
                    if httpx.get(server.url + "/health", timeout=5).status_code == 200:
                        break
                except httpx.HTTPError:
                    pass
                time.sleep(0.5)

    def stop(self) -> None:
        for process in self.processes:
            for sign in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(process.pid, sign)
                    process.wait(10)
                except (ProcessLookupError, subprocess.TimeoutExpired):
                    continue

    def check(self) -> dict[str, Any]:
        """All checks of this model."""
        facts: dict[str, Any] = {"server": self._settings()}
        began = time.monotonic()
        facts["bits"] = self._bits()
        self.server.flush()
        facts["logprobs"] = self._logprobs()
        idle = self.server.accounting()
        self.server.flush()
        facts["slots"] = {"idle": idle, "flushed": self.server.accounting()}
        facts["slots"]["ok"] = facts["slots"]["idle"]["ok"] and facts["slots"]["flushed"]["ok"]
        facts["seconds"] = round(time.monotonic() - began, 1)
        facts["ok"] = all(facts[name]["ok"] for name in ("bits", "logprobs", "slots"))
        return facts

    def _settings(self) -> dict[str, Any]:
        import httpx

        info = httpx.get(self.server.url + "/server_info", timeout=30).json()
        names = ("version", "attention_backend", "dtype", "disable_overlap_schedule", "disable_cuda_graph", "page_size")
        return {name: info.get(name) for name in (*names, "chunked_prefill_size", "max_total_num_tokens")}

    def _logprobs(self) -> dict[str, Any]:
        """Random conversations against the replay of their receipts."""
        import torch
        from sgl_traffic import Tally, _count, run_conversations

        args = self.args
        seeds = range(args.seed, args.seed + args.conversations)
        began = time.monotonic()
        conversations = run_conversations(self.server, seeds, turns=args.turns, length=args.length)
        seconds = time.monotonic() - began
        exact = make_oracle(self.path, self.device, torch.float32)
        rounded = make_oracle(self.path, self.device, getattr(torch, args.dtype))
        found, tally = Distances(), Tally()
        for exchanges in conversations:
            found.add(exchanges, exact, rounded)
            for exchange in exchanges:
                _count(tally, exchange)
        return {
            "requests": sum(len(exchanges) for exchanges in conversations),
            "seconds": round(seconds, 1),
            **found.summary(),
            "spliced_tokens": tally.spliced,
            "outcomes": dict(tally.outcomes),
            "fallbacks": dict(tally.fallbacks),
            "ok": found.ok(exact_server=args.dtype == "float32"),
        }

    def _bits(self) -> dict[str, Any]:
        """Requests that must not notice the plugin, one at a time on both servers."""
        from leyline.directives import Directive, EditScript, Mode, Receipt, WireRequest

        rng = random.Random(self.args.seed)
        page, compared, different, spliced = self.args.page, 0, [], 0
        for _ in range(self.args.bits):
            first = [rng.randrange(5, 250) for _ in range(rng.randrange(20, 60) * 16)]
            held = [*first, *self._both(first, different, "first")]
            start = rng.randrange(1, len(first) // (2 * page)) * page
            cut = rng.randrange(1, 8) * 16
            script = EditScript((Directive(start, start + cut),))
            prompt = [*script.apply(held), *(rng.randrange(5, 250) for _ in range(9))]
            answer = self.server.generate(prompt, WireRequest.build(script, held).to_json(), tokens=8)
            receipt = Receipt.from_meta_info(answer["meta_info"])
            assert receipt is not None
            spliced += receipt.spliced_tokens
            after = [*prompt, *(entry[1] for entry in answer["meta_info"]["output_token_logprobs"])]
            forget = EditScript((Directive(start, start + cut, (), Mode.FORGET),))
            again = EditScript((Directive(start + 16, start + 32, (), Mode.FORGET),))
            honest = WireRequest.build(
                again, after, lineage=receipt.lineage, lineage_start=receipt.approximate_from, honest=True
            )
            self._both(prompt, different, "another tenant", extra_key="tenant")
            self._both(prompt, different, "undirected twin")
            self._both([*again.apply(after), 7], different, "honest FORGET after AMORTIZE", honest.to_json())
            tail = [*forget.apply(held), 9, 11]
            self._both(tail, different, "FORGET", WireRequest.build(forget, held).to_json())
            compared += 5
        return {"compared": compared, "different": different[:20], "spliced_before": spliced, "ok": not different}

    def _both(self, ids: list[int], different: list[str], what: str, leyline: Any = None, **extra: Any) -> list[int]:
        """Ask both servers; note where cache hits or logprobs differ. Returns the generated tokens."""
        ours = self.server.generate(ids, leyline, tokens=8, **extra)["meta_info"]
        stock = self.stock.generate(ids, tokens=8, **extra)["meta_info"]
        if ours["cached_tokens"] != stock["cached_tokens"]:
            different.append(f"{what}: {ours['cached_tokens']} tokens hit, {stock['cached_tokens']} without the plugin")
        elif ours["output_top_logprobs"] != stock["output_top_logprobs"]:
            different.append(f"{what}: other logprobs")
        return [entry[1] for entry in ours["output_token_logprobs"]]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=["mla", "gqa"], choices=["mla", "gqa"])
    parser.add_argument("--size", default="real", choices=list(SIZES))
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--device", choices=["cuda", "cpu"], help="default: a GPU where there is one")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--conversations", type=int, default=40)
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--length", type=int, default=1500, help="about so many tokens a prompt")
    parser.add_argument("--bits", type=int, default=6, help="rounds of the bitwise comparison")
    parser.add_argument("--pool", type=int, default=32768, help="KV slots of a server")
    parser.add_argument("--page", type=int, default=1)
    parser.add_argument("--chunk", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--wait", type=float, default=300, help="seconds a server may take to start")
    parser.add_argument("--server-args", default="", help="more options for SGLang, as one string")
    parser.add_argument("--work", help="folder for models and logs; default: a temporary one")
    parser.add_argument("--json", help="file for the result")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
