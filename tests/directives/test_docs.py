"""The pages about directives say what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from leyline.directives import EXPLANATIONS, Outcome, Receipt, WireRequest
from leyline.directives import wire as limits

DOCS = Path(__file__).resolve().parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["wire.md", "directives.md"])
def test_python_blocks_run(page: str) -> None:
    namespace: dict[str, object] = {}
    found = blocks(page, "python")
    assert found
    for block in found:
        exec(compile(block, page, "exec"), namespace)


def test_the_segments_printed_on_the_page_are_the_ones_computed(capsys: pytest.CaptureFixture[str]) -> None:
    test_python_blocks_run("wire.md")
    (printed,) = blocks("wire.md", "text")
    assert printed in capsys.readouterr().out


def test_the_curl_bodies_hold_valid_requests() -> None:
    bodies = [
        json.loads(re.search(r"<<'JSON'\n(.*)\nJSON", block, re.DOTALL)[1]) for block in blocks("wire.md", "bash")
    ]
    generate, chat, streamed = bodies
    request = WireRequest.from_json(generate["sampling_params"]["custom_params"]["leyline"])
    assert request.source(generate["input_ids"]) == [*range(11, 20), 20]
    assert WireRequest.from_json(chat["custom_params"]["leyline"]).purge
    assert not WireRequest.from_json(streamed["custom_params"]["leyline"]).script


def test_the_json_examples_are_valid() -> None:
    receipt, envelope = map(json.loads, blocks("wire.md", "json"))
    assert Receipt.from_dict(receipt).to_dict() == receipt
    assert WireRequest.from_kv_hints(envelope).script.directives[0].start == 3


def test_every_reason_outcome_and_field_is_in_its_table() -> None:
    text = (DOCS / "wire.md").read_text()
    for reason, (cause, remedy) in EXPLANATIONS.items():
        assert f"| `{reason}` | {cause} | {remedy} |" in text
    assert all(f"| `{outcome}` |" in text for outcome in Outcome)
    names = [*Receipt.plain(1, 0).to_dict(), *limits._FIELDS]
    assert all(f"| `{name}` |" in text for name in names if name not in ("start", "end"))
    assert f"{limits.MAX_TOKENS:,}" in text
    assert str(limits.MAX_DIRECTIVES) in text
    assert f"{limits.MAX_SEAM:,}" in text
