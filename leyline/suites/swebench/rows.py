"""Rows of SWE-bench and of data sets in its form, from a local file or the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from leyline.directives import JsonObject
from leyline.suites.suite import SuiteError

ALIASES = {
    "verified": "SWE-bench/SWE-bench_Verified",
    "lite": "SWE-bench/SWE-bench_Lite",
    "full": "SWE-bench/SWE-bench",
    "multilingual": "SWE-bench/SWE-bench_Multilingual",
    "multimodal": "SWE-bench/SWE-bench_Multimodal",
}
LOCAL = (".json", ".jsonl", ".parquet")
_NEEDED = ("instance_id", "repo", "base_commit", "problem_statement")
_LISTS = ("FAIL_TO_PASS", "PASS_TO_PASS")
INSTALL = "pip install 'leyline-kv[swebench]'"


def dataset_name(name: str) -> str:
    """What `swebench` itself takes: an absolute path for a local file, the full name for an alias."""
    return str(Path(name).resolve()) if name.endswith(LOCAL) else ALIASES.get(name.lower(), name)


def load_rows(name: str, split: str = "test") -> dict[str, JsonObject]:
    """The rows by instance id, in order.

    name: a .json, .jsonl or .parquet file, one of ALIASES, or a data set of the hub (needs `datasets`, and the network
    on first use). The lists of tests are lists in every row. Raises SuiteError that names the file, row and field.
    """
    rows = list(_local(Path(name)) if name.endswith(LOCAL) else _hub(dataset_name(name), split))
    found: dict[str, JsonObject] = {}
    for number, row in enumerate(rows, 1):
        where = f"{name}, row {number}"
        if not isinstance(row, Mapping):
            raise SuiteError(f"{where} is not an object")
        lacking = [field for field in _NEEDED if not isinstance(row.get(field), str)]
        if lacking:
            raise SuiteError(f"{where} has no {', '.join(lacking)}; a row of SWE-bench has {', '.join(_NEEDED)}")
        if row["instance_id"] in found:
            raise SuiteError(f"{where}: {row['instance_id']} is there twice")
        found[row["instance_id"]] = {**row, **{field: _tests(row.get(field), field, where) for field in _LISTS}}
    if not found:
        raise SuiteError(f"{name} holds no row")
    return found


def _local(path: Path) -> Iterable[object]:
    try:
        if path.suffix == ".parquet":
            return _parquet(path)
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise SuiteError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise SuiteError(f"{path} is not UTF-8 text: {error.reason}") from None
    if path.suffix == ".jsonl":
        return [_json(line, f"{path}, line {k}") for k, line in enumerate(text.split("\n"), 1) if line.strip()]
    data = _json(text, str(path))
    if isinstance(data, Mapping) and "instance_id" not in data:
        return list(data.values())
    return data if isinstance(data, list) else [data]


def _parquet(path: Path) -> list[object]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError:
        raise SuiteError(f"reading {path} needs pyarrow: {INSTALL}") from None
    try:
        rows: list[object] = parquet.read_table(path).to_pylist()
    except ArrowInvalid as error:
        raise SuiteError(f"{path} is not a parquet file: {error}") from None
    return rows


def _hub(name: str, split: str) -> Iterable[object]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise SuiteError(f"{name} is no local file (.json, .jsonl, .parquet), and the hub needs {INSTALL}") from None
    try:
        return [dict(row) for row in load_dataset(name, split=split)]
    except Exception as error:  # the hub's client has many kinds, none of which is more than its text to a user
        reason = " ".join(str(error).split())[:300]
        raise SuiteError(f"cannot load {name!r}, split {split!r}: {type(error).__name__}: {reason}") from None


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise SuiteError(f"{where} is not JSON: {error}") from None


def _tests(value: object, field: str, where: str) -> list[str]:
    """A list of test names; the hub's rows hold it as JSON text."""
    if value is None:
        return []
    found = _json(value, f"{where}, {field}") if isinstance(value, str) else value
    if not isinstance(found, list | tuple) or not all(isinstance(name, str) for name in found):
        raise SuiteError(f"{where}: {field} must be a list of test names")
    return list(found)
