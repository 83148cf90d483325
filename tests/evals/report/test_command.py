import json
import random
import webbrowser
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from leyline.cli import app
from leyline.directives import LeylineError
from leyline.evals.trials.record import TrialRecord

Make = Callable[..., TrialRecord]
Write = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path, trial: Make, write_run: Write) -> Path:
    rng = random.Random(0)
    return write_run(tmp_path / "run", [trial(arm, t, 0, rng) for t in range(12) for arm in ("keep_all", "amortize")])


def test_one_directory_gets_its_report(run: Path) -> None:
    result = CliRunner().invoke(app, ["report", str(run)], catch_exceptions=False)
    assert result.exit_code == 0
    for name in ("report.html", "report.md", "results.json", "plots/rates.png", "plots/rates.svg"):
        assert (run / name).stat().st_size > 500
    assert f"wrote {run / 'report.html'}" in result.stdout
    assert "keep_all: solved " in result.stdout


def test_json_is_all_that_goes_to_standard_output(run: Path, tmp_path: Path) -> None:
    arguments = ["report", str(run), "--out", str(tmp_path / "o"), "--json", "--baseline", "amortize"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    printed = json.loads(result.stdout)
    assert printed == json.loads((tmp_path / "o" / "results.json").read_text())
    assert [c["first"] for c in printed["comparisons"]] == ["amortize"]


def test_open_asks_for_a_browser(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or len(opened) < 2)
    assert CliRunner().invoke(app, ["report", str(run), "--open"], catch_exceptions=False).exit_code == 0
    assert opened == [(run / "report.html").as_uri()]
    with pytest.raises(LeylineError, match="no browser could be started"):
        CliRunner().invoke(app, ["report", str(run), "--open"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope"], "nope does not exist"),
        (["{run}", "--baseline", "x"], "no arm is called 'x'"),
        (["{run}", "--tokenizer", "nope"], "--tokenizer nope does not exist"),
    ],
)
def test_a_typo_is_one_line(run: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(LeylineError, match=message):
        CliRunner().invoke(app, ["report", *(a.format(run=run) for a in arguments)], catch_exceptions=False)
