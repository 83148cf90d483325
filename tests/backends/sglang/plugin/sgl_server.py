"""Starts a real SGLang server on the CPU for tests, and speaks to it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

START_TIMEOUT = 400.0


def _end_with_parent() -> None:
    """In the child, before it starts: end when the test run is killed (Linux: PR_SET_PDEATHSIG)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _sampling(tokens: int, leyline: Any, ignore_eos: bool) -> dict[str, Any]:
    params: dict[str, Any] = {"max_new_tokens": tokens, "temperature": 0, "ignore_eos": ignore_eos}
    if leyline is not None:
        params["custom_params"] = {"leyline": leyline}
    return params


def _top(tokens: int) -> int:
    """How many logprobs a token: the whole vocabulary's where the answer is short."""
    return 320 if tokens <= 16 else 20


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """A running server. `generate` returns the JSON answer; `stop` ends it and everything it started."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def alive(self) -> bool:
        return self.process.poll() is None

    def post(self, path: str, body: Any, timeout: float = 300.0) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=timeout)

    def generate(self, ids: list[int], leyline: Any = None, *, tokens: int = 1, **extra: Any) -> dict[str, Any]:
        """One greedy generation, with logprobs for each token: the whole vocabulary's where the answer is short."""
        params = _sampling(tokens, leyline, True)
        body = {"input_ids": ids, "sampling_params": params, "return_logprob": True, "top_logprobs_num": _top(tokens)}
        answer: dict[str, Any] = self._answer({**body, **extra})
        return answer

    def generate_all(self, requests: list[tuple[list[int], Any, int]]) -> list[dict[str, Any]]:
        """`generate` for several `(ids, leyline, tokens)` that reach the scheduler in one message.

        An answer ends at an end-of-sequence token, if the model gives one.
        """
        body = {
            "input_ids": [ids for ids, _, _ in requests],
            "sampling_params": [_sampling(tokens, leyline, False) for _, leyline, tokens in requests],
            "return_logprob": True,
            "top_logprobs_num": [_top(tokens) for _, _, tokens in requests],
        }
        answers: list[dict[str, Any]] = self._answer(body)
        return answers

    def _answer(self, body: dict[str, Any]) -> Any:
        answer = self.post("/generate", body)
        if answer.status_code != 200:
            raise RuntimeError(f"{answer.status_code}: {answer.text[:500]}")
        return answer.json()

    def accounting(self) -> dict[str, Any]:
        """The pool's accounting at idle."""
        body = {
            "input_ids": [1, 2, 3],
            "sampling_params": {"max_new_tokens": 1, "custom_params": {"leyline_check": True}},
        }
        time.sleep(0.3)
        facts: dict[str, Any] = self.post("/generate", body).json()["meta_info"]["leyline"][0]["accounting"]
        return facts

    def flush(self) -> None:
        for _ in range(50):
            if self.post("/flush_cache", None).status_code == 200:
                return
            time.sleep(0.1)
        raise RuntimeError("the cache could not be flushed")

    def tail(self, lines: int = 60) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self) -> None:
        if self.alive():
            os.killpg(self.process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


def start_server(
    model: Path,
    log: Path,
    *args: str,
    plugin: bool = True,
    pool: int = 16384,
    page: int = 1,
    chunk: int = 512,
    overlap: bool = False,
    env: dict[str, str] | None = None,
    port: int | None = None,
) -> Server:
    """Start SGLang on `model` and wait until it answers. plugin: with the leyline radix cache, else stock.

    pool: KV slots; page, chunk: tokens; overlap: schedule the next batch while one runs.
    """
    from leyline_torch_cpu import standin_path

    port = port or free_port()
    command = [
        *(sys.executable, "-m", "sglang.launch_server", "--model-path", str(model), "--port", str(port)),
        *("--host", "127.0.0.1", "--device", "cpu", "--attention-backend", "torch_native", "--dtype", "float32"),
        *("--mem-fraction-static", "0.1", "--max-total-tokens", str(pool)),
        *("--page-size", str(page), "--chunked-prefill-size", str(chunk), "--enable-cache-report"),
        *("--log-level", "warning", "--skip-server-warmup", "--max-running-requests", "16"),
    ]
    command.append("--sleep-on-idle")  # else an idle scheduler spins, and tests keep several servers at once
    if not overlap:
        command.append("--disable-overlap-schedule")
    if plugin:
        command += ["--radix-cache-backend", "leyline"]
    environment = {
        **os.environ,
        "SGLANG_PLATFORM": "torch_cpu",
        "OMP_NUM_THREADS": "1",
        "LEYLINE_DEBUG": "1",
        "TOKENIZERS_PARALLELISM": "false",
        **(env or {}),
    }
    paths = [p for p in (standin_path(), os.environ.get("PYTHONPATH")) if p]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, *args],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            preexec_fn=_end_with_parent,
            cwd=log.parent,
        )
    server = Server(process, f"http://127.0.0.1:{port}", log)
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if not server.alive():
            raise RuntimeError(f"the server ended at start:\n{server.tail()}")
        try:
            if httpx.get(server.url + "/model_info", timeout=5).status_code == 200:
                return server
        except httpx.HTTPError:
            pass
        time.sleep(0.25)
    server.stop()
    raise RuntimeError(f"the server did not answer within {START_TIMEOUT} s:\n{server.tail()}")
