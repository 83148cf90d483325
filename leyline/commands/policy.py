"""`leyline policy list | show | test`: which policies there are, and what one does to a recorded trajectory."""

from __future__ import annotations

import inspect
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from leyline.commands.difftext import diff_lines, heading
from leyline.commands.rows import comparison
from leyline.commands.shape import Command, Group
from leyline.commands.sources import UsageError
from leyline.commands.terminal import say, status
from leyline.directives import JsonObject, Mode
from leyline.directives.counts import count
from leyline.evals.replay.dryrun import DryRun, DryTurn, ShownEdit, dry_run
from leyline.evals.replay.traces import pick_trajectory
from leyline.harness.trajectory import strict_json
from leyline.policies import list_policies, load_policy
from leyline.policies.loading import resolve
from leyline.policies.rule import RulePolicy
from leyline.rendering.textrender import TextRenderer

app = typer.Typer(
    cls=Group, help="List policies, show one, or test one on a recorded trajectory.", no_args_is_help=True
)


@app.command("list", cls=Command)
def list_(as_json: bool = typer.Option(False, "--json", help="Print a JSON list.")) -> None:
    """List every policy and combinator that can be named, plug-ins of installed packages included.

    Example: leyline policy list
    """
    found = list_policies()
    if as_json:
        say(json.dumps([asdict(info) for info in found]))
        return
    width = max(len(info.name) for info in found)
    for kind in dict.fromkeys(info.kind for info in found):
        say(f"{kind}:")
        for info in found:
            if info.kind == kind:
                say(f"  {info.name:<{width}}  {info.summary}")
    say("`leyline policy show NAME` tells the settings. A rule of your own is FILE.py:NAME or PACKAGE.MODULE:NAME.")


@app.command(cls=Command)
def show(name: str = typer.Argument(..., help="A name of the list, FILE.py:NAME, or a spec with settings.")) -> None:
    """Show a policy's settings with their defaults, and what it does.

    Example: leyline policy show truncate_older_than
    """
    target = name.split("(", 1)[0].strip()
    thing = resolve(target)
    function = thing.function if isinstance(thing, RulePolicy) else thing
    if "(" in name:
        say(load_policy(name))
    else:
        say(f"{target}{_signature(thing)}")
    text = inspect.getdoc(function if inspect.isroutine(function) or inspect.isclass(function) else type(function))
    say("\n" + (text or "It has no documentation."))


@app.command("test", cls=Command)
def try_(
    spec: str = typer.Argument(..., metavar="SPEC", help="A policy with its settings, or FILE.py:NAME."),
    trace: Path = typer.Option(
        ..., help="A recorded trajectory: a .jsonl or .jsonl.gz with `messages` in each line, or a file of `run --out`."
    ),
    index: int | None = typer.Option(None, min=0, help="Which trajectory of the file, from 0. [default: the first]"),
    id_: str | None = typer.Option(None, "--id", help="Which trajectory of the file, by its id."),
    mode: Mode = typer.Option(Mode.AMORTIZE, help="Contract of the edits, where the policy sets none."),
    tokenizer: Path | None = typer.Option(
        None, help="A tokenizer.json, or a model folder that has one, to count with. [default: the bundled model's]"
    ),
    lines: int = typer.Option(8, min=0, help="Lines of the diff shown for one edit; 0 shows none."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Show what a policy edits in a recorded trajectory, turn by turn, and what that does to the prompt cache.

    The prompts are the recorded ones: the answers that another context would have brought are not known. The cached
    prefix is what an ordinary prefix cache holds of a prompt; with splicing, what lies behind the edits counts too.

    Example: leyline policy test "truncate_older_than(n=2)" --trace trajectories.jsonl.gz --index 3
    """
    from leyline.models.find import find_tokenizer

    policy = load_policy(spec)
    recorded = pick_trajectory(trace, index=index, id=id_)
    renderer = TextRenderer(find_tokenizer(tokenizer))
    progress = _Counter()
    result = dry_run(policy, recorded.messages, renderer, mode=mode, on_turn=progress)
    kept = dry_run(load_policy("keep_all"), recorded.messages, renderer, on_turn=progress)
    progress.done()
    if not result.turns:
        raise UsageError(f"{trace}: trajectory {recorded.id} has no assistant message, so there is no turn to show")
    if as_json:
        shown = {"policy": spec, "mode": mode.value, "trajectory": recorded.id}
        told = {**shown, **_totals(result, kept), "per_turn": [_turn(turn) for turn in result.turns]}
        say(strict_json(told, ensure_ascii=True))
        return
    say(f"{spec} on {recorded.id}: {count(len(recorded.messages), 'message')}, {count(len(result.turns), 'turn')}")
    for turn in result.turns:
        say(_line(turn))
        for edit in turn.edits:
            say(f"    {heading(edit)}")
            for line in diff_lines(edit, lines):
                shade = {"-": typer.colors.RED, "+": typer.colors.GREEN}.get(line[:1])
                say(f"      {line}", colour=shade)
    say(_summary(result, kept))


def _signature(thing: Any) -> str:
    if isinstance(thing, RulePolicy):
        return f"({', '.join([*map(str, thing.parameters), 'mode=None'])})"
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        return ""
    plain = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=plain, return_annotation=signature.empty))


class _Counter:
    """The turn being replayed, on one line of a terminal; nothing elsewhere."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()

    def __call__(self, turn: int, turns: int) -> None:
        if self._shown:
            status(f"turn {turn + 1}/{turns}")

    def done(self) -> None:
        if self._shown:
            status("")


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _line(turn: DryTurn) -> str:
    prefix, spliced = _share(turn.prefix, turn.prompt), _share(turn.prefix + turn.spliced, turn.prompt)
    edits = f"  {count(len(turn.edits), 'new edit')}" if turn.edits else ""
    return (
        f"turn {turn.turn + 1:>3}  {turn.prompt:>7,} tokens ({turn.shed:,} shed)  "
        f"cached prefix {prefix:>4.0%}, with splicing {spliced:>4.0%}{edits}"
    )


def _totals(result: DryRun, kept: DryRun) -> JsonObject:
    prompt, prefix, spliced = result.total("prompt"), result.total("prefix"), result.total("spliced")
    return {
        "turns": len(result.turns),
        "edits": result.edits,
        "full_tokens": result.total("full"),
        "prompt_tokens": prompt,
        "shed_tokens": result.total("full") - prompt,
        "prefix_tokens": prefix,
        "spliced_tokens": spliced,
        "hit_rate_without_splicing": _share(prefix, prompt),
        "hit_rate_with_splicing": _share(prefix + spliced, prompt),
        "computed_keep_all": kept.total("prompt") - kept.total("prefix"),
        "computed_without_splicing": prompt - prefix,
        "computed_with_splicing": prompt - prefix - spliced,
    }


def _turn(turn: DryTurn) -> JsonObject:
    return {
        "turn": turn.turn,
        "full_tokens": turn.full,
        "prompt_tokens": turn.prompt,
        "shed_tokens": turn.shed,
        "prefix_tokens": turn.prefix,
        "spliced_tokens": turn.spliced,
        "hit_rate_without_splicing": _share(turn.prefix, turn.prompt),
        "hit_rate_with_splicing": _share(turn.prefix + turn.spliced, turn.prompt),
        "edits": [_edit(edit) for edit in turn.edits],
    }


def _edit(shown: ShownEdit) -> JsonObject:
    edit = shown.edit
    return {
        "message": edit.message_index,
        "insert": edit.insert,
        "mode": edit.mode.value,
        "before": shown.before,
        "after": edit.replacement,
    }


def _summary(result: DryRun, kept: DryRun) -> str:
    t = _totals(result, kept)
    edits, prompts = count(t["edits"], "edit"), count(t["turns"], "prompt")
    return (
        f"{edits}; over {prompts} {t['shed_tokens']:,} of {t['full_tokens']:,} tokens shed\n"
        f"cached prefix {t['hit_rate_without_splicing']:.1%} of {t['prompt_tokens']:,} prompt tokens; "
        f"with splicing {t['hit_rate_with_splicing']:.1%}\n"
        + comparison(t["computed_keep_all"], t["computed_without_splicing"], t["computed_with_splicing"])
    )
