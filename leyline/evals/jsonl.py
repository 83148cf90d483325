"""Records in a file, one JSON object a line."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from leyline.directives import LeylineError

Record = TypeVar("Record", bound=BaseModel)


def read_lines(path: str | Path, record: type[Record], kind: str, error: type[LeylineError]) -> list[Record]:
    """The records of a file, a torn last line left out. Raises `error`, naming the line that is not a `kind` record."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except OSError as problem:
        raise error(f"cannot read {path}: {problem.strerror or problem}") from None
    except UnicodeDecodeError as problem:
        raise error(f"{path} is not UTF-8 text ({problem.reason} at byte {problem.start})") from None
    records = []
    for number, line in enumerate(lines[:-1], 1):
        if line.strip():
            try:
                records.append(record.model_validate_json(line))
            except ValidationError as problem:
                raise error(f"{path}, line {number}: not a {kind} record: {first_problem(problem)}") from None
    return records


def first_problem(error: ValidationError, whole: str = "line") -> str:
    """The first of pydantic's complaints as `field: what is wrong`; `whole` stands for what has no field."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where or whole}: {first['msg'].removeprefix('Value error, ')}"
