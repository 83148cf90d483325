"""Calibration against a server that is a formula: what it costs is known, and no time passes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from leyline.backends.contract import BackendError
from leyline.backends.sglang.client import calibrate as module
from leyline.backends.sglang.client.calibrate import calibrate
from leyline.backends.sglang.client.fit import nonnegative, spread
from leyline.backends.sglang.client.server import Transport
from leyline.cli import app
from leyline.directives import Costs, Receipt, Splice, WireRequest

TRUE = Costs(
    forward=0.03, token=2e-5, pair=4e-10, hole=2e-3, move=1e-3, byte=4e-13, token_bytes=32768, queue=0.0, chunk=4096
)
CARRIED = 3e-7
"""Seconds for each token of a prompt to be read, whatever is computed."""


class Formula:
    """A server whose clock moves by what a request costs."""

    def __init__(self, *, splices: bool = True, info: dict[str, Any] | None = None) -> None:
        self.now, self.splices = 1000.0, splices
        self.held: set[tuple[int, ...]] = set()
        self.asked = 0
        self.info = {
            "model_path": "org/model",
            "version": "0.5.16",
            "radix_cache_backend": "leyline",
            "max_req_input_len": 40_000,
            "max_total_num_tokens": 400_000,
            "chunked_prefill_size": TRUE.chunk,
            "internal_states": [{"memory_usage": {"kvcache": 400_000 * 32768 / 2**30}}],
            **(info or {}),
        }

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/server_info":
            return httpx.Response(200, json=self.info)
        self.asked += 1
        body = json.loads(request.content)
        ids, value = tuple(body["input_ids"]), body["sampling_params"].get("custom_params")
        cached = len(ids) - 1 if ids in self.held else 0
        blocks, splices, meta = [(cached, len(ids))], [], {}
        if value is not None:
            script = WireRequest.from_json(value["leyline"]).script
            cached = script.directives[0].start
            if self.splices:
                length = len(ids) - script.delta
                runs = [s for s in script.segments(length) if s.kind == "reuse"]
                splices = [Splice(s.target_start, min(s.target_end, len(ids) - 1), s.delta) for s in runs]
                edges = [cached, *(e for s in splices for e in (s.start, s.end)), len(ids)]
                blocks = list(zip(edges[::2], edges[1::2], strict=True))
            else:
                blocks = [(cached, len(ids))]
            moved = sum(s.end - s.start for s in splices)
            receipt = Receipt(
                len(ids), cached, moved, len(ids) - cached - moved, tuple(splices), lineage="l", approximate_from=0
            )
            meta = {"leyline": [receipt.to_dict()]}
        self.held.add(ids)
        self.now += TRUE.turn(blocks, sum(s.end - s.start for s in splices)) + CARRIED * len(ids)
        return httpx.Response(200, json={"meta_info": {"cached_tokens": cached, **meta}})


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Formula, Transport]]:
    def make(**settings: Any) -> tuple[Formula, Transport]:
        server = Formula(**settings)
        clock = SimpleNamespace(perf_counter=lambda: server.now, monotonic=lambda: server.now)
        monkeypatch.setattr(module, "time", clock)
        client = httpx.Client(transport=httpx.MockTransport(server))
        return server, Transport("http://server", api_key=None, timeout=5, retries=0, http_client=client)

    return make


def test_it_finds_the_constants(served: Callable[..., tuple[Formula, Transport]]) -> None:
    _, transport = served()
    found = calibrate(transport, 30.0)
    costs = found.costs
    assert found.moves
    assert (costs.token_bytes, costs.chunk) == (TRUE.token_bytes, TRUE.chunk)
    for name in ("forward", "token", "pair", "hole", "move", "byte"):
        assert getattr(costs, name) == pytest.approx(getattr(TRUE, name), rel=0.05), name
    assert spread(found.samples, costs) < 0.2
    assert max(s.length for s in found.samples) >= 16_384


def test_it_keeps_to_its_time(served: Callable[..., tuple[Formula, Transport]]) -> None:
    server, transport = served()
    began = server.now
    found = calibrate(transport, 5.0)
    assert server.now - began < 6.0
    assert found.seconds == pytest.approx(server.now - began)


def test_a_server_that_moves_nothing_leaves_a_guess(served: Callable[..., tuple[Formula, Transport]]) -> None:
    _, transport = served(splices=False, info={"internal_states": None})
    found = calibrate(transport, 10.0)
    assert not found.moves
    assert (found.costs.move, found.costs.byte, found.costs.token_bytes) == (Costs().move, Costs().byte, 1)
    assert found.costs.token == pytest.approx(TRUE.token, rel=0.05)


def test_a_server_that_takes_short_prompts_only_is_told_so(
    served: Callable[..., tuple[Formula, Transport]],
) -> None:
    _, transport = served(info={"max_req_input_len": 100})
    with pytest.raises(BackendError, match="too short to measure"):
        calibrate(transport)


@pytest.mark.parametrize("value", [None, -1, "5", 10**9])
def test_another_server_is_told_so(monkeypatch: pytest.MonkeyPatch, value: object) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/server_info":
            return httpx.Response(200, json={"model_path": "m"})
        return httpx.Response(200, json={"meta_info": {"cached_tokens": value}})

    client = httpx.Client(transport=httpx.MockTransport(answer))
    transport = Transport("http://server", api_key=None, timeout=5, retries=0, http_client=client)
    with pytest.raises(BackendError, match="is it an SGLang server"):
        calibrate(transport)


def test_the_command_writes_what_a_server_and_a_policy_read(
    served: Callable[..., tuple[Formula, Transport]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, transport = served()
    monkeypatch.setattr("leyline.backends.sglang.client.server.Transport", lambda *_, **__: transport)
    out = tmp_path / "costs.json"
    done = CliRunner().invoke(app, ["bench", "calibrate", "http://server", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "forward pass" in done.output
    assert str(out) in done.output
    costs = Costs.read(out)
    assert costs.forward == pytest.approx(TRUE.forward, rel=0.05)
    held = json.loads(out.read_text())
    assert held["model"] == "org/model"
    assert held["measured_moves"] is True
    assert len(held["samples"]) > 10


def test_no_constant_is_negative() -> None:
    assert nonnegative([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]], [3.0, 2.0, 1.0]) == [pytest.approx(66 / 49), 0.0]
    assert nonnegative([[1.0, 2.0], [1.0, 4.0]], [1.0, 2.0]) == pytest.approx([0.0, 0.5])
    assert nonnegative([[0.0], [0.0]], [1.0, 1.0]) == [0.0]
