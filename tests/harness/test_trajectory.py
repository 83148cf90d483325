"""Trajectories: what is written can be read, also where the writer was killed."""

from __future__ import annotations

import gzip
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from leyline.directives import Receipt
from leyline.harness.session.session import Session
from leyline.harness.trajectory import FORMAT, TrajectoryError, TrajectoryWriter, read_trajectory


@pytest.fixture
def written(scripted: Callable[..., Any], tmp_path: Path) -> Path:
    """Two turns, the second with an edit, a tool call, and an end."""
    session = Session(scripted(["first", "second"]), "redact(pattern='secret')")
    history: list[Any] = [{"role": "user", "content": "open"}]
    writer = TrajectoryWriter(tmp_path / "deep" / "t.jsonl", task="job", policy="redact")
    writer.turn(session.turn(history), history)
    history += [{"role": "assistant", "content": "first"}, {"role": "user", "content": "a secret \udcff"}]
    writer.turn(session.turn(history), history[2:])
    writer.tool(1, "view", {"path": "a.py"}, "text", 0.25, call_id="c0")
    writer.end("failed", reason="no")
    return writer.path


def test_every_field_of_a_turn_is_there(written: Path) -> None:
    trajectory = read_trajectory(written)
    assert trajectory.header["format"] == FORMAT
    assert trajectory.header["task"] == "job"
    turn = trajectory.turns[1]
    assert turn["turn"] == 1
    assert [m["role"] for m in turn["messages_added"]] == ["user"]
    assert turn["edits"][0]["message_index"] == 2
    assert turn["edits"][0]["mode"] == "forget"
    assert "secret" not in json.dumps(turn["input"]["messages"])
    assert "secret" not in "".join(map(chr, turn["input"]["ids"]))
    receipt = Receipt.from_dict(turn["receipt"])
    assert receipt.prompt_tokens == len(turn["input"]["ids"]) == turn["usage"]["prompt_tokens"]
    assert turn["output"] == {"role": "assistant", "content": "second"}
    assert turn["tool"] == turn["tools"][0]
    assert (turn["tool"]["name"], turn["tool"]["output"]) == ("view", "text")
    assert trajectory.turns[0]["tool"] is None
    assert {"policy", "render", "backend"} <= set(turn["timings"])
    assert trajectory.end is not None
    assert trajectory.end["reason"] == "no"


def test_directives_are_written_in_token_coordinates(scripted: Callable[..., Any], tmp_path: Path) -> None:
    session = Session(scripted(["one", "two"]))
    history: list[Any] = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    writer = TrajectoryWriter(tmp_path / "t.jsonl")
    writer.turn(session.turn(history), history)
    writer.turn(session.turn([history[1], {"role": "assistant", "content": "one"}]), [])
    writer.close()
    directive = read_trajectory(writer.path).turns[1]["directives"]
    assert directive == [{"start": 0, "end": len("[user|a]"), "replacement": [], "mode": "amortize"}]


def test_a_torn_last_line_is_left_out(written: Path) -> None:
    data = written.read_bytes()
    whole = read_trajectory(written)
    assert not whole.torn
    for cut in (1, 10, len(data) - data.index(b'{"type": "tool"') - 1):
        written.write_bytes(data[:-cut])
        torn = read_trajectory(written)
        assert torn.torn
        assert torn.end is None
        assert torn.turns[0] == whole.turns[0]


def test_damage_before_the_last_line_is_an_error_that_names_the_line(written: Path) -> None:
    lines = written.read_text().splitlines()
    written.write_text("\n".join([lines[0], lines[1][:50], *lines[2:], ""]))
    with pytest.raises(TrajectoryError, match="line 2"):
        read_trajectory(written)


@pytest.mark.parametrize("text", ["", "{}\n", '{"type": "header", "format": "other/1"}\n', "[]\n", "no json\n"])
def test_what_is_no_trajectory_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x").write_text(text)
    with pytest.raises(TrajectoryError):
        read_trajectory(tmp_path / "x")


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TrajectoryError, match="No such file"):
        read_trajectory(tmp_path / "none.jsonl")


def test_unknown_events_and_fields_are_passed_over(written: Path) -> None:
    whole = read_trajectory(written)
    written.write_text(written.read_text() + '{"type": "later", "x": 1}\n')
    assert read_trajectory(written) == whole


def test_a_compressed_trajectory_is_read(written: Path, tmp_path: Path) -> None:
    packed = tmp_path / "run.jsonl.gz"
    packed.write_bytes(gzip.compress(written.read_bytes()))
    assert read_trajectory(packed) == read_trajectory(written)
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(TrajectoryError, match="is a damaged gzip file"):
        read_trajectory(packed)


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def test_every_line_is_json_to_a_strict_reader(tmp_path: Path) -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = {"a": [deep]}
    given = {"x": math.inf, "y": [-math.inf, (1.5, math.nan)], "z": {math.inf: "text"}, "n": 3, "p": tmp_path}
    with TrajectoryWriter(tmp_path / "t.jsonl", seed=math.nan) as writer:
        writer.tool(0, "view", given, "NaN", 0.5, call_id="c0")
        writer.tool(0, "view", {"deep": deep, "n": 3}, "Infinity", 0.5)
    lines = writer.path.read_text().splitlines()
    header, first, second = (json.loads(line, parse_constant=refuse) for line in lines)
    assert header["seed"] == "NaN"
    told = {"x": "Infinity", "y": ["-Infinity", [1.5, "NaN"]], "z": {"Infinity": "text"}, "n": 3, "p": str(tmp_path)}
    assert (first["arguments"], first["output"]) == (told, "NaN")
    assert second["arguments"]["n"] == 3
    assert lines[2].count('{"a": [') == 49
    assert '"..."' in lines[2]


def test_nothing_is_written_after_the_end(tmp_path: Path) -> None:
    writer = TrajectoryWriter(tmp_path / "t.jsonl")
    with pytest.raises(TrajectoryError, match="won"):
        writer.end("won")
    writer.end("solved")
    with pytest.raises(TrajectoryError, match="ended"):
        writer.tool(0, "view", {}, "", 0.0)


KILLED = """
import os, signal, sys
from leyline.harness.trajectory import TrajectoryWriter
writer = TrajectoryWriter(sys.argv[1], task="killed")
for k in range(3):
    writer.tool(k, "view", {}, "x" * 100, 0.0)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_killed_writer_loses_nothing_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(path.read_text().splitlines()) == 4
    assert read_trajectory(path).outcome is None


@pytest.fixture
def full_disk() -> Iterator[Callable[[int], None]]:
    """Files can grow to so many bytes and no further; what is beyond is refused as on a full disk."""
    resource = pytest.importorskip("resource", reason="no resource limits on this system")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_line_and_what_was_written_can_be_read(
    tmp_path: Path, full_disk: Callable[[int], None]
) -> None:
    path = tmp_path / "t.jsonl"
    with TrajectoryWriter(path, task="job") as writer:
        writer.tool(0, "view", {}, "x", 0.0)
        whole = path.read_bytes()
        full_disk(len(whole) + 20)
        for _ in range(2):
            with pytest.raises(TrajectoryError, match=r"cannot write .*t\.jsonl: File too large; free some space"):
                writer.tool(1, "view", {}, "y" * 100, 0.0)
        full_disk(1 << 20)
        with pytest.raises(TrajectoryError, match="cannot write"):
            writer.end("solved")
    assert path.read_bytes().startswith(whole)
    assert read_trajectory(path).header["task"] == "job"


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrajectoryError, match="cannot write"):
        TrajectoryWriter(tmp_path / "file" / "t.jsonl")
