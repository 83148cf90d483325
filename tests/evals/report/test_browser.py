"""The page in a real browser: no script errors, a viewer that works, and no sideways scrolling on a phone."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leyline.evals.report import write_report
from leyline.evals.report.tokens import decode, tokenizer_of
from leyline.evals.trials.record import TrialRecord

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("report-browser")]

ARMS = ("keep_all", "truncate", "amortize", "unrotated")
LONG = "an arm whose name is long enough to wrap on every screen there is, and then some"


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    """Two prompts; the second one has the first one's output cut."""
    tokenizer = tokenizer_of("tiny-mla")
    assert tokenizer is not None
    parts = [
        list(tokenizer.encode(text).ids)
        for text in ("rules 🙂\n" * 4, "old <b>output</b>\n" * 20, "tail\n" * 5, "[cut]\n")
    ]
    return [parts[0] + parts[1] + parts[2], parts[0] + parts[3] + parts[2], [len(part) for part in parts]]


@pytest.fixture(scope="module")
def page(
    tmp_path_factory: pytest.TempPathFactory,
    trial: Callable[..., TrialRecord],
    write_run: Callable[..., Path],
    prompts: list[list[int]],
) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    rng = random.Random(3)
    records = []
    for task in range(30):
        for arm in (*ARMS, LONG):
            name = f"trajectories/{arm}-{task}.jsonl" if task < 3 else None
            records.append(trial(arm, task, 0, rng, trajectory=name))
    run = write_run(folder / "run", records)
    (run / "trajectories").mkdir()
    for record in records:
        if record.trajectory:
            (run / record.trajectory).write_text(trajectory(prompts, record.arm))
    return write_report([run], folder / "out").html


def trajectory(prompts: list[list[int]], arm: str) -> str:
    head, old, tail, stub = prompts[2]
    cut = {"start": head, "end": head + old, "replacement": prompts[1][head : head + stub], "mode": "amortize"}
    moved = {"start": head + stub, "end": head + stub + tail, "delta": stub - old, "seconds": 0.0}
    events: list[dict[str, Any]] = [
        {"type": "header", "format": "leyline-trajectory/1", "model": "tiny-mla", "arm": arm}
    ]
    for number, (prefix, splices, directives) in enumerate(((0, [], []), (head, [moved], [cut]))):
        length = len(prompts[number])
        spliced = tail if splices else 0
        counts = {"prompt_tokens": length, "prefix_tokens": prefix, "spliced_tokens": spliced}
        events.append(
            {
                "type": "turn",
                "turn": number,
                "messages_added": [],
                "edits": directives if arm != "keep_all" else [],
                "input": {"messages": [], "ids": prompts[number]},
                "directives": directives if arm != "keep_all" else [],
                "receipt": {
                    **counts,
                    "prefilled_tokens": length - prefix - spliced,
                    "splices": splices,
                    "approximate_from": head + stub if splices else None,
                },
                "output": {"role": "assistant", "content": f"answer {number} of {arm}"},
                "timings": {},
            }
        )
    events.append({"type": "end", "outcome": "solved", "reason": ""})
    return "".join(json.dumps(event) + "\n" for event in events)


def text(tab: Any, selector: str) -> str:
    return str(tab.evaluate(f"document.querySelector({json.dumps(selector)}).textContent"))


def test_no_errors_and_nothing_fetched(browser: Any, page: Path) -> None:
    browser.problems.clear()
    browser.screen(1200, 900)
    browser.open(page)
    assert browser.evaluate("document.querySelectorAll('figure svg').length") >= 4
    assert browser.evaluate(
        "[...document.querySelectorAll('figure svg')].every(s => s.getBoundingClientRect().height > 100)"
    )
    assert browser.evaluate("document.querySelectorAll('nav a').length") == 7
    assert browser.evaluate("[...document.querySelectorAll('nav a')].every(a => document.querySelector(a.hash))")
    assert browser.problems == []


def test_the_viewer_shows_the_exact_input(browser: Any, page: Path, prompts: list[list[int]]) -> None:
    tokenizer = tokenizer_of("tiny-mla")
    assert tokenizer is not None
    browser.problems.clear()
    browser.screen(1200, 900)
    browser.open(page)
    assert text(browser, "#v-turn") == "turn 2 of 2"  # the first one with an edit, of the first arm that has any
    assert "keep_all" not in browser.evaluate("document.querySelector('#v-arm').selectedOptions[0].textContent")
    box, mark = (f"document.querySelector('{name}').getBoundingClientRect()" for name in ("#v-input", "#v-input mark"))
    assert browser.evaluate(f"{box}.top <= {mark}.top && {mark}.top < {box}.bottom")
    browser.evaluate("document.querySelector('#v-prev').click()")
    assert text(browser, "#v-turn") == "turn 1 of 2"
    assert text(browser, "#v-input") == decode(tokenizer, prompts[0])
    browser.evaluate("document.querySelector('#v-next').click()")
    assert text(browser, "#v-turn") == "turn 2 of 2"
    assert text(browser, "#v-input") == decode(tokenizer, prompts[1])
    head, old, tail, stub = prompts[2]
    assert text(browser, "#v-input .t0") == decode(tokenizer, prompts[1][:head])
    assert text(browser, "#v-input mark") == decode(tokenizer, prompts[1][head : head + stub])
    assert text(browser, "#v-input .t1") == decode(tokenizer, prompts[1][head + stub :])
    assert f"{head} cached + {tail} spliced + {stub} prefilled" in text(browser, "#v-facts")
    assert f"from token {head + stub}" in text(browser, "#v-facts")
    colours = browser.evaluate(
        "['.t0', '.t1', 'mark'].map(s => getComputedStyle(document.querySelector('#v-input ' + s)).backgroundColor)"
    )
    assert len(set(colours)) == 3
    browser.evaluate("document.querySelector('#v-input mark').click()")
    removed = text(browser, "#v-input del")
    assert f"{old} tokens removed" in removed
    assert removed.endswith("old <b>output</b>\n" * 20)
    assert browser.evaluate("document.querySelector('#v-input b')") is None
    browser.evaluate("document.querySelector('#v-input mark').click()")
    assert browser.evaluate("document.querySelector('#v-input del')") is None
    assert "answer 1" in text(browser, "#v-after")
    assert browser.problems == []


def test_the_viewer_goes_from_arm_to_arm(browser: Any, page: Path) -> None:
    browser.problems.clear()
    browser.open(page)
    browser.evaluate(
        "{const s = document.querySelector('#v-arm'); s.selectedIndex = 2; s.dispatchEvent(new Event('change')); 0}"
    )
    arm = browser.evaluate("document.querySelector('#v-arm').selectedOptions[0].textContent").split(" · ")[0]
    assert text(browser, "#v-after pre") == f"answer 1 of {arm}"
    browser.evaluate("document.querySelector('#v-prev').click()")
    assert text(browser, "#v-after pre") == f"answer 0 of {arm}"
    browser.evaluate("document.querySelector('#v-strip button').focus()")
    for kind in ("keyDown", "keyUp"):
        browser.call(
            "Input.dispatchKeyEvent",
            {"type": kind, "key": "ArrowRight", "code": "ArrowRight", "windowsVirtualKeyCode": 39},
        )
    assert text(browser, "#v-turn") == "turn 2 of 2"
    assert browser.evaluate("document.activeElement.getAttribute('aria-current')") == "step"
    link = browser.evaluate("document.querySelectorAll('.map td a').length")
    assert link == 15
    browser.evaluate("[...document.querySelectorAll('.map td a')].at(-1).click()")
    browser.evaluate("new Promise(done => setTimeout(done, 50))")
    assert text(browser, "#v-turn") == "turn 2 of 2"
    browser.open(page, "#view-3-1")
    browser.evaluate("new Promise(done => setTimeout(done, 50))")
    assert text(browser, "#v-turn") == "turn 1 of 2"
    browser.open(page, "#view-3-2")
    browser.evaluate("new Promise(done => setTimeout(done, 50))")
    assert text(browser, "#v-turn") == "turn 2 of 2"
    assert browser.problems == []


@pytest.mark.parametrize("width", [390, 320, 768])
def test_no_sideways_scrolling(browser: Any, page: Path, width: int) -> None:
    browser.screen(width, 844, mobile=True)
    browser.open(page)
    browser.evaluate(
        "document.querySelectorAll('details').forEach(d => d.open = true); document.querySelector('#v-next').click()"
    )
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    wide = browser.evaluate(
        "[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, .map, .strip, svg, .vh') && "
        "e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + '.' + e.className)"
    )
    assert wide == []


@pytest.mark.parametrize("width", [1280, 390])
def test_differences_need_no_scrolling(browser: Any, page: Path, width: int) -> None:
    """The tables that compare are as wide as their place, and no value is cut or squeezed by a long name."""
    browser.screen(width, 844, mobile=width < 500)
    browser.open(page)
    for name in ("headline", "comparisons", "tests"):
        table = f"document.querySelector('#table-{name}')"
        assert browser.evaluate(f"{table}.parentElement.scrollWidth - {table}.parentElement.clientWidth") <= 0
    assert browser.evaluate("document.querySelector('#comparisons table').id") == "table-comparisons"
    cells = "[...document.querySelectorAll('#table-comparisons td:nth-child(n+4)')]"
    assert browser.evaluate(f"{cells}.every(c => c.getBoundingClientRect().right <= innerWidth && c.clientWidth >= 95)")
    values = "[...document.querySelectorAll('#table-comparisons .value, #table-tests .value')]"
    assert browser.evaluate(f"{values}.every(v => v.getClientRects().length === 1)")
    inside = f"{values}.every(v => v.offsetWidth <= v.parentElement.clientWidth)"
    assert browser.evaluate(inside)


def test_names_are_readable_on_a_phone(browser: Any, page: Path) -> None:
    """A name has a line of its own, as wide as the table, and each value says what it is."""
    browser.screen(390, 844, mobile=True)
    browser.open(page)
    narrow = (
        "[...document.querySelectorAll('.cards tbody th')].filter(th => "
        "th.clientWidth < 0.95 * th.closest('table').clientWidth).map(th => th.textContent)"
    )
    assert browser.evaluate("document.querySelectorAll('.cards tbody th').length") > 40
    assert browser.evaluate(narrow) == []
    shown = "getComputedStyle(document.querySelector('#table-tests td:nth-child(8)'), '::before').content"
    assert browser.evaluate(shown) == '"p"'


CONTRAST = """
(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const light = (colour) => {
    canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map(v => v / 255)
      .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if (!colour.endsWith(', 0)')) return colour;
    }
    return 'white';
  };
  const kinds = 'h1, h2, p, td, th, a, li, mark, pre span, figcaption, button:enabled, summary, svg text';
  return [...document.querySelectorAll(kinds)].filter(node => node.textContent.trim()).map(node => {
    const style = getComputedStyle(node), ink = node.tagName === 'text' ? style.fill : style.color;
    const [high, low] = [light(ink), light(behind(node))].sort((a, b) => b - a);
    return [`${node.tagName} ${node.className} ${node.textContent.slice(0, 20)}`, (high + 0.05) / (low + 0.05)];
  });
})()
"""


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_has_contrast(browser: Any, page: Path, dark: bool) -> None:
    """At least 4.5 to 1, as WCAG 2.2 asks of text (1.4.3, level AA)."""
    browser.screen(1200, 900, dark=dark)
    browser.open(page)
    browser.evaluate("document.querySelector('#v-next').click()")
    background = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(int(part) for part in background[4:-1].split(",")) < 40) is dark
    found = browser.evaluate(CONTRAST)
    assert len(found) > 500
    assert [text for text, ratio in found if ratio < 4.5] == []
