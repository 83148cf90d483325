"""Every Python snippet of the README and the docs runs: the blocks of a file, top to bottom, in one namespace."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)


WITH_SNIPPETS = [page for page in PAGES if BLOCK.search(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", WITH_SNIPPETS, ids=lambda page: page.name)
def test_snippets_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for match in BLOCK.finditer(text):
        # Empty lines in front make a traceback name the line in the page.
        source = "\n" * (text.count("\n", 0, match.start()) + 1) + match.group(1)
        exec(compile(source, str(page), "exec"), namespace)


def test_links_lead_to_files() -> None:
    missing = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert not missing


def commands() -> list[tuple[str, list[str]]]:
    """Every `leyline ...` line of a bash block, as (page, words)."""
    found = []
    for page in PAGES:
        for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ["leyline"]:
                    found.append((page.name, words))
    return found


@pytest.mark.parametrize(("page", "words"), commands(), ids=lambda value: value if isinstance(value, str) else value[1])
def test_command_lines_name_commands_and_options_that_exist(page: str, words: list[str]) -> None:
    from typer.main import get_command

    from leyline.cli import app

    command: Any = get_command(app)
    rest = words[1:]
    while rest and hasattr(command, "commands"):
        found = command.get_command(None, rest[0])
        assert found is not None, f"{page}: no command {rest[0]!r} in {shlex.join(words)}"
        command, rest = found, rest[1:]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    passes_on = command.context_settings.get("ignore_unknown_options", False)  # `serve` hands them to SGLang
    for word in rest:
        if word.startswith("--") and not passes_on:
            name = word.split("=")[0]
            assert name in {*options, "--help"}, f"{page}: {words[1]} has no option {name}"


def contributing() -> str:
    return (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")


def test_a_recipe_names_at_most_three_files_and_they_are_there() -> None:
    _, *rest = re.split(r"^## (.+)$", contributing(), flags=re.M)
    steps = {name: re.findall(r"^\d\. `([^`]+)`", text, re.M) for name, text in zip(rest[::2], rest[1::2], strict=True)}
    recipes = {name: files for name, files in steps.items() if files}
    assert list(recipes) == ["Add a policy", "Add a suite", "Support another SGLang version"]
    for name, files in recipes.items():
        assert len(files) <= 3, name
        for file in files:
            new = "NAME" in file or "VERSION" in file
            assert (ROOT / file).parent.is_dir() if new else (ROOT / file).is_file(), f"{name}: {file}"


def test_the_rooms_that_contributing_lists_are_those_of_the_tree() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", contributing(), re.M)
    assert sorted(listed) == sorted(path.parent.name for path in (ROOT / "leyline").glob("*/__init__.py"))
