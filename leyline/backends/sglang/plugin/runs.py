"""From the wire to a plan: which runs of the prompt may be moved, from where, and under which marks. No torch here."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from leyline.backends.sglang.plugin.keys import MAX_MARKS, Keyring, LineageError, Mark, Space
from leyline.directives import Choice, EditScript, Fallback, Mode, Splice, WireError, WireRequest
from leyline.directives.wire import ACTION_TYPE

if TYPE_CHECKING:
    from leyline.backends.memory import Found
    from leyline.backends.sglang.plugin.ops import Hit

Find = Callable[[str, "array[int]", Mode], "Found"]
"""What is remembered of a session, and the edits that lead from it to a prompt under a mode."""

FIELD = "leyline"
HINTS_FIELD = "kv_hints"


class Run(NamedTuple):
    """Prompt tokens `[start, end)` that may take the KV of source tokens `[start - shift, end - shift)`.

    `start` is on a page bound; `directive` is the index of the directive before the run.
    """

    start: int
    end: int
    shift: int
    directive: int


class Donor(NamedTuple):
    """The cached path that runs are moved from; the first `honest` tokens of it are under no mark."""

    hit: Hit
    honest: int

    @property
    def length(self) -> int:
        return self.hit.length


class Refusal(NamedTuple):
    """Why something is served by honest prefill."""

    reason: Fallback
    detail: str


@dataclass
class Plan:
    """What one request asks of the cache, and what became of it so far.

    source: the sequence that the client says the server holds, rebuilt from the prompt and the removed tokens. runs:
    what may be moved, ascending. short: runs that hold no whole page before the prompt's last token, and are computed.
    marks: of the prompt's path; donor_marks: of the source's path. name: names the mark that the first moved token will
    carry. purge_from: evict the source's branch from this token on. purged: tokens evicted so. reach: how many source
    tokens the cache holds. donor: where they are, between the look-up and the admission that follows at once. kept:
    native hits, beside the splices. skipped, closed: no more moves in that run, or at all. session: what the request is
    remembered under; found: what was remembered, and the edits that it led to; told: the client told its edits itself.
    choice, chosen_at: what AUTO took, and when.
    """

    script: EditScript = field(default_factory=EditScript)
    source: array[int] = field(default_factory=lambda: array("q"))
    runs: tuple[Run, ...] = ()
    short: tuple[Run, ...] = ()
    marks: tuple[Mark, ...] = ()
    donor_marks: tuple[Mark, ...] = ()
    name: bytes = b""
    purge_from: int | None = None
    purged: int | None = None
    forget_at: int | None = None
    fallback: Fallback | None = None
    detail: str | None = None
    reach: int = 0
    donor: Donor | None = None
    kept: list[tuple[int, int]] = field(default_factory=list)
    splices: list[Splice] = field(default_factory=list)
    skipped: set[Run] = field(default_factory=set)
    closed: bool = False
    reported: bool = False
    session: str | None = None
    found: Found | None = None
    told: bool = True
    choice: Choice | None = None
    chosen_at: float = 0.0

    def refuse(self, reason: Fallback, detail: str) -> None:
        """Note why a run was prefilled; the first reason stands."""
        if self.fallback is None:
            self.fallback, self.detail = reason, detail

    def give_up(self, reason: Fallback, detail: str) -> None:
        """Move nothing more for this request."""
        self.refuse(reason, detail)
        self.closed = True

    def start_over(self) -> None:
        """A new admission decides anew: what an earlier one could not do may be possible now."""
        if self.runs and not self.closed:
            self.fallback = self.detail = None
            self.skipped.clear()
            self.choice = None

    def open_runs(self) -> Sequence[Run]:
        """The runs that may still be moved."""
        if self.closed:
            return ()
        return [run for run in self.runs if run not in self.skipped] if self.skipped else self.runs

    def usable_end(self, run: Run, page: int) -> int:
        """Where the run ends on a page bound, as far as the cache holds its source."""
        return min(run.end, self.reach + run.shift) // page * page

    def computed_from(self, position: int) -> int:
        """From where on behind `position` all that is computed was computed as the prompt's tail."""
        return max(position, max((splice.end for splice in self.splices), default=0))

    def potential(self, position: int, page: int) -> int:
        """How many tokens from `position` on the donors could still give."""
        return sum(max(0, self.usable_end(run, page) - max(run.start, position)) for run in self.open_runs())


def wire_value(custom_params: object) -> Any:
    """The leyline value of a request's `custom_params`, or None. Never raises."""
    if not isinstance(custom_params, Mapping):
        return None
    value = custom_params.get(FIELD)
    if value is None and custom_params.get(HINTS_FIELD) is not None:
        return {HINTS_FIELD: custom_params[HINTS_FIELD]}
    return value


def native_hints(envelope: object) -> Any:
    """The leyline value of a request's own `kv_hints` (SGLang 0.5.23), or None where it holds no `edit`. Never raises.

    Actions of other types belong to who knows them: an envelope of only such asks nothing here.
    """
    actions = getattr(envelope, "actions", None)
    if not isinstance(actions, Sequence):
        return None
    fields = ("action_id", "action_type", "action_version", "payload")
    edits = [{name: getattr(action, name, None) for name in fields} for action in actions]
    edits = [action for action in edits if action["action_type"] == ACTION_TYPE]
    return {HINTS_FIELD: {"actions": edits}} if edits else None


def read_request(value: object, max_tokens: int) -> WireRequest:
    """Parse the untrusted value. Raises `WireError` only.

    max_tokens: the server's context; a value that could not fit into it is refused before it is parsed.
    """
    if isinstance(value, str) and len(value) > 4096 + 48 * max_tokens:
        raise WireError(f"the request has {len(value)} characters for {max_tokens} tokens", reason=Fallback.TOO_LARGE)
    if isinstance(value, Mapping) and HINTS_FIELD in value:
        return WireRequest.from_kv_hints(value[HINTS_FIELD])
    if not isinstance(value, str | Mapping):
        raise WireError(f"the value is a {type(value).__name__}; it must be a JSON object or its text")
    return WireRequest.from_json(value)


def make_plan(
    value: object,
    prompt: array[int],
    space: Space,
    keyring: Keyring,
    *,
    page: int,
    max_tokens: int,
    find: Find | None = None,
) -> Plan:
    """The plan for one request. Never raises for what a client sent: a refused plan says why."""
    request, found, session, told = None, None, None, True
    try:
        request = read_request(value, max_tokens)
        session = request.session
        if session is not None and find is not None:
            found = find(session, prompt, request.allow or Mode.FORGET)
            if request.allow is not None:
                request, told = _with_found(request, found), False
        plan = _plan(request, prompt, space, keyring, page, max_tokens)
    except (WireError, LineageError) as error:
        plan = Plan(script=request.script if request is not None else EditScript())
        plan.refuse(error.reason if isinstance(error, WireError) else Fallback.LINEAGE_MISMATCH, str(error))
    plan.session, plan.found = session, found
    plan.told = told
    return plan


def _with_found(request: WireRequest, found: Found) -> WireRequest:
    """The request as if its client had sent the edits that were found: verified like any others."""
    held = found.held
    kept = held if held is not None and held.lineage is not None and not request.honest else None
    return WireRequest.build(
        found.script,
        held.ids if held is not None else (),
        lineage=kept.lineage if kept is not None else request.lineage or request.session,
        lineage_start=kept.lineage_start if kept is not None else None,
        seam=request.seam,
        honest=request.honest,
        purge=request.purge,
    )


def _plan(request: WireRequest, prompt: array[int], space: Space, keyring: Keyring, page: int, max_tokens: int) -> Plan:
    script = request.script
    source = request.source(prompt) if script else prompt
    if len(source) > 2 * max_tokens:
        raise WireError(
            f"the source has {len(source)} tokens; the bound is {2 * max_tokens}", reason=Fallback.TOO_LARGE
        )
    plan = Plan(script=script, source=source)
    held = _held_marks(request, space, keyring)
    first = script.directives[0].start if script else len(source)
    shifts = list(accumulate((d.delta for d in script), initial=0))
    forget = next((i for i, d in enumerate(script) if d.mode is Mode.FORGET), None)
    if forget is not None:
        plan.forget_at = script.directives[forget].start + shifts[forget]
        if request.purge:
            plan.purge_from = script.directives[forget].start
    if request.honest:
        plan.donor_marks = held
        return plan
    edits = repr([request.seam, *((d.start, d.end, d.replacement, str(d.mode)) for d in script)]).encode()
    # Behind the last edit the path's own tokens tell sources apart: leaving them out of the name lets a turn with a
    # longer tail find what the same edits moved before, such as a prewarmed prompt.
    end = script.directives[-1].end if script else len(source)
    edited = memoryview(source).cast("B")[: end * source.itemsize] if source else b""  # 200 kB that need no copy
    plan.name = keyring.name((request.lineage or "").encode(), edits, edited)
    plan.donor_marks = held
    plan.marks = tuple(mark for mark in held if mark.position < first)
    # A mark that the edit takes away may be a FORGET's: without one in its place, an older path of the lineage could be
    # hit, computed while the forgotten span was visible.
    private = first if len(plan.marks) < len(held) else plan.forget_at
    if plan.marks and private is not None:
        plan.marks = _private(plan.marks, private, plan.name)
    runs = _runs(request, len(source), len(prompt) - 1, page)
    plan.runs = tuple(run for run in runs if run.start + page <= min(run.end, len(prompt) - 1))
    plan.short = tuple(run for run in runs if run.start + page > min(run.end, len(prompt) - 1))
    return plan


def _held_marks(request: WireRequest, space: Space, keyring: Keyring) -> tuple[Mark, ...]:
    """The marks on the source's path. A lineage without a start is a new one: its text only goes into the name."""
    if request.lineage is None or request.lineage_start is None:
        return ()
    marks = keyring.open(request.lineage, space)
    if marks[0].position != request.lineage_start:
        raise LineageError(f"the lineage starts at {marks[0].position}, not at {request.lineage_start}")
    return marks


def _private(kept: tuple[Mark, ...], position: int, name: bytes) -> tuple[Mark, ...]:
    """Part from the lineage's older paths at `position`; a full list is shortened by doing so at its second mark."""
    if len(kept) < MAX_MARKS:
        return (*kept, Mark(position, name))
    return (kept[0], Mark(kept[1].position, name))


def _runs(request: WireRequest, source_len: int, limit: int, page: int) -> tuple[Run, ...]:
    """The moved runs, cut to start on page bounds: one of no whole page may end before it starts.

    limit: the prompt's last token, which is always computed; a run that starts there holds nothing to move.
    """
    runs = []
    ends = [d.end for d in request.script]
    index = 0
    for segment in request.script.segments(source_len, seam=request.seam):
        if segment.kind != "reuse" or segment.source_start is None or segment.target_start >= limit:
            continue
        while index + 1 < len(ends) and ends[index + 1] <= segment.source_start:
            index += 1
        start = -(-segment.target_start // page) * page
        runs.append(Run(start, segment.target_end, segment.delta, index))
    return tuple(runs)
