"""One request of the simulated cache: what hits, what is moved, what is computed, and what each directive gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from leyline.backends.acknowledge import forget_point, outcomes, refusal, unspliced
from leyline.backends.contract import TurnInput
from leyline.backends.simulated.radix import WIDTH, RadixCache, key_of, mark
from leyline.directives import Choice, Costs, EditScript, Fallback, Mode, Outcome, choose, reusable

DEFAULT_COSTS = Costs()
GENERATION_LIMIT = 32
"""How often the SGLang plugin moves one token's KV before it is prefilled again."""


@dataclass(frozen=True, slots=True)
class Served:
    """What a prompt found in the cache, in tokens; `runs` are the spliced ones as (start, end, delta).

    move_counts: how often each token's KV of the prompt and its output was moved. worn: tokens that were not moved
    because they had been moved as often as allowed. choice: what AUTO took. purged: tokens evicted. outcomes,
    fallback, detail: as of a receipt.
    """

    prompt: int
    prefix: int
    runs: tuple[tuple[int, int, int], ...] = ()
    lineage: str | None = None
    approximate_from: int | None = None
    move_counts: bytes = b""
    worn: int = 0
    choice: Choice | None = None
    outcomes: tuple[Outcome, ...] = ()
    fallback: Fallback | None = None
    detail: str | None = None
    purged: int | None = None

    @property
    def spliced(self) -> int:
        return sum(end - start for start, end, _ in self.runs)


@dataclass(frozen=True, slots=True)
class _Moves:
    """Runs to move as (start, end, delta) of the target, and what of the wanted ones is missing."""

    runs: tuple[tuple[int, int, int], ...] = ()
    wanted: tuple[int, ...] = ()
    worn: int = 0
    fallback: Fallback | None = None


def serve(
    cache: RadixCache,
    request: TurnInput,
    prompt: Sequence[int],
    output: Sequence[int],
    splice: bool,
    *,
    move_counts: bytes = b"",
    limit: int = GENERATION_LIMIT,
    chunk: int | None = None,
    costs: Costs = DEFAULT_COSTS,
) -> Served:
    """Serve one request and cache it with its output (without the stop token). Changes `cache`.

    With `splice` the request's directives are honoured by `EditScript.segments`: runs behind AMORTIZE edits are reused
    as far as the cache holds the source, and from the first such token on the cache entry is private to the lineage.
    Directives that do not lead to the prompt are refused, and the prompt is served honestly.

    move_counts: of the source's tokens, as the last `Served` gave them. limit: moves allowed for one token. chunk: as
    of `RadixCache.hold`. costs: of the server, for AUTO.
    """
    asked = request.script if splice else EditScript(())
    refused = refusal(prompt, request) if asked and not request.honest else None
    script = EditScript(()) if refused or request.honest else asked
    carried = splice and not refused and not request.honest
    lineage, start = (request.lineage, request.lineage_start) if carried else (None, None)
    forget = min((d.start for d in script if d.mode is Mode.FORGET), default=None)
    if start is not None and forget is not None and forget <= start:
        lineage = start = None
    key = tenant_key(prompt, output, request.tenant)
    last = max(0, len(prompt) - 1)  # the last token is always computed
    prefix = _prefix(cache, key[: last * WIDTH], lineage, start, forget_point(script))
    ages = bytearray(move_counts[:prefix].ljust(prefix, b"\0")) if lineage is not None else bytearray(prefix)
    ages.extend(bytes(len(prompt) + len(output) - prefix))
    moves = _moves(cache, request, script, prefix, last, move_counts, limit) if script else _Moves()
    runs, choice = moves.runs, None
    if script.chooses:
        choice, taken = choose(costs, prefix, len(prompt), reusable(script, runs))
        runs = tuple(run for run, moved in zip(runs, taken, strict=True) if moved)
    for first, stop, delta in runs:
        moved = move_counts[first - delta : stop - delta].ljust(stop - first, b"\0")
        ages[first:stop] = bytes(min(255, age + 1) for age in moved)
    if runs:
        start = runs[0][0] if start is None else min(start, runs[0][0])
        lineage = lineage or f"sim/{request.session_id}"
    cache.hold(mark(key, lineage, start), len(prompt), chunk=chunk)
    purged = None
    if request.purge and forget is not None and request.source is not None:
        purged = 0
        source = tenant_key(request.source, (), request.tenant)
        for branch in (source, mark(source, request.lineage, request.lineage_start)):
            purged += cache.purge(branch, forget, keep=mark(key, lineage, start))
    reach = runs[-1][1] if runs else prefix
    if start is None or start >= reach:
        lineage = start = None
    if refused:
        told: tuple[Outcome, ...] = (Outcome.PREFILLED,) * len(asked)
    elif script:
        told = outcomes(script, len(request.source or ()), moves.wanted, [first - delta for first, _, delta in runs])
    else:
        told = tuple(map(unspliced, asked))
    fallback, detail = refused or (moves.fallback, None)
    return Served(
        len(prompt), prefix, runs, lineage, start, bytes(ages), moves.worn, choice, told, fallback, detail, purged
    )


def tenant_key(prompt: Sequence[int], output: Sequence[int], tenant: str | None) -> bytes:
    """The key of a sequence; a tenant's is out of every other one's reach from the first token on."""
    key = key_of([*prompt, *output])
    return key if tenant is None else mark(key, f"tenant {tenant}", 0)


def _prefix(cache: RadixCache, key: bytes, lineage: str | None, start: int | None, forget: int | None) -> int:
    """Tokens that hit. Of a lineage's approximate part none from a FORGET on: it may have seen what is forgotten."""
    if lineage is None or forget is None:
        return cache.match(mark(key, lineage, start))
    return max(cache.match(key), min(cache.match(mark(key, lineage, start)), forget))


def _moves(
    cache: RadixCache,
    request: TurnInput,
    script: EditScript,
    prefix: int,
    last: int,
    move_counts: bytes,
    limit: int,
) -> _Moves:
    assert request.source is not None  # `refusal` saw to it
    source = tenant_key(request.source, (), request.tenant)
    held = cache.match(mark(source, request.lineage, request.lineage_start))
    runs: list[tuple[int, int, int]] = []
    wanted: list[int] = []
    worn = 0
    missing = short = False
    for segment in script.segments(len(request.source), seam=request.seam):
        begin, whole = max(segment.target_start, prefix), min(segment.target_end, last)
        if segment.kind != "reuse" or begin >= whole:
            continue
        wanted.append(begin - segment.delta)
        end = min(whole, held + segment.delta)
        missing = missing or held < (whole - segment.delta) // cache.page_size * cache.page_size
        for run in _young(begin, end, segment.delta, move_counts, limit):
            worn -= run[1] - run[0]
            first, stop = _whole_pages(*run, cache.page_size)
            if first < stop:
                runs.append((first, stop, segment.delta))
            else:
                short = True
        worn += max(0, end - begin)
    reasons = {Fallback.GENERATION_LIMIT: worn > 0, Fallback.DONOR_MISSING: missing, Fallback.PAGE_ALIGNMENT: short}
    return _Moves(tuple(runs), tuple(wanted), worn, next((reason for reason, is_so in reasons.items() if is_so), None))


def _young(begin: int, end: int, delta: int, move_counts: bytes, limit: int) -> list[tuple[int, int]]:
    """The parts of target `[begin, end)` whose source tokens, `delta` before, may be moved once more."""
    if end <= begin:
        return []
    ages = move_counts[begin - delta : end - delta].ljust(end - begin, b"\0")
    if max(ages) < limit:
        return [(begin, end)]
    parts: list[tuple[int, int]] = []
    first: int | None = None
    for at, age in enumerate([*ages, limit], begin):
        if age < limit and first is None:
            first = at
        elif age >= limit and first is not None:
            parts.append((first, at))
            first = None
    return parts


def _whole_pages(start: int, end: int, page: int) -> tuple[int, int]:
    return -(-start // page) * page, end // page * page
