import json
from pathlib import Path
from typing import Any

import pytest

from leyline.suites.suite import SuiteError
from leyline.suites.swebench.rows import dataset_name, load_rows


def write(path: Path, row: dict[str, Any]) -> Path:
    if path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist([row]), path)
    else:
        path.write_text(json.dumps(row if path.suffix == ".jsonl" else [row]))
    return path


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.parquet"])
def test_local_files_give_the_same_rows(row: dict[str, Any], tmp_path: Path, name: str) -> None:
    found = load_rows(str(write(tmp_path / name, row)))
    assert list(found) == ["acme__stats-1"]
    assert found["acme__stats-1"]["FAIL_TO_PASS"] == ["tests/test_stats.py::test_unsorted"]
    assert found["acme__stats-1"]["eval_script"] == row["eval_script"]


def test_a_byte_order_mark_and_separators_of_lines_in_a_text(row: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    said = {**row, "problem_statement": "one\u2028line\x85still"}
    path.write_text(json.dumps(said, ensure_ascii=False) + "\n", encoding="utf-8-sig")
    assert load_rows(str(path))["acme__stats-1"]["problem_statement"] == said["problem_statement"]


def test_a_mapping_of_rows_is_read(row: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"acme__stats-1": row}))
    assert list(load_rows(str(path))) == ["acme__stats-1"]


def test_a_hub_data_set_is_read_through_datasets(
    row: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library itself reads it, from a folder in the hub's layout: a name on the hub takes the same call."""
    datasets = pytest.importorskip("datasets", reason="the hub needs datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    write(tmp_path / "set" / "test-00000-of-00001.parquet", row)
    found = load_rows(str(tmp_path / "set"), "test")
    assert found["acme__stats-1"]["PASS_TO_PASS"] == ["tests/test_stats.py::test_odd"]
    with pytest.raises(SuiteError, match=r"cannot load .*, split 'dev'"):
        load_rows(str(tmp_path / "set"), "dev")


def test_aliases_are_those_of_swebench() -> None:
    assert dataset_name("verified") == "SWE-bench/SWE-bench_Verified"
    assert dataset_name("someone/their-set") == "someone/their-set"
    assert dataset_name("rows.jsonl") == str(Path("rows.jsonl").resolve())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no row"),
        ("{nonsense", "line 1 is not JSON"),
        ("3", "row 1 is not an object"),
        ('{"instance_id": "a"}', "row 1 has no repo, base_commit, problem_statement"),
        (
            '{"instance_id": "a", "repo": "b", "base_commit": "c", "problem_statement": "d", "FAIL_TO_PASS": "[1]"}',
            "FAIL_TO_PASS must be a list of test names",
        ),
        ('{"instance_id": "a", "repo": "b", "base_commit": "c", "problem_statement": "d"}\n' * 2, "a is there twice"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(SuiteError, match=message):
        load_rows(str(path))


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="cannot read"):
        load_rows(str(tmp_path / "rows.json"))
