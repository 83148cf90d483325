"""`leyline replay`: recorded trajectories through policies and caches, in tables."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from leyline.commands.meter import Meter
from leyline.commands.sources import UsageError, make_backend
from leyline.commands.terminal import say
from leyline.directives.counts import count
from leyline.evals.replay.by_policy import Bucket, Row, by_turn, summarise
from leyline.evals.replay.replayed import CACHES, Cache, ReplayRecord
from leyline.evals.replay.run import BUILTIN_POLICIES, ReplayPlan, run_on_backend, run_plan
from leyline.evals.replay.traces import TraceError, trace_files
from leyline.evals.replay.walk import iter_settings


def replay(
    files: list[Path] = typer.Argument(
        ..., help="Trajectory files (JSON, JSON lines, .traj, gzip) or folders of them.", show_default=False
    ),
    policy: list[str] = typer.Option([], help="A policy; repeatable. [every built-in with its defaults]"),
    cache: list[str] = typer.Option(
        [], help="radix: an ordinary prefix cache; splice: AMORTIZE; forget: FORGET; repeatable. [radix and splice]"
    ),
    backend: str = typer.Option("simulated", help="What counts the hits: simulated, local, sglang or openai."),
    model: str | None = typer.Option(None, help="Model of a real backend, as for `leyline run`."),
    base_url: str | None = typer.Option(None, help="Address of the server."),
    api_key: str | None = typer.Option(None, envvar="OPENAI_API_KEY", help="Key of the server.", show_envvar=True),
    tokenizer: str | None = typer.Option(
        None, help="A tokenizer.json, a model folder, or a bundled model. [the bundled tokenizer, in ChatML frames]"
    ),
    page_size: int = typer.Option(1, min=1, help="Prefixes hit in whole pages of so many tokens."),
    capacity: int | None = typer.Option(None, min=1, help="KV slots of the cache, in tokens. [never full]"),
    chunk: int | None = typer.Option(None, min=1, help="Prefill at a time, as the server's --chunked-prefill-size."),
    concurrency: int = typer.Option(1, min=1, help="Trajectories that run at a time, sharing one cache."),
    seam: int = typer.Option(0, min=0, help="Tokens recomputed at the start of every reused run."),
    only: list[str] = typer.Option([], "--id", help="Only this trajectory; repeatable."),
    limit: int | None = typer.Option(None, min=1, help="At most so many trajectories."),
    workers: int = typer.Option(2, min=1, help="Processes of the simulated cache."),
    turns: bool = typer.Option(False, "--by-turn", help="Also a table by turn."),
    markdown: bool = typer.Option(False, "--markdown", help="Print the tables as Markdown."),
    out: Path | None = typer.Option(None, help="Write the records, one JSON line a trajectory, policy and cache."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Replay recorded trajectories: what hits the cache, what is spliced, what is computed.

    The recording says what the model answers, so this measures the cache, not whether a task would be solved.

    Example: leyline replay trajectories.jsonl.gz

    Example: leyline replay run.traj.json --policy "keep_last(n=5)" --cache radix --page-size 16 --by-turn
    """
    caches = [_cache(name) for name in cache] or (["radix"] if backend == "openai" else ["radix", "splice"])
    real = backend != "simulated"
    if real and (capacity is not None or concurrency > 1 or tokenizer is not None or page_size != 1):
        raise UsageError("--capacity, --concurrency, --page-size and --tokenizer belong to the simulated cache")
    about = {"page_size": page_size, "capacity": capacity, "chunk": chunk, "seam": seam}
    settings = iter_settings(policy or BUILTIN_POLICIES, caches, **about)
    plan = ReplayPlan(
        files=tuple(str(path) for path in find_traces(files)),
        settings=tuple(settings),
        ids=frozenset(only),
        limit=limit,
        tokenizer=tokenizer,
        concurrency=concurrency,
    )
    plan.check()
    found = plan.trajectories()
    missing = [name for name in only if not any(t.id == name or t.id.startswith(f"{name} ") for t in found)]
    if missing:
        raise UsageError(f"no trajectory {sorted(missing)[0]!r}; the first are {', '.join(_ids(plan)[:5])}")
    started = time.monotonic()
    if real:
        served = make_backend(backend, model, base_url, api_key)
        try:
            records = _collect(run_on_backend(plan, served), plan, len(found), as_json)
        finally:
            served.close()
    else:
        records = _collect(run_plan(plan, workers=workers), plan, len(found), as_json)
    records = _ordered(records, plan, [trajectory.id for trajectory in found])
    if out is not None:
        _write(out, records)
    rows = summarise(records)
    buckets = {(row.policy, row.cache): by_turn(_of(records, row)) for row in rows} if turns or as_json else {}
    if as_json:
        say(json.dumps(_json(rows, buckets, time.monotonic() - started)))
        return
    say(rows_text(rows, markdown=markdown))
    for (name, kind), table in buckets.items():
        say(f"\n{name} on {kind}\n{buckets_text(table, markdown=markdown)}")
    for record in [r for r in records if r.stopped][:5]:
        say(f"stopped: {record.trajectory} under {record.policy} on {record.cache}: {record.stopped}", err=True)


def find_traces(paths: Sequence[Path]) -> list[Path]:
    """The files of `trace_files`, with a line on standard error about what was passed over in folders."""
    passed: list[TraceError] = []
    files = trace_files(paths, passed=passed)
    for error in passed[:3]:
        say(f"passed over: {error}", err=True)
    if len(passed) > 3:
        say(f"passed over: {count(len(passed) - 3, 'file')} more", err=True)
    return files


def rows_text(rows: Sequence[Row], *, markdown: bool = False) -> str:
    """The table of policies and caches."""
    several = len({row.backend for row in rows}) > 1
    head = ["policy", "cache", "hit rate", "95 %", "prompt", "shed", "cached", "spliced", "uncached", "edits"]
    body = []
    for row in rows:
        interval = "" if row.interval is None else f"{row.interval[0]:.1%} to {row.interval[1]:.1%}"
        numbers = [row.prompt, row.shed, row.prefix, row.spliced, row.prefilled, row.edits]
        name = f"{row.cache} ({row.backend})" if several else row.cache
        body.append([row.policy, name, f"{row.hit_rate:.1%}", interval, *(f"{n:,}" for n in numbers)])
    return table_text(head, body, left=2, markdown=markdown)


def buckets_text(buckets: Sequence[Bucket], *, markdown: bool = False) -> str:
    """The table by turn; prompt, spliced and uncached are means a turn."""
    head = ["turns", "n", "prompt", "hit rate", "spliced", "uncached", "edits"]
    body = [
        [
            f"{b.first}-{b.last}" if b.last > b.first else str(b.first),
            f"{b.turns:,}",
            f"{b.prompt:,.0f}",
            f"{b.hit_rate:.1%}",
            f"{b.spliced:,.0f}",
            f"{b.prefilled:,.0f}",
            f"{b.edits:,}",
        ]
        for b in buckets
    ]
    return table_text(head, body, left=1, markdown=markdown)


def table_text(head: Sequence[str], body: Sequence[Sequence[str]], *, left: int, markdown: bool) -> str:
    if markdown:
        names = [row[0].replace("|", r"\|") for row in body]
        code = [[f"`{n}`" if left > 1 else n, *row[1:]] for n, row in zip(names, body, strict=True)]
        rule = ["---" if column < left else "---:" for column in range(len(head))]
        return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, rule, *code])
    widths = [max(len(row[column]) for row in [head, *body]) for column in range(len(head))]
    return "\n".join(
        "  ".join(c.ljust(w) if k < left else c.rjust(w) for k, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in [head, *body]
    )


def _collect(pieces: Any, plan: ReplayPlan, trajectories: int, quiet: bool) -> list[ReplayRecord]:
    records: list[ReplayRecord] = []
    with Meter("replays", trajectories * len(plan.settings), quiet=quiet) as meter:
        for piece in pieces:
            records += piece
            meter.step(len(piece))
    return records


def _ordered(records: Sequence[ReplayRecord], plan: ReplayPlan, ids: Sequence[str]) -> list[ReplayRecord]:
    """In the order of the settings, then of the trajectories, whichever worker was first."""
    settings = {(s.policy, s.cache): n for n, s in enumerate(plan.settings)}
    places = {name: n for n, name in enumerate(ids)}
    return sorted(records, key=lambda r: (settings[r.policy, r.cache], places[r.trajectory]))


def _of(records: Sequence[ReplayRecord], row: Row) -> list[ReplayRecord]:
    return [r for r in records if (r.policy, r.cache, r.backend) == (row.policy, row.cache, row.backend)]


def _json(rows: Sequence[Row], buckets: dict[tuple[str, str], list[Bucket]], seconds: float) -> dict[str, object]:
    def listed(row: Row) -> list[dict[str, object]]:
        return [{name: getattr(b, name) for name in b.__slots__} for b in buckets[row.policy, row.cache]]

    return {"rows": [{**row.to_dict(), "by_turn": listed(row)} for row in rows], "seconds": round(seconds, 2)}


def _cache(name: str) -> Cache:
    for known in CACHES:
        if name == known:
            return known
    raise UsageError(f"unknown cache {name!r}; choose from {', '.join(CACHES)}")


def _ids(plan: ReplayPlan) -> list[str]:
    return [t.id for t in ReplayPlan(plan.files, plan.settings).trajectories()]


def _write(path: Path, records: Sequence[ReplayRecord]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as stream:
            stream.writelines(record.model_dump_json() + "\n" for record in records)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from None
