"""How the commands look: -h and -V, whole summaries, plain words, old names that warn, and complaints for people."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leyline.commands.shape import Command, taking


def every_command() -> Iterator[tuple[list[str], Any]]:
    """Each command and group by its words."""
    from typer.main import get_command

    from leyline.cli import app

    todo: list[tuple[list[str], Any]] = [([], get_command(app))]
    while todo:
        words, command = todo.pop()
        yield words, command
        todo += [([*words, name], each) for name, each in getattr(command, "commands", {}).items()]


def test_every_help_is_plain_at_80_columns(leyline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for words, command in every_command():
        shown = leyline(*words, "-h").out
        for ugly in ("{", "list[", "...\n  ", "<str>", "<int", "<path>"):
            assert ugly not in shown, f"leyline {' '.join(words)} -h shows {ugly!r}"
        assert max(map(len, shown.splitlines())) <= 80
        assert "-h, --help" in shown
        for name in getattr(command, "commands", {}):
            assert f"\n  {name} " in shown


def test_the_summaries_of_the_list_are_those_of_the_commands() -> None:
    from leyline.cli import SUBCOMMANDS
    from leyline.commands.shape import _summary

    told = {name: summary for name, _, summary in SUBCOMMANDS}
    assert {name: _summary(command) for (name, *rest), command in _below() if not rest} == told


def test_the_help_of_the_command_imports_no_command() -> None:
    code = (
        "import sys; sys.argv[1:] = ['--help']\nfrom leyline.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'numpy', 'openai', 'httpx', 'leyline.commands.run', 'leyline.evals', 'leyline.policies'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, stdout=subprocess.DEVNULL)


def _below() -> Iterator[tuple[list[str], Any]]:
    return (pair for pair in every_command() if pair[0])


def test_arguments_are_in_capitals_and_optional_ones_in_brackets(leyline: Any) -> None:
    assert leyline("run", "-h").out.startswith("Usage: leyline run [OPTIONS] [PATH]\n")
    assert leyline("replay", "-h").out.startswith("Usage: leyline replay [OPTIONS] FILES...\n")
    assert "\nArguments:\n  FILES..." in leyline("replay", "-h").out


def test_the_version_and_the_module() -> None:
    done = subprocess.run([sys.executable, "-m", "leyline", "-V"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split()[0]) == (0, "leyline")


def test_one_name_for_one_thing() -> None:
    """An option that several commands have takes the same type everywhere; these names are the only ones in use."""
    seen: dict[str, set[str]] = {}
    for words, command in every_command():
        for parameter in command.params:
            for option in parameter.opts:
                seen.setdefault(option, set()).add(" ".join(words))
    assert not {"--url", "--n", "--max-turns", "--endpoint", "--num-tasks"} & set(seen)
    assert seen["--base-url"] >= {"run", "eval SUITE", "replay"}
    assert seen["--tasks"] >= {"run", "eval SUITE"}
    assert seen["--turns"] >= {"run", "eval SUITE"}
    assert seen["--max-tokens"] >= {"run", "eval SUITE"}


def test_an_old_name_warns_and_works(leyline: Any, tmp_path: Path) -> None:
    words = ("eval", "micro", "--dry-run", "--backend", "openai", "--model", "m", "--arms", "keep_all")
    done = leyline(*words, "--url=http://127.0.0.1:9/v1", "--n", 3, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert "leyline: --url is called --base-url now\n" in done.err
    assert "leyline: --n is called --tasks now\n" in done.err
    assert "trials 3, " in done.out


def test_what_stands_behind_two_dashes_is_no_option() -> None:
    from leyline.commands.shape import _today

    assert _today(["--a", "1", "--", "--a"], {"--a": "--b"}) == ["--b", "1", "--", "--a"]
    assert taking(max_turns="--turns").renamed == {"--max-turns": "--turns"}
    assert Command.renamed == {}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--set", "limits.turn=3"], "limits.turn: there is no such setting; did you mean turns?"),
        (["--set", "limit.turns=3"], "limit: there is no such setting; did you mean limits?"),
        (["--set", "limits.turns=many"], "limits.turns: give a whole number"),
        (["--set", "n=-1"], "n: give at least 1"),
        (["--arms", "defualt"], "unknown arm 'defualt'; did you mean default?"),
        (["--arms", "keep_all,sem=1"], "arm 'keep_all': sem: there is no such setting; did you mean seam?"),
        (["--arms", "keep_al"], "unknown policy 'keep_al'. Did you mean 'keep_all'"),
    ],
)
def test_complaints_are_for_people(leyline: Any, words: list[str], line: str) -> None:
    assert line in leyline("eval", "micro", "--dry-run", *words).error


def test_a_number_that_is_none_is_told_in_words(leyline: Any) -> None:
    done = leyline("run", "--suite", "micro", "--tasks", "many")
    assert (done.code, done.err.splitlines()[-1]) == (2, "Error: Invalid value for '--tasks': give a whole number")


def test_a_refused_key_ends_an_eval_at_once(leyline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty trials would meet the same answer: the first one ends the run, and the line says what to do."""
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    asked: list[str] = []

    class Refuses(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            body = json.dumps({"error": {"message": "Incorrect API key provided"}}).encode()
            self.send_response(401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuses)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
    try:
        url = f"http://127.0.0.1:{server.server_port}/v1"
        words = ("--backend", "openai", "--base-url", url, "--model", "m", "--arms", "keep_all", "--workers", 0)
        done = leyline("eval", "micro", *words, "--tasks", 20, "--out", tmp_path / "run")
    finally:
        server.shutdown()
        server.server_close()
    assert done.code in (1, 2)
    assert "refused the API key (401: Incorrect API key provided)" in done.out + done.err
    assert asked.count("/v1/chat/completions") <= 2
