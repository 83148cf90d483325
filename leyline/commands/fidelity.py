"""`leyline eval fidelity`: may this model's suffix be kept behind an edit?"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from leyline.backends.contract import BackendError
from leyline.commands.meter import Meter
from leyline.commands.replay import find_traces, table_text
from leyline.commands.sources import UsageError
from leyline.commands.terminal import say
from leyline.directives import JsonObject, Mode
from leyline.directives.counts import count
from leyline.evals.fidelity.probe import FidelityRecord
from leyline.evals.fidelity.summary import RULE, THRESHOLD, Row, Verdict, by_edits, by_margin, recommend, rows
from leyline.evals.replay.traces import Recording, load_trajectories
from leyline.evals.trials.turns import answer_places
from leyline.rendering.errors import RenderingError

GATE = "gate.json"
RECORDS = "fidelity.jsonl"


def fidelity(
    model: str = typer.Argument(..., help="A model folder, or a bundled model.", show_default=False),
    trace: list[Path] = typer.Option([], help="Recorded trajectories; repeatable. [generated micro tasks]"),
    tasks: int = typer.Option(40, min=1, help="Micro tasks; with --trace at most so many trajectories."),
    level: str = typer.Option("long", help="Level of the micro tasks: short, long or xlong."),
    policy: str = typer.Option("truncate_older_than(n=2, max_chars=200)", help="What edits the history."),
    seam: list[int] = typer.Option([], min=0, help="Tokens recomputed behind an edit; repeatable. [0, 8, 32, 128]"),
    tokens: int = typer.Option(16, min=1, help="Greedy tokens compared in each probe."),
    every: int = typer.Option(1, min=1, help="Use every n-th turn that has spliced KV."),
    threshold: float = typer.Option(THRESHOLD, help="Agreement that AMORTIZE must keep; see the rule below."),
    device: str | None = typer.Option(None, help="cpu or cuda. [cuda where there is one]"),
    dtype: str | None = typer.Option(None, help="float32, bfloat16 or float16. [float32 on a CPU]"),
    out: Path | None = typer.Option(
        None, help=f"Folder for {RECORDS} and {GATE}. [runs/fidelity-MODEL]", show_default=False
    ),
    markdown: bool = typer.Option(False, "--markdown", help="Print the tables as Markdown."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Measure how a model answers on spliced KV, and write a gate that a backend can load.

    Compares AMORTIZE at several seams with the full history and with honest prefill, and recommends AMORTIZE, AMORTIZE
    with a seam, or FORGET. The local backend does the splices, on this machine.

    Example: leyline eval fidelity tiny-mla

    Example: leyline eval fidelity ./my-model --trace trajectories.jsonl.gz --tasks 40 --out runs/fidelity
    """
    from leyline.policies import load_policy

    load_policy(policy)
    from leyline.models.find import model_folder

    folder = model_folder(model)
    directory = out or Path("runs") / f"fidelity-{folder.name}"
    found = _trajectories(trace, tasks, level, policy)
    started = time.monotonic()
    measured = _measure(folder, found, directory, _settings(policy, seam, tokens, every), device, dtype, as_json)
    records, name = measured.records, measured.model
    for line in measured.ended[:5]:
        say(f"ended early: {line}", err=True)
    if measured.interrupted:
        if as_json:
            say(json.dumps({"interrupted": True, "rows": [row.to_dict() for row in rows(records)] if records else []}))
        elif records:
            say(report_text(records, markdown=markdown))
        done = count(len({r.trajectory for r in records}), "trajectory", "trajectories")
        said = f"interrupted: {count(len(records), 'record')} of {done}, in {directory / RECORDS}; no gate was written"
        say(said, err=True)
        raise typer.Exit(130)
    verdict = recommend(records, threshold)
    gate = _gate(folder, name, records, verdict)
    gate.save(directory / GATE)
    if as_json:
        say(json.dumps({**gate.evidence, **_said(verdict), "seconds": round(time.monotonic() - started, 1)}))
        return
    say(report_text(records, markdown=markdown))
    say(f"\n{verdict.text}: {verdict.reason}.\nRule: {RULE}")
    say(f"gate: {directory / GATE}; use it with `leyline run --gate {directory / GATE}`")


def report_text(records: Sequence[FidelityRecord], *, markdown: bool = False) -> str:
    """The tables: by seam, and at the smallest seam by margin and by number of edits."""
    every = rows(records)
    least = every[0].seam
    parts = [
        rows_text(every, "seam", [str(row.seam) for row in every], markdown=markdown),
        *(
            rows_text(some, f"seam {least}", [row.label for row in some], markdown=markdown)
            for some in (by_margin(records, least), by_edits(records, least))
        ),
    ]
    return "\n\n".join(parts)


def rows_text(found: Sequence[Row], title: str, labels: Sequence[str], *, markdown: bool = False) -> str:
    """A table of rows, the references' own agreement in the last columns."""
    head = [title, "probes", "first = full", "first = honest", "either", "followed", "KL full", "KL honest"]
    head += ["honest = full", "KL of the edit"]
    body = []
    for label, row in zip(labels, found, strict=True):
        shares = [row.agree_full, row.agree_honest, row.either, row.followed]
        kls = [f"{value:.4f}" for value in (row.kl_full, row.kl_honest)]
        own = [f"{row.references_agree:.1%}", f"{row.kl_references:.4f}"]
        body.append([label, str(row.probes), *(f"{share:.1%}" for share in shares), *kls, *own])
    return table_text(head, body, left=1, markdown=markdown)


def _settings(policy: str, seams: Sequence[int], tokens: int, every: int) -> JsonObject:
    chosen = sorted(set(seams)) or [0, 8, 32, 128]
    return {"policy": policy, "seams": chosen, "tokens": tokens, "every": every}


def _trajectories(trace: Sequence[Path], tasks: int, level: str, policy: str) -> list[Recording]:
    if trace:
        return [t for file in find_traces(trace) for t in load_trajectories(file)][:tasks]
    from leyline.evals.fidelity.micro import micro_trajectories

    return list(micro_trajectories(tasks, policy, level=level))


@dataclass
class _Measured:
    """The records and the model's name. ended: trajectories that were not walked to their end, and why."""

    model: str
    records: list[FidelityRecord] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    interrupted: bool = False


def _measure(
    folder: Path,
    trajectories: Sequence[Recording],
    directory: Path,
    settings: JsonObject,
    device: str | None,
    dtype: str | None,
    quiet: bool,
) -> _Measured:
    """All records, written as they come. A trajectory that cannot be served ends only itself."""
    try:
        from leyline.backends.local import LocalBackend
        from leyline.evals.fidelity.lab import measure
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed; run: pip install 'leyline-kv[local]'") from None
    backend = LocalBackend(folder, device=device, dtype=dtype)
    found = backend.capabilities()
    if not found.splice:
        raise UsageError(f"{found.model} cannot be spliced, so there is nothing to measure: {found.reason}")
    turns = sum(len(answer_places(t.messages)) for t in trajectories) * (2 + len(settings["seams"]))
    result = _Measured(found.model)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        stream = (directory / RECORDS).open("w", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write to {directory}: {error.strerror or error}; give another --out") from None
    with stream, Meter("turns", turns, quiet=quiet) as meter:
        try:
            for trajectory in trajectories:
                try:
                    for record in measure(backend, trajectory, model=found.model, on_turn=meter.step, **settings):
                        result.records.append(record)
                        stream.write(record.model_dump_json() + "\n")
                        stream.flush()
                        meter.note(count(len(result.records), "probe"))
                except (BackendError, RenderingError) as error:
                    result.ended.append(f"{trajectory.id}: {error}")
        except KeyboardInterrupt:
            result.interrupted = True
    backend.close()
    return result


def _gate(folder: Path, name: str, records: Sequence[FidelityRecord], verdict: Verdict) -> Any:
    from leyline import __version__
    from leyline.backends.gate import Gate, model_digest

    evidence = {
        "model": name,
        "policy": records[0].policy,
        "trajectories": len({r.trajectory for r in records}),
        "threshold": verdict.threshold,
        "reason": verdict.reason,
        "rule": RULE,
        "rows": [row.to_dict() for row in rows(records)],
        "measured": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "leyline": __version__,
    }
    mode = Mode(verdict.mode)
    return Gate(name, mode, verdict.seam, model_digest(folder), evidence)


def _said(verdict: Verdict) -> JsonObject:
    return {"recommendation": verdict.text, "mode": verdict.mode.value, "seam": verdict.seam}
