"""Every Python snippet of the README and the docs runs: the blocks of a file, top to bottom, in one namespace."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
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


def test_examples_and_the_readmes_rules_pass_the_projects_own_checks(tmp_path: Path) -> None:
    """`mypy --strict` and the lint of pyproject.toml, on what a reader copies."""
    files = sorted((ROOT / "examples").glob("*.py"))
    for page in (ROOT / "README.md", ROOT / "docs" / "quickstart.md"):
        for number, block in enumerate(BLOCK.findall(page.read_text("utf-8"))):
            files.append(tmp_path / f"{page.stem.lower()}_{number}.py")
            files[-1].write_text(block, "utf-8")
    assert len(files) >= 5
    for command in (["mypy", "--strict", "--no-error-summary"], ["ruff", "check", "--config", ROOT / "pyproject.toml"]):
        done = subprocess.run(
            [sys.executable, "-m", *command, *files], cwd=ROOT, capture_output=True, text=True, timeout=280
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Strict: a link to nowhere, a page that is not in the navigation or a name without a docstring fails it."""
    pytest.importorskip("mkdocs", reason="needs pip install 'leyline-kv[docs]'")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for page in (ROOT / "docs").glob("*.md"):
        name = "index.html" if page.stem == "index" else f"{page.stem}/index.html"
        assert page.name in (ROOT / "mkdocs.yml").read_text("utf-8"), f"mkdocs.yml does not list {page.name}"
        assert (tmp_path / "site" / name).exists()


def test_the_picture_shows_what_was_measured() -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts" / "pictures.py", "--check"], timeout=60)
    assert done.returncode == 0, "run python scripts/pictures.py"


def test_the_readmes_table_is_that_of_the_replays() -> None:
    def numbers(page: Path, policy: str) -> list[str]:
        rows = [line for line in page.read_text("utf-8").splitlines() if line.startswith(f"| `{policy}` |")]
        return [cell.strip() for line in rows for cell in line.split("|")[2:-1]]

    # docs/replay.md: cache, hit rate, interval, prompt, shed, cached, spliced, uncached, edits; radix, then splice
    for policy in ("keep_all", "truncate_older_than(n=2, max_chars=200)", "keep_last(n=5)"):
        found = numbers(ROOT / "docs" / "replay.md", policy)
        assert (found[0], found[9]) == ("radix", "splice")
        assert numbers(ROOT / "README.md", policy) == [found[3], found[7], found[9 + 7]]


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
