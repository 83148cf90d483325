"""A real server, started by `leyline serve`: the client, the documented requests, metrics, and an agent."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from leyline.backends.conformance import TOKEN_CHECKS, run_conformance
from leyline.backends.contract import ContextOverflowError, Sampling, TurnInput
from leyline.backends.sglang import SGLangBackend
from leyline.directives import Directive, EditScript, Receipt, Rendered, WireRequest
from leyline.harness.session.session import Session

ROOT = Path(__file__).parents[4]
HISTORY = [
    {"role": "system", "content": "You fix bugs."},
    {"role": "user", "content": "The test of the function `total` fails. Say what to do first."},
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "eval",
            "description": "Run the tests.",
            "parameters": {"type": "object", "properties": {}},
        },
    }
]


@pytest.fixture
def backend(served: Any) -> Iterator[SGLangBackend]:
    client = SGLangBackend(served.url)
    client.flush()
    yield client
    client.close()


def greedy(**settings: Any) -> TurnInput:
    return TurnInput("test", sampling=Sampling(max_tokens=12), **settings)


def played(session: Session, turns: int, lines: int) -> list[Any]:
    """The history of a session after so many turns, each with a call whose output has so many lines."""
    history: list[Any] = [*HISTORY]
    for turn in range(turns):
        session.turn(history)
        call = {"id": f"c{turn}", "type": "function", "function": {"name": "eval", "arguments": "{}"}}
        history += [{"role": "assistant", "content": "I run it.", "tool_calls": [call]}]
        history += [{"role": "tool", "tool_call_id": f"c{turn}", "content": f"line {turn}\n" * lines}]
    return history


def test_it_splices_and_says_so(backend: SGLangBackend) -> None:
    capabilities = backend.capabilities()
    assert capabilities.splice, capabilities.reason
    assert capabilities.model == "tiny-mla"
    assert capabilities.max_context == backend.facts.max_request
    assert backend.facts.version == "0.5.23"


def test_the_same_tokens_and_answer_as_in_process(backend: SGLangBackend) -> None:
    """The model in this process, through transformers, against the server: same rendering, same greedy answer."""
    from leyline.backends.local import LocalBackend
    from leyline.models import resolve

    local = LocalBackend(resolve("tiny-mla"))
    here, there = local.chat(HISTORY, TOOLS, greedy()), backend.chat(HISTORY, TOOLS, greedy())
    assert there.output_ids == here.output_ids
    assert there.receipt.prompt_tokens == here.receipt.prompt_tokens
    assert there.message["content"] == here.message["content"]
    assert there.receipt.prefix_tokens == 0


def test_the_server_renders_the_same_prompt(backend: SGLangBackend, served: Any) -> None:
    body = {"model": "tiny-mla", "messages": HISTORY, "max_tokens": 12, "temperature": 0, "skip_special_tokens": False}
    answer = httpx.post(f"{served.url}/v1/chat/completions", json=body, timeout=300).json()
    turn = backend.chat(HISTORY, None, greedy())
    assert answer["usage"]["prompt_tokens"] == turn.receipt.prompt_tokens
    assert answer["choices"][0]["message"]["content"] == turn.message["content"]


def test_text_as_it_comes(backend: SGLangBackend) -> None:
    pieces: list[str] = []
    turn = backend.chat(HISTORY, None, greedy(on_text=pieces.append))
    again = backend.chat(HISTORY, None, greedy())
    assert len(pieces) > 1
    assert "".join(pieces) == turn.message["content"] == again.message["content"]
    assert again.output_ids == turn.output_ids
    assert again.receipt.prefix_tokens == again.receipt.prompt_tokens - 1
    assert turn.timings["ttft"] > 0
    text = str(turn.message["content"])
    word = text[3:6]
    cut = backend.chat(HISTORY, None, TurnInput("test", sampling=Sampling(max_tokens=12, stop=(word,))))
    assert cut.message["content"] == text[: text.index(word)]
    assert cut.finish_reason == "stop"


def test_a_session_edits_its_history(backend: SGLangBackend) -> None:
    session = Session(backend, "truncate_older_than(n=1, max_chars=80)", sampling=Sampling(max_tokens=8))
    done = session.turn(played(session, 3, 60))
    assert session.totals.spliced_tokens > 0
    assert done.receipt.lineage is not None
    assert done.receipt.prompt_tokens == len(done.input_ids or ())


def test_directives_travel_in_the_servers_own_kv_hints(backend: SGLangBackend, served: Any) -> None:
    """The same source, edit and answer as in `custom_params`; an action of another type changes nothing."""
    source = tuple(backend.renderer.encode("one two three four five six seven eight nine ten " * 4))
    script = EditScript((Directive(8, 12, (), "amortize"),))
    hinted = SGLangBackend(served.url, kv_hints=True)
    turns = []
    for client, tenant in ((backend, "params"), (hinted, "hints")):
        client.chat([], None, greedy(prompt=Rendered(source), tenant=tenant))
        edited = greedy(prompt=Rendered(script.apply(source)), source=source, script=script, tenant=tenant)
        turns.append(client.chat([], None, edited))
    hinted.close()
    told, hints = turns
    assert hints.receipt.spliced_tokens == told.receipt.spliced_tokens > 0
    assert hints.output_ids == told.output_ids
    action = {"action_id": "a", "action_type": "prefetch", "action_version": "1", "payload": {}}
    envelope = {"protocol_version": "1.0", "message_id": "m", "actions": [action]}
    body = {"input_ids": [*source], "sampling_params": {"max_new_tokens": 1}, "kv_hints": envelope}
    assert "leyline" not in httpx.post(f"{served.url}/generate", json=body, timeout=300).json()["meta_info"]


def test_a_session_is_evicted_whole(backend: SGLangBackend) -> None:
    """In both forms, honest and moved: the same turns are computed again."""
    session = Session(backend, "truncate_older_than(n=1, max_chars=80)", sampling=Sampling(max_tokens=4))
    played(session, 4, 40)
    last = session.turns[-1]
    assert session.totals.spliced_tokens > 0
    done = session.evict()
    assert done.failed == {}
    assert sum(done.tokens.values()) >= last.receipt.prompt_tokens - 1
    for index in (0, -1):
        again = backend.chat([], None, greedy(prompt=Rendered(session.turns[index].input_ids or ())))
        assert again.receipt.prefix_tokens <= (1 if index == 0 else session.turns[0].receipt.prompt_tokens)


def test_the_servers_parser_reads_calls_in_the_models_own_form(backend: SGLangBackend) -> None:
    text = '<|python_tag|>{"name": "eval", "parameters": {"quick": true}}'
    message = backend._message(text, TOOLS)
    (call,) = message["tool_calls"]
    assert call["function"]["name"] == "eval"
    assert json.loads(call["function"]["arguments"]) == {"quick": True}
    assert backend._message("no call", TOOLS) == {"role": "assistant", "content": "no call"}


def test_prewarm_takes_the_prefill_out_of_the_turn(backend: SGLangBackend) -> None:
    ids = tuple(range(300, 500))
    backend.prewarm(TurnInput("test", prompt=Rendered(ids)))
    turn = backend.chat([], None, greedy(prompt=Rendered((*ids, 7, 8, 9))))
    assert turn.receipt.prefix_tokens == len(ids)


def test_a_prompt_that_does_not_fit(backend: SGLangBackend, served: Any) -> None:
    longest = backend.facts.max_request
    assert longest is not None
    with pytest.raises(ContextOverflowError):
        backend.chat([], None, greedy(prompt=Rendered((300,) * longest)))
    body = {"input_ids": [300] * (longest + 100), "sampling_params": {"max_new_tokens": 1}}
    assert httpx.post(f"{served.url}/generate", json=body, timeout=60).status_code == 400


def test_conformance(backend: SGLangBackend) -> None:
    def fresh() -> SGLangBackend:
        backend.flush()
        return backend

    passed = run_conformance(fresh, vocabulary=range(100, 4000), slack=2, length=150, decode=6)
    assert passed == [check.__name__ for check in TOKEN_CHECKS]


def examples(page: str) -> list[str]:
    """The curl commands of a page."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S)
    return [block for block in blocks if block.startswith("curl ")]


def run_example(command: str, url: str) -> str:
    assert "http://127.0.0.1:30000" in command
    command = command.replace("curl ", "curl -sS --fail-with-body ", 1).replace("http://127.0.0.1:30000", url)
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_requests_of_the_wire_page_work(backend: SGLangBackend, served: Any) -> None:
    native, chat, streamed = examples("wire.md")
    source = {"input_ids": [11, 12, 13, 14, 15, 16, 17, 18, 19], "sampling_params": {"max_new_tokens": 1}}
    httpx.post(f"{served.url}/generate", json=source, timeout=300).raise_for_status()
    receipt = Receipt.from_meta_info(json.loads(run_example(native, served.url))["meta_info"])
    page = (ROOT / "docs" / "wire.md").read_text(encoding="utf-8")
    shown = json.loads(re.findall(r"^```json\n(.*?)^```", page, re.M | re.S)[0])
    assert receipt is not None
    got = receipt.to_dict()
    for data in (shown, got):  # what differs from run to run
        data["lineage"] = data["splices"][0]["seconds"] = None
    assert got == shown

    choice = json.loads(run_example(chat, served.url))["choices"][0]
    receipt = Receipt.from_meta_info(choice["meta_info"])
    assert receipt is not None
    assert receipt.directives == 1

    events = [line[6:] for line in run_example(streamed, served.url).splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    last = json.loads(events[-2])
    assert last["choices"] == []
    assert Receipt.from_dict(last["leyline"]).prompt_tokens > 0
    assert all("leyline" not in json.loads(event) for event in events[:-2])


def test_the_openai_package_reads_receipts(served: Any) -> None:
    client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none")
    value = WireRequest(EditScript()).to_json()
    settings: dict[str, Any] = {"model": "tiny-mla", "messages": HISTORY, "max_tokens": 3, "temperature": 0}
    chunks = list(
        client.chat.completions.create(**settings, stream=True, extra_body={"custom_params": {"leyline": value}})
    )
    receipts = [chunk.model_extra["leyline"] for chunk in chunks if "leyline" in (chunk.model_extra or {})]
    assert len(receipts) == 1
    assert Receipt.from_dict(receipts[0]).directives == 0
    plain = list(client.chat.completions.create(**settings, stream=True))
    assert all("leyline" not in (chunk.model_extra or {}) for chunk in plain)
    body = {"custom_params": {"leyline": value}, "return_meta_info": True}
    answer: Any = client.chat.completions.create(**settings, extra_body=body)
    assert Receipt.from_meta_info(answer.choices[0].meta_info) is not None


def test_metrics_count_what_receipts_say(backend: SGLangBackend, served: Any) -> None:
    def read() -> dict[str, float]:
        lines = httpx.get(f"{served.url}/metrics", timeout=60).text.splitlines()
        found = [re.fullmatch(r"(leyline_\w+)\{(.*)\} (\S+)", line) for line in lines]
        picked: dict[str, float] = {}
        for match in filter(None, found):
            labels = re.findall(r'(outcome|source|reason)="(\w+)"', match[2])
            picked[" ".join([match[1], *(value for _, value in labels)])] = float(match[3])
        return picked

    ids = tuple(range(600, 800))
    first = backend.chat([], None, greedy(prompt=Rendered(ids)))
    held = (*ids, *(first.output_ids or ()))
    before = read()
    script = EditScript((Directive(20, 40),))
    good = backend.chat([], None, greedy(prompt=Rendered((*script.apply(held), 9)), source=held, script=script)).receipt
    wrong = EditScript((Directive(1, 2),))
    bad = backend.chat([], None, greedy(prompt=Rendered((5, 7, 8)), source=(5, 6, 7, 8), script=wrong)).receipt
    after = read()
    grown = {name: after[name] - before.get(name, 0.0) for name in after if after[name] != before.get(name, 0.0)}
    assert good.spliced_tokens > 0
    assert bad.fallback is not None
    assert grown.pop("leyline_requests_total") == 2
    assert grown.pop("leyline_directives_total spliced") == 1
    assert grown.pop("leyline_directives_total prefilled") == 1
    assert grown.pop(f"leyline_fallbacks_total {bad.fallback}") == 1
    assert grown.pop("leyline_prompt_tokens_total spliced") == good.spliced_tokens
    assert grown.pop("leyline_prompt_tokens_total prefix") == good.prefix_tokens + bad.prefix_tokens
    assert grown.pop("leyline_prompt_tokens_total prefilled") == good.prefilled_tokens + bad.prefilled_tokens
    assert grown.pop("leyline_splice_seconds_count") == len(good.splices)
    assert grown.pop("leyline_splice_seconds_sum") == pytest.approx(sum(s.seconds for s in good.splices))
    assert all(name.startswith("leyline_splice_seconds_bucket") for name in grown)


@pytest.mark.timeout(900)
def test_the_tiny_agent_solves_a_task(served: Any) -> None:
    """Under AMORTIZE, with its edits spliced. It does not solve every task; one of three is enough here."""
    code = "from leyline.cli import main; main()"
    command = [sys.executable, "-c", code, "run", "--suite", "micro", "--mode", "amortize", "--json"]
    command += ["--backend", "sglang", "--base-url", served.url]
    for seed in ("1000001", "1000003", "1000004"):
        done = subprocess.run([*command, "--seed", seed], capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-2000:]
        result = json.loads(done.stdout)
        assert result["spliced_tokens"] > 0
        assert result["fallbacks"] == {}
        assert result["prompt_tokens"] == sum(result[f"{n}_tokens"] for n in ("cached", "spliced", "prefilled"))
        if result["solved"]:
            return
    pytest.fail("none of three tasks was solved")


def test_nothing_went_wrong_in_the_server(served: Any) -> None:
    """Runs last in this file. That a signal ends the server is checked where the fixture ends."""
    assert served.process.poll() is None
    log = served.log.read_text(errors="replace")
    assert "Traceback" not in log, log[-4000:]
