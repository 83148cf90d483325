"""`leyline bench`: measure a server."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import typer

from leyline.commands.shape import Command, Group
from leyline.commands.terminal import say

app = typer.Typer(cls=Group, no_args_is_help=True, help="Measure a server.", rich_markup_mode=None)

COSTS = "leyline-costs.json"


@app.callback()
def _bench() -> None:
    pass


@app.command("calibrate", cls=Command)
def calibrate(
    url: str = typer.Argument(..., help="An SGLang server, such as http://127.0.0.1:30000.", show_default=False),
    out: Path = typer.Option(Path(COSTS), help="File for the costs."),
    seconds: float = typer.Option(30.0, min=1.0, help="About how long to measure."),
    api_key: str | None = typer.Option(None, envvar="LEYLINE_API_KEY", help="The server's API key."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Measure what a forward pass, a prefilled and a moved token cost, and write it for AUTO and cost_aware.

    Nothing else should run on the server meanwhile. A server takes the file from LEYLINE_COSTS when it starts, and
    corrects it from its own passes; a policy takes it too: cost_aware(truncate_older_than, costs='leyline-costs.json').

    Example: leyline bench calibrate http://127.0.0.1:30000

    Example: leyline bench calibrate http://127.0.0.1:30000 --seconds 60 --out h200-llama.json
    """
    from leyline.backends.sglang.client.calibrate import calibrate as measure
    from leyline.backends.sglang.client.fit import spread
    from leyline.backends.sglang.client.server import Transport

    def tell(length: int) -> None:
        say(f"prompts of {length:,} tokens", err=True)

    transport = Transport(url, api_key=api_key, timeout=max(60.0, seconds), retries=1)
    try:
        found = measure(transport, seconds, (lambda _: None) if as_json or not sys.stderr.isatty() else tell)
    finally:
        transport.close()
    costs, samples = found.costs, found.samples
    evidence = {
        "model": found.server.model,
        "sglang": found.server.version,
        "url": url,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "seconds": round(found.seconds, 1),
        "measured_moves": found.moves,
        "spread": round(spread(samples, costs), 3),
        "samples": [asdict(sample) for sample in samples],
    }
    costs.save(out, **evidence)
    if as_json:
        say(json.dumps({"costs": asdict(costs), **{k: v for k, v in evidence.items() if k != "samples"}}))
        return
    lines = [
        ("forward pass", f"{1e3 * costs.forward:,.2f} ms"),
        ("prefill", f"{1e6 * costs.token:,.2f} us a token, {1e12 * costs.pair:,.1f} ps a pair of tokens"),
        ("hole between moves", f"{1e3 * costs.hole:,.2f} ms"),
        ("move", f"{1e3 * costs.move:,.2f} ms, {1e6 * costs.byte * costs.token_bytes:,.3f} us a token"),
        ("queue", f"{1e3 * costs.queue:,.2f} ms for each other request"),
    ]
    for name, value in lines:
        say(f"{name:<20} {value}")
    say(
        f"{len(samples)} requests up to {max(s.length for s in samples):,} tokens in {found.seconds:.0f} s; "
        f"half of them lie within {spread(samples, costs):.0%} of what these costs expect"
    )
    if not found.moves:
        say("the server moved nothing (no plugin, or it refuses): the costs of a move are a guess", err=True)
    say(f"written to {out}; start the server with LEYLINE_COSTS={out} to use them")
