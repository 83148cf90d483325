from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from leyline.backends.contract import Sampling, TurnInput
from leyline.backends.gate import Gate, GatedBackend, GateError, digest_for, gated, model_digest
from leyline.backends.mock import MockBackend
from leyline.cli import app
from leyline.directives import Directive, EditScript, Fallback, Mode, Outcome, Rendered
from leyline.evals.fidelity import read_records
from leyline.evals.replay.traces import Recording
from leyline.evals.trials.turns import answer_places
from leyline.harness.session.session import Session, SessionTurn

POLICY = "truncate_older_than(n=1, max_chars=8)"


def play(backend: Any, trajectory: Recording, **settings: Any) -> list[SessionTurn]:
    from leyline.evals.replay.recorded import RecordedBackend

    recorded = RecordedBackend(backend)
    places = answer_places(trajectory.messages)
    recorded.begin([trajectory.messages[place] for place in places])
    session = Session(recorded, POLICY, sampling=Sampling(max_tokens=1), **settings)
    return [session.turn(trajectory.messages[:place]) for place in places]


def test_forget_turns_every_amortize_into_honest_prefill(backend: Any, trajectory: Recording) -> None:
    name = backend.capabilities().model
    free = play(backend, trajectory)
    backend.close()
    asked = play(backend, trajectory, mode=Mode.FORGET)
    backend.close()
    held = play(GatedBackend(backend, Gate(name, Mode.FORGET)), trajectory)
    assert sum(t.receipt.spliced_tokens for t in free) > 0
    for turn, honest in zip(held, asked, strict=True):
        assert turn.receipt.spliced_tokens == 0
        assert turn.receipt.approximate_from is None
        assert turn.receipt.prefilled_tokens == honest.receipt.prefilled_tokens
        if turn.script:
            assert turn.receipt.fallback is Fallback.GATED
            assert set(turn.receipt.acknowledged) == {Outcome.PREFILLED}
        else:
            assert turn.receipt.fallback is None
    assert any(turn.script for turn in held)


def test_a_real_forget_is_not_called_gated(backend: Any, trajectory: Recording) -> None:
    gate = Gate(backend.capabilities().model, Mode.FORGET)
    turns = play(GatedBackend(backend, gate), trajectory, mode=Mode.FORGET)
    assert {t.receipt.fallback for t in turns} == {None}
    assert {o for t in turns for o in t.receipt.acknowledged} == {Outcome.FORGOTTEN}


def test_a_seam_is_the_least_that_is_recomputed(backend: Any, trajectory: Recording) -> None:
    name = backend.capabilities().model

    def spliced(gate: Gate, seam: int) -> int:
        backend.close()
        return sum(t.receipt.spliced_tokens for t in play(GatedBackend(backend, gate), trajectory, seam=seam))

    free, held = Gate(name, Mode.AMORTIZE), Gate(name, Mode.AMORTIZE, seam=8)
    assert spliced(held, 0) == spliced(free, 8) == spliced(held, 4) < spliced(free, 0)
    assert spliced(held, 20) == spliced(free, 20) < spliced(free, 8)


def test_capabilities_say_so(backend: Any) -> None:
    name = backend.capabilities().model
    assert GatedBackend(backend, Gate(name, Mode.AMORTIZE, 8)).capabilities() == backend.capabilities()
    found = GatedBackend(backend, Gate(name, Mode.FORGET)).capabilities()
    assert not found.splice
    assert found.reason == "gated: the fidelity gate says FORGET"


def test_a_file_of_a_gate_and_what_is_wrong_with_one(tmp_path: Path) -> None:
    gate = Gate("m", Mode.AMORTIZE, 32, "abc", {"probes": 3})
    path = tmp_path / "new" / "gate.json"
    gate.save(path)
    assert Gate.load(path) == gate
    for change, said in (
        ({"format": "leyline-gate/9"}, "leyline-gate/9"),
        ({"mode": "sometimes"}, "damaged"),
        ({"seam": -1}, "seam is -1"),
        ({"seam": "8"}, "seam is '8'"),
    ):
        path.write_text(json.dumps({**json.loads(json.dumps(as_data(gate))), **change}))
        with pytest.raises(GateError, match=said):
            Gate.load(path)
    path.write_text("nonsense")
    with pytest.raises(GateError, match="not JSON"):
        Gate.load(path)
    with pytest.raises(GateError, match="cannot read"):
        Gate.load(tmp_path / "none")
    with pytest.raises(GateError, match="cannot write"):
        gate.save(path / "under-a-file")


def as_data(gate: Gate) -> dict[str, Any]:
    return {"format": "leyline-gate/1", "model": gate.model, "mode": gate.mode.value, "seam": gate.seam}


def test_a_gate_of_another_model_is_refused(folder: Path, tmp_path: Path, backend: Any) -> None:
    mock = MockBackend(["x"], model="org/served")
    GatedBackend(mock, Gate("somewhere/served", Mode.FORGET))
    with pytest.raises(GateError, match=r"measured on 'other', the backend serves 'org/served'"):
        GatedBackend(mock, Gate("other", Mode.FORGET))
    path = tmp_path / "gate.json"
    right = Gate(folder.name, Mode.AMORTIZE, 0, model_digest(folder))
    right.save(path)
    gated(backend, path, folder)
    replace(right, digest="0" * 32).save(path)
    with pytest.raises(GateError, match="other weights"):
        gated(backend, path, folder)


def test_an_arm_of_an_eval_takes_a_gate(folder: Path, tmp_path: Path) -> None:
    from leyline.evals.trials.arms import parse_arm
    from leyline.evals.trials.serving import check_backends, make_backend

    path = tmp_path / "gate.json"
    Gate(folder.name, Mode.AMORTIZE, 8, model_digest(folder)).save(path)
    found = make_backend(parse_arm(f"keep_all,model={folder},options.gate={path}"))
    assert isinstance(found, GatedBackend)
    assert found.gate.seam == 8
    check_backends([parse_arm(f"keep_all,model={folder},options.gate={path}")])
    with pytest.raises(GateError, match="measured on"):
        check_backends([parse_arm(f"keep_all,model=tiny-mla,options.gate={path}")])


def test_the_digest_tells_weights_apart(folder: Path, tmp_path: Path) -> None:
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    assert model_digest(tmp_path) == model_digest(folder)
    data = bytearray((tmp_path / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(data)
    assert model_digest(tmp_path) != model_digest(folder)


def test_the_digest_reads_weights_to_their_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEYLINE_CACHE", str(tmp_path / "cache"))
    base, merged = tmp_path / "base", tmp_path / "merged"
    for path, last in ((base, b"\0"), (merged, b"\1")):
        path.mkdir()
        (path / "config.json").write_text("{}")
        (path / "model.safetensors").write_bytes(bytes(17 * 2**20) + last)
    gate = Gate("m", Mode.AMORTIZE, 0, model_digest(base))
    gate.check("m", digest_for(gate, base))
    with pytest.raises(GateError, match="other weights"):
        gate.check("m", digest_for(gate, merged))
    old = replace(gate, digest="0" * 32)
    with pytest.raises(GateError, match=r"older release, which looked at the beginning .* measure it again"):
        digest_for(old, base)


def test_a_gate_of_an_older_release_counts_where_it_saw_the_whole_weights(folder: Path, tmp_path: Path) -> None:
    state = hashlib.blake2b(digest_size=16)  # as releases before computed it
    for name in ("config.json", "model.safetensors"):
        data = (folder / name).read_bytes()
        state.update(f"{name}\0{len(data)}\0".encode() + data)
    gate = Gate(folder.name, Mode.AMORTIZE, 0, state.hexdigest())
    gate.check(folder.name, digest_for(gate, folder))


def test_the_command_measures_recommends_and_writes(folder: Path, tmp_path: Path, trajectory: Recording) -> None:
    trace = tmp_path / "t.jsonl"
    trace.write_text(json.dumps({"id": "talk", "messages": trajectory.messages}) + "\n")
    args = ["eval", "fidelity", str(folder), "--trace", str(trace), "--policy", POLICY, "--tokens", "2"]
    out = ["--seam", "0", "--seam", "8", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*args, *out])
    assert done.exit_code == 0, done.output
    assert "FORGET: 3 probes are too few" in done.output
    records = read_records(tmp_path / "out" / "fidelity.jsonl")
    assert [(r.turn, r.seam) for r in records] == [(t, s) for s in (0, 8) for t in (2, 3, 4)]
    gate = Gate.load(tmp_path / "out" / "gate.json")
    assert (gate.model, gate.mode, gate.digest) == (folder.name, Mode.FORGET, model_digest(folder))
    assert gate.evidence["rows"][0]["probes"] == 3
    told = json.loads(CliRunner().invoke(app, [*args, *out, "--json"]).stdout)
    assert told["recommendation"] == "FORGET"
    assert told["rows"] == gate.evidence["rows"]


def test_a_trajectory_that_outgrows_the_context_ends_only_itself(
    folder: Path, tmp_path: Path, trajectory: Recording
) -> None:
    long = [*trajectory.messages[:4], {"role": "user", "content": "x" * 3000}, {"role": "assistant", "content": "a"}]
    trace = tmp_path / "t.jsonl"
    trace.write_text("".join(json.dumps(m) + "\n" for m in (long, trajectory.messages, long)))
    args = ["eval", "fidelity", str(folder), "--trace", str(trace), "--policy", POLICY, "--tokens", "2", "--seam", "0"]
    done = CliRunner().invoke(app, [*args, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert {r.trajectory for r in read_records(tmp_path / "out" / "fidelity.jsonl")} == {"line 2"}


def test_what_was_measured_before_an_interrupt_is_shown(
    folder: Path, tmp_path: Path, trajectory: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    from leyline.evals.fidelity import lab

    real, seen = lab.compare, []

    def third(*answers: Any) -> Any:
        seen.append(answers)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return real(*answers)

    monkeypatch.setattr(lab, "compare", third)
    trace = tmp_path / "t.jsonl"
    trace.write_text(json.dumps(trajectory.messages) + "\n")
    args = ["eval", "fidelity", str(folder), "--trace", str(trace), "--policy", POLICY, "--tokens", "2", "--seam", "0"]
    done = CliRunner().invoke(app, [*args, "--out", str(tmp_path / "out")])
    assert done.exit_code == 130
    assert "interrupted: 2 records of 1 trajectory" in done.output
    assert "first = full" in done.output
    assert len(read_records(tmp_path / "out" / "fidelity.jsonl")) == 2
    assert not (tmp_path / "out" / "gate.json").exists()
    seen.clear()
    told = json.loads(CliRunner().invoke(app, [*args, "--out", str(tmp_path / "out"), "--json"]).stdout)
    assert (told["interrupted"], told["rows"][0]["probes"]) == (True, 2)


def test_what_stands_behind_a_forget_is_not_gated(backend: Any) -> None:
    def directive(start: int, mode: Mode) -> Directive:
        return Directive(start, start + 2, (), mode)

    source = tuple(range(100, 160))
    for modes, told, reason in (
        ((Mode.AMORTIZE, Mode.FORGET, Mode.AMORTIZE), "prefilled forgotten forgotten", Fallback.GATED),
        ((Mode.FORGET, Mode.AMORTIZE, Mode.AMORTIZE), "forgotten forgotten forgotten", None),
    ):
        backend.close()
        held = GatedBackend(backend, Gate(backend.capabilities().model, Mode.FORGET))
        held.chat([], None, TurnInput("s", Rendered(source)))
        script = EditScript(tuple(directive(10 * k, mode) for k, mode in enumerate(modes, 1)))
        turn = TurnInput("s", Rendered(tuple(script.apply(source))), source, script)
        receipt = held.chat([], None, turn).receipt
        assert " ".join(receipt.acknowledged) == told
        assert receipt.fallback is reason


def test_what_cannot_be_measured_is_said_in_one_line(folder: Path, tmp_path: Path, trajectory: Recording) -> None:
    trace = tmp_path / "t.jsonl"
    trace.write_text(json.dumps(trajectory.messages) + "\n")
    for args, said in (
        (["nowhere"], "no model 'nowhere'"),
        ([str(folder), "--trace", str(tmp_path / "none")], "there is no"),
        ([str(folder), "--policy", "kep_all"], "unknown policy"),
        ([str(folder), "--trace", str(trace), "--policy", "keep_all", "--out", str(tmp_path / "o")], "no probe"),
    ):
        done = CliRunner().invoke(app, ["eval", "fidelity", *args])
        assert done.exit_code != 0
        assert said in str(done.exception)
