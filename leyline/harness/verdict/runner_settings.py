"""The part of a shared settings file that pytest reads, put back as it was at the start."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TypeAlias

SHARED = frozenset({"pyproject.toml", "tox.ini", "setup.cfg"})
# What pytest looks for in a folder, the first that holds its settings; those named after it always do.
_ORDER = ("pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg")
_TABLE = re.compile(r"\s*\[")
_PYTEST_TABLE = re.compile(r"""\s*\[\[?\s*["']?tool["']?\s*\.\s*["']?pytest["']?\s*[.\]]""")
_SECTION = re.compile(r"\[")
_PYTEST_SECTION = re.compile(r"\[\s*(tool:)?pytest\s*\]", re.IGNORECASE)

Table: TypeAlias = dict[str, object]


def with_settings_of(path: str, data: bytes, start: bytes) -> bytes:
    """`data` with the settings of pytest that `start`, the same file at first, has; a bad mixture is `start` whole."""
    text, first = (part.decode("utf-8", "surrogateescape") for part in (data, start))
    toml = path.lower().endswith(".toml")
    kept, own = _split(text, toml)
    _, before = _split(first, toml)
    if toml:
        merged = _merged_toml(text, first, kept, before)
    else:
        merged = text if own == before else _joined(kept, before)
    return merged.encode("utf-8", "surrogateescape")


def settings_file(folder: Path) -> str | None:
    """The name of the file in `folder` that pytest takes its settings from."""
    for name in _ORDER:
        try:
            text = (folder / name).read_text("utf-8", "surrogateescape")
        except OSError:
            continue
        if name in SHARED and not (_pytest_of(text) if name.endswith(".toml") else _split(text, False)[1]):
            continue
        return name
    return None


def _split(text: str, toml: bool) -> tuple[str, str]:
    """The text without pytest's sections, and those; lines end where a reader of the format ends them."""
    header, ours = (_TABLE, _PYTEST_TABLE) if toml else (_SECTION, _PYTEST_SECTION)
    lines = text.split("\n") if toml else text.splitlines()
    inside = False
    parts: dict[bool, list[str]] = {False: [], True: []}
    for line in lines:
        if header.match(line):
            inside = ours.match(line) is not None
        parts[inside].append(line)
    return "\n".join(parts[False]), "\n".join(parts[True])


def _joined(kept: str, sections: str) -> str:
    return "\n".join(part for part in (kept.rstrip("\n"), sections.rstrip("\n")) if part) + "\n"


def _merged_toml(text: str, first: str, kept: str, before: str) -> str:
    """The lines are parted as they look, so what comes of it is read and compared."""
    found, wanted = _parsed(text), _pytest_of(first)
    if found is None or _pytest_of(text) == wanted:
        return text  # where it cannot be read, pytest cannot either
    merged = _joined(kept, before)
    same = _pytest_of(merged) == wanted and _others(_parsed(merged)) == _others(found)
    return merged if same else first


def _parsed(text: str) -> Table | None:
    try:
        return tomllib.loads(text.encode("utf-8", "surrogateescape").decode("utf-8"))
    except ValueError:
        return None


def _pytest_of(text: str) -> object:
    tool = (_parsed(text) or {}).get("tool")
    return tool.get("pytest") if isinstance(tool, dict) else None


def _others(table: Table | None) -> Table:
    """All tables but pytest's."""
    if table is None:
        return {}
    tool = table.get("tool")
    if not isinstance(tool, dict):
        return table
    left = {name: value for name, value in tool.items() if name != "pytest"}
    return {name: value for name, value in table.items() if name != "tool"} | ({"tool": left} if left else {})
