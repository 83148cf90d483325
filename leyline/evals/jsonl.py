"""Records in a file, one JSON object a line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from leyline.directives import LeylineError
from leyline.directives.complaints import did_you_mean, plain_complaint

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


def first_problem(error: ValidationError, whole: str = "line", model: type[BaseModel] | None = None) -> str:
    """The first complaint as `field: what is wrong`; `whole` stands for what has no field.

    model: what was validated, where a mistyped field is to be answered with the one that was meant.
    """
    first = error.errors(include_url=False)[0]
    where = [str(part) for part in first["loc"]]
    said = plain_complaint(first["msg"])
    if first["type"] == "extra_forbidden" and model is not None:
        known = _fields(model, where[:-1])
        said += did_you_mean(where[-1], known) or (f"; there are {', '.join(known)}" if known else "")
    return f"{'.'.join(where) or whole}: {said}"


def _fields(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    """The fields of a model, or of what stands at a path below it; none where that is no model."""
    for name in path:
        field = model.model_fields.get(name)
        kind = field.annotation if field is not None else None
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return []
        model = kind
    return list(model.model_fields)
