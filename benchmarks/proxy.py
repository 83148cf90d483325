"""What `leyline proxy` adds to a request, how many it takes a second beside LiteLLM's proxy, and its memory.

    python benchmarks/proxy.py --litellm ENV/bin/litellm --out results/proxy

Everything is a process of its own on one machine: the load (32 sessions, each a connection), the proxy, and a server
that answers after `--think` seconds. A session is a tool agent of 12 turns whose outputs of 1.5 kB the policy cuts; the
proxy keeps a ledger on disk. Latency is measured by difference: blocks of requests to the server itself and through
the proxy take turns; before each request a session's tool runs for a random time, `--pause` seconds in the mean, so
that the sessions do not all ask at once. Requests a second are those of 32 sessions that do not wait, in blocks of the
two proxies in turn; `--litellm` is the command of LiteLLM's proxy (`pip install 'litellm[proxy]'` in an environment of
its own), one worker each. Memory is resident after every tenth of `--requests`. Processor time is the proxy's own, of
all its threads. `waited` is the share of the time in which some process of the machine waited for a processor: near 1,
latencies are the machine's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import write

TURNS, SESSIONS = 12, 32
UNGUARDED = "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"
POLICY = "truncate_older_than(n=2, max_chars=200)"
ANSWER = json.dumps(
    {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Next."}}],
        "usage": {"prompt_tokens": 900, "completion_tokens": 5, "total_tokens": 905},
    }
).encode()
HEAD = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(ANSWER)}\r\n\r\n".encode()


class Upstream(asyncio.Protocol):
    """Reads a request and answers after a while; as little work as a server in Python can have."""

    def __init__(self, think: float) -> None:
        self._think, self._held = think, b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._held += data
        head = self._held.find(b"\r\n\r\n")
        while head >= 0:
            fields = self._held[:head].lower()
            place = fields.find(b"content-length:")
            size = int(fields[place + 15 :].split(b"\r\n", 1)[0]) if place >= 0 else 0
            if len(self._held) < head + 4 + size:
                return
            self._held = self._held[head + 4 + size :]
            asyncio.get_running_loop().call_later(self._think, self._answer)
            head = self._held.find(b"\r\n\r\n")

    def _answer(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(HEAD + ANSWER)


async def serve(port: int, think: float) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Upstream(think), "127.0.0.1", port, backlog=512)
    await server.serve_forever()


def bodies(session: str) -> Iterator[bytes]:
    """The requests of one session, whose history grows."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": "You fix bugs. " * 50}]
    messages.append({"role": "user", "content": f"Task {session}."})
    for turn in range(TURNS):
        yield json.dumps({"model": "m", "messages": messages}).encode()
        function = {"name": "view", "arguments": json.dumps({"path": f"src/part_{turn % 7}.py"})}
        call = {"id": f"c{turn}", "type": "function", "function": function}
        messages.append({"role": "assistant", "content": f"I look at step {turn}.", "tool_calls": [call]})
        output = f"{session}.{turn} " + "line of code\n" * 115
        messages.append({"role": "tool", "tool_call_id": f"c{turn}", "content": output})


async def session(port: int, number: int, until: float, most: list[int], pause: float, found: list[float]) -> None:
    """Requests of one session after the other over one connection; milliseconds of each are added to `found`."""
    rng = random.Random(number)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    task = 0
    while time.perf_counter() < until and most[0] > 0:
        name = f"{os.getpid()}-{number}-{task}"
        task += 1
        for body in bodies(name):
            head = (
                f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k\r\nx-session-id: {name}\r\n"
            )
            head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            await asyncio.sleep(rng.uniform(0, 2 * pause))
            began = time.perf_counter()
            writer.write(head.encode() + body)
            fields = (await reader.readuntil(b"\r\n\r\n")).lower()
            if b" 200 " not in fields.split(b"\r\n", 1)[0]:
                raise SystemExit(f"port {port} answered {fields[:200]!r}")
            if b"transfer-encoding: chunked" in fields:
                while size := int(await reader.readuntil(b"\r\n"), 16):
                    await reader.readexactly(size + 2)
                await reader.readexactly(2)
            else:
                await reader.readexactly(int(fields.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]))
            found.append(1e3 * (time.perf_counter() - began))
            most[0] -= 1
            if time.perf_counter() >= until or most[0] <= 0:
                break
    writer.close()


async def load(port: int, seconds: float, requests: int, pause: float) -> dict[str, Any]:
    found: list[float] = []
    most, began = [requests], time.perf_counter()
    await asyncio.gather(*(session(port, n, began + seconds, most, pause, found) for n in range(SESSIONS)))
    return {"seconds": time.perf_counter() - began, "ms": found}


def run_load(port: int, seconds: float = 1e6, requests: int = 10**9, pause: float = 0.0) -> dict[str, Any]:
    """A block of load in a process of its own."""
    words = ["--load", str(port), "--seconds", str(seconds), "--requests", str(requests), "--pause", str(pause)]
    done = subprocess.run([sys.executable, __file__, *words], check=True, capture_output=True, timeout=900)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], port: int, path: str | None, **env: str) -> Iterator[int]:
    """A process that listens at `port`, until it is left. path: a page that says when it is ready. Gives its id."""
    log = tempfile.TemporaryFile()  # noqa: SIM115  (of the process, until it ends)
    process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **env}, start_new_session=True)
    try:
        deadline = time.monotonic() + 180
        while True:
            with contextlib.suppress(OSError):
                if path is None:
                    socket.create_connection(("127.0.0.1", port), 2).close()
                else:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).close()
                break
            if process.poll() is not None or time.monotonic() > deadline:
                log.seek(0)
                raise SystemExit(f"{command[0]} did not start: {log.read()[-2000:].decode(errors='replace')}")
            time.sleep(0.1)
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def upstream(think: float) -> Iterator[int]:
    """The server. Gives its port."""
    port = free_port()
    with running([sys.executable, __file__, "--serve", str(port), "--think", str(think)], port, None):
        yield port


@contextlib.contextmanager
def leyline(behind: int, *options: str) -> Iterator[tuple[int, int]]:
    """The proxy in front of a port. Gives its port and its process."""
    port = free_port()
    words = ["proxy", "--upstream", f"http://127.0.0.1:{behind}", "--port", str(port), "--policy", POLICY, *options]
    with tempfile.TemporaryDirectory() as folder:
        words += ["--ledger", f"{folder}/ledger.sqlite"]
        command = [sys.executable, "-c", "from leyline.cli import main; main()", *words]
        with running(command, port, "/healthz") as pid:
            yield port, pid


@contextlib.contextmanager
def litellm(command: str, behind: int) -> Iterator[tuple[int, int]]:
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        params = {"model": "openai/m", "api_base": f"http://127.0.0.1:{behind}/v1", "api_key": "k"}
        config.write_text(json.dumps({"model_list": [{"model_name": "m", "litellm_params": params}]}))
        words = [command, "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
        env = {"LITELLM_LOG": "ERROR", "PYTHONPATH": "", UNGUARDED: "true"}  # no keys to look up: in its favour
        with running(words, port, "/health/liveliness", **env) as pid:
            yield port, pid


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def waited() -> float:
    """Seconds so far in which some process of the machine waited for a processor (Linux's pressure file)."""
    file = Path("/proc/pressure/cpu")
    return int(file.read_text().split("\n")[0].rpartition("total=")[2]) / 1e6 if file.is_file() else 0.0


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def latency(think: float, pause: float, seconds: float, blocks: int) -> dict[str, Any]:
    """Milliseconds that the proxy adds, by difference."""
    bare: list[float] = []
    through: list[float] = []
    with upstream(think) as server, leyline(server) as (port, pid):
        run_load(port, 2)
        spent, began, before_all = 0.0, time.monotonic(), waited()
        for _ in range(blocks):
            bare += run_load(server, seconds, pause=pause)["ms"]
            before = cpu_seconds(pid)
            through += run_load(port, seconds, pause=pause)["ms"]
            spent += cpu_seconds(pid) - before
    added = {f"p{round(100 * p)}": round(percentile(through, p) - percentile(bare, p), 2) for p in (0.5, 0.9, 0.99)}
    return {
        "sessions": SESSIONS,
        "think_ms": 1e3 * think,
        "pause_ms": 1e3 * pause,
        "requests": len(through),
        "added_ms": added,
        "bare_ms": {"p50": round(percentile(bare, 0.5), 2), "p99": round(percentile(bare, 0.99), 2)},
        "requests_per_s": round(len(through) / (seconds * blocks), 1),
        "processor_ms": round(1e3 * spent / len(through), 2),
        "waited": round((waited() - before_all) / (time.monotonic() - began), 2),
    }


def throughput(command: str | None, seconds: float, blocks: int) -> dict[str, Any]:
    """Requests a second of each proxy, in turn."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(upstream(0.0))
        proxies = {"leyline": stack.enter_context(leyline(server))}
        if command is not None:
            proxies["litellm"] = stack.enter_context(litellm(command, server))
        rates: dict[str, list[float]] = {name: [] for name in proxies}
        cost: dict[str, list[float]] = {name: [] for name in proxies}
        for port, _ in proxies.values():
            run_load(port, 3)
        for _ in range(blocks):
            for name, (port, pid) in proxies.items():
                before = cpu_seconds(pid)
                found = run_load(port, seconds)
                rates[name].append(len(found["ms"]) / found["seconds"])
                cost[name].append(1e3 * (cpu_seconds(pid) - before) / len(found["ms"]))
    made: dict[str, Any] = {
        name: {
            "requests_per_s": round(statistics.median(rates[name]), 1),
            "blocks": [round(rate, 1) for rate in rates[name]],
            "processor_ms": round(statistics.median(cost[name]), 2),
        }
        for name in proxies
    }
    if command is not None:
        made["ratio"] = round(made["leyline"]["requests_per_s"] / made["litellm"]["requests_per_s"], 2)
    return {"sessions": SESSIONS, **made}


def memory(requests: int) -> dict[str, Any]:
    """Resident memory after every tenth of the requests."""
    figures = []
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(upstream(0.0))
        port, pid = stack.enter_context(leyline(server, "--conversations", "256"))
        for _ in range(10):
            run_load(port, requests=requests // 10)
            figures.append(round(resident_mib(pid), 1))
    return {"requests": requests, "resident_mib": figures, "growth_second_half_mib": round(figures[-1] - figures[4], 1)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--litellm", help="command of LiteLLM's proxy, to measure beside it")
    parser.add_argument("--think", type=float, default=0.2, help="seconds that the server takes for an answer")
    parser.add_argument("--pause", type=float, default=0.2, help="seconds of a session's tool, in the mean")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a block")
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--requests", type=int, default=20_000, help="of the run for memory; 0 leaves it out")
    parser.add_argument("--only", choices=("latency", "throughput", "memory"))
    parser.add_argument("--out", help="folder to write to, a file a measurement; default: print")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--load", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve is not None:
        asyncio.run(serve(args.serve, args.think))
    if args.load is not None:
        print(json.dumps(asyncio.run(load(args.load, args.seconds, args.requests, args.pause))))
        return 0

    def file(name: str) -> str | None:
        return None if args.out is None else f"{args.out}/{name}.json"

    if args.only in (None, "latency"):
        before = round(os.getloadavg()[0], 1)
        write(
            file("latency"),
            latency={**latency(args.think, args.pause, args.seconds, args.blocks), "load_before": before},
        )
    if args.only in (None, "throughput"):
        write(file("throughput"), throughput=throughput(args.litellm, args.seconds, args.blocks))
    if args.only in (None, "memory") and args.requests:
        write(file("memory"), memory=memory(args.requests))
    return 0


if __name__ == "__main__":
    sys.exit(main())
