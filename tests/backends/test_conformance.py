"""The conformance suite over every backend that runs in process, and over backends that are wrong on purpose."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from leyline.backends import conformance
from leyline.backends.conformance import CHAT_CHECKS, TOKEN_CHECKS, ConformanceError, run_conformance
from leyline.backends.contract import Turn, TurnInput
from leyline.backends.mock import MockBackend
from leyline.backends.openai.backend import OpenAIBackend
from leyline.backends.simulated.backend import SimulatedBackend
from leyline.backends.simulated.radix import RadixCache
from leyline.directives import EditScript, Mode
from leyline.rendering.textrender import TextRenderer

pytest.importorskip("torch", reason="the local backend needs torch")

SETTINGS: dict[str, Any] = {"vocabulary": range(256), "slack": 16, "length": 150, "decode": 6}


@pytest.mark.parametrize(
    ("family", "rope"),
    [("llama", "plain"), ("qwen3", "yarn"), ("deepseek_v2", "yarn"), ("deepseek_v3", "plain")],
)
def test_the_local_backend_conforms(make_backend: Callable[..., Any], family: str, rope: str) -> None:
    passed = run_conformance(lambda: make_backend(family, rope), **SETTINGS)
    assert passed == [check.__name__ for check in TOKEN_CHECKS]


@pytest.mark.parametrize(("page", "length", "slack"), [(1, 150, 0), (16, 800, 32)])
def test_the_simulated_backend_conforms(make_renderer: Callable[..., Any], page: int, length: int, slack: int) -> None:
    renderer = TextRenderer(make_renderer().tokenizer)
    answers = [{"role": "assistant", "content": "a word"}] * 100

    def fresh() -> SimulatedBackend:
        return SimulatedBackend(renderer, RadixCache(page_size=page), answers, splice=True)

    passed = run_conformance(fresh, **{**SETTINGS, "length": length, "slack": slack, "computes": False})
    assert passed == [check.__name__ for check in TOKEN_CHECKS]


def test_the_mock_conforms() -> None:
    passed = run_conformance(lambda: MockBackend(lambda messages: "a word"))
    assert passed == [check.__name__ for check in CHAT_CHECKS]


def test_the_openai_backend_conforms() -> None:
    def serve(request: httpx.Request) -> httpx.Response:
        message = {"role": "assistant", "content": "a word"}
        usage = {"prompt_tokens": 40, "completion_tokens": 2, "total_tokens": 42}
        usage |= {"prompt_tokens_details": {"cached_tokens": 30}}  # type: ignore[dict-item]
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        body = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
        return httpx.Response(200, json=body)

    def fresh() -> OpenAIBackend:
        client = httpx.Client(transport=httpx.MockTransport(serve))
        return OpenAIBackend("m", base_url="http://server/v1", api_key="none", http_client=client)

    assert run_conformance(fresh) == [check.__name__ for check in CHAT_CHECKS]


class Wrong:
    """A backend that changes requests before another one serves them."""

    def __init__(self, inner: Any, change: Callable[[TurnInput], TurnInput]) -> None:
        self._inner, self._change = inner, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def chat(self, messages: Any, tools: Any, session: TurnInput) -> Turn:
        turn: Turn = self._inner.chat(messages, tools, self._change(session))
        return turn


def _amortised(turn: TurnInput) -> TurnInput:
    directives = (replace(d, mode=Mode.AMORTIZE) for d in turn.script)
    return replace(turn, script=EditScript(tuple(directives)))


WRONG: dict[str, Callable[[TurnInput], TurnInput]] = {
    "check_amortize": lambda turn: replace(turn, script=EditScript(())),
    "check_seam": lambda turn: replace(turn, seam=0),
    "check_forget": _amortised,
    "check_tenants": lambda turn: replace(turn, tenant=None),
    "check_isolation": lambda turn: replace(turn, honest=False),
    "check_chain": lambda turn: replace(turn, lineage=None, lineage_start=None),
    "check_purge": lambda turn: replace(turn, purge=False),
    "check_found": lambda turn: replace(turn, allow=Mode.AMORTIZE if turn.allow else None),
    "check_found_is_the_tenants": lambda turn: replace(turn, tenant=None),
}


@pytest.mark.parametrize("check", WRONG)
def test_a_backend_that_breaks_a_promise_fails_its_check(make_backend: Callable[..., Any], check: str) -> None:
    others = [c.__name__ for c in TOKEN_CHECKS if c.__name__ != check]
    with pytest.raises(ConformanceError, match=rf"^{check}: .+: expected .+, found .+") as failure:
        run_conformance(lambda: Wrong(make_backend(), WRONG[check]), skip=others, **SETTINGS)  # type: ignore[arg-type]
    assert failure.value.check == check
    assert run_conformance(make_backend, skip=others, **SETTINGS) == [check]


def test_a_check_says_what_it_expected_and_found_under_python_o_too() -> None:
    """`python -O` leaves every `assert` out."""
    program = """
from dataclasses import replace
from leyline.backends import MockBackend
from leyline.backends.conformance import ConformanceError, run_conformance

class Wrong(MockBackend):
    def chat(self, messages, tools, session):
        turn = super().chat(messages, tools, session)
        return replace(turn, message={**turn.message, "role": "user"})

try:
    run_conformance(lambda: Wrong(lambda messages: "a word"))
except ConformanceError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-O", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "check_chat: the answer has another role: expected assistant, found user\n"


def test_no_check_is_an_assert() -> None:
    folder = Path(conformance.__file__).parent
    asserts = [
        f"{path.name}:{node.lineno}"
        for path in sorted(folder.glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assert)
    ]
    assert not asserts
