"""`leyline proxy`: edit histories between a harness and its model server, without a line of code."""

from __future__ import annotations

import ipaddress
import secrets
from importlib.util import find_spec
from pathlib import Path

import typer

from leyline.commands.terminal import say
from leyline.directives import LeylineError

TOKEN_VARIABLE = "LEYLINE_PROXY_TOKEN"


def proxy(
    upstream: str = typer.Option(
        ..., help="The model server's root, such as http://localhost:30000 or https://api.openai.com."
    ),
    policy: str = typer.Option("keep_all", help="What to edit: a policy by name, dotted path or file."),
    mode: str = typer.Option("amortize", help="The contract of edits: amortize, forget or auto."),
    host: str = typer.Option("127.0.0.1", help="Where to listen. Anything but this machine wants a token."),
    port: int = typer.Option(8484, min=0, max=65535, help="0 takes a free one."),
    token: str | None = typer.Option(
        None,
        envvar=TOKEN_VARIABLE,
        help="What callers send in X-Leyline-Token, or first in the base URL's path.",
    ),
    chat_upstream: bool = typer.Option(
        False,
        "--chat-upstream",
        help="The upstream speaks chat completions alone: Responses and messages are translated for it.",
    ),
    splice: bool | None = typer.Option(
        None,
        "--splice/--no-splice",
        help="Let the server find the edits and move its KV: where it announces Leyline's plug-in, unless said here.",
    ),
    audit: bool = typer.Option(False, "--audit", help="Edit nothing; /sessions and /metrics say what would be edited."),
    ledger: Path | None = typer.Option(None, help="SQLite file that keeps the edits over a restart."),
    records: Path | None = typer.Option(None, help="Write each request as a line to this file, for `leyline report`."),
    conversations: int = typer.Option(1024, min=1, help="How many are remembered; the least recently used goes first."),
    timeout: float = typer.Option(600.0, min=1, help="Seconds between two pieces of an answer."),
) -> None:
    """Put a policy in front of any server that speaks chat completions, Responses or Anthropic messages.

    Point the harness at http://127.0.0.1:8484 (with /v1 where it wants that); keys go through to the server and into no
    log. /healthz, /readyz, /metrics and /sessions tell how it goes.

    Example: leyline proxy --upstream http://localhost:30000 --policy "truncate_older_than(n=2, max_chars=200)"

    Example: leyline proxy --upstream https://api.anthropic.com --policy drop_stale --audit
    """
    if missing := [
        name for name in ("starlette", "uvicorn", "aiohttp", "prometheus_client") if find_spec(name) is None
    ]:
        raise LeylineError(f"the proxy needs {', '.join(missing)}; run: pip install 'leyline-kv[proxy]'")
    if not upstream.startswith(("http://", "https://")):
        raise LeylineError(f"--upstream {upstream!r} must have the form http://HOST:PORT")
    if token is None and not _is_loopback(host):
        raise LeylineError(
            f"--host {host} lets other machines in: give --token TEXT or set {TOKEN_VARIABLE}, such as "
            f"{secrets.token_urlsafe(16)}"
        )
    import uvicorn

    from leyline.harness.editor import Editor
    from leyline.harness.proxy import ProxySettings, SqliteStore, make_app

    store = SqliteStore(ledger) if ledger is not None else None
    editor = Editor(
        policy,
        mode=mode,
        audit=audit,
        max_conversations=conversations,
        store=store,
        records=records,
        splice=splice is not False,
        owner="proxy",
    )
    app = make_app(editor, ProxySettings(upstream, token, timeout, splice=splice, chat_upstream=chat_upstream))
    say(f"leyline: {editor.policy.name} in front of {upstream}; ledger: {ledger or 'in memory'}", err=True)
    # No access log: paths may carry the token.
    uvicorn.run(app, host=host, port=port, access_log=False, log_level="warning", timeout_graceful_shutdown=30)
    if store is not None:
        store.close()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
