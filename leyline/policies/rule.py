"""Rules: a policy as one function of one message, ten lines."""

from __future__ import annotations

import inspect
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal, overload

from leyline.directives import JsonMapping, Message, Mode
from leyline.directives.clone import clone
from leyline.policies.base import ChangePolicy, as_mode, literal
from leyline.policies.errors import PolicyError, nearest, one_line
from leyline.policies.reading.calls import Call, calls, observations


class _Drop(Enum):
    DROP = "DROP"

    def __repr__(self) -> str:
        return self.value


DROP: Final = _Drop.DROP
"""What a rule returns to remove the message. A call and its results go together."""

RuleFunction = Callable[..., Message | Literal[_Drop.DROP] | None]
ROLES = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class RuleContext:
    """What a rule may look at beside its message. Everything in it is a copy.

    index: place of the message in `messages`, the unedited history. turn: answers the model has given so far.
    newer_messages, newer_tool_messages: how many messages, and how many tool outputs, stand behind this one.
    call: the call that this output answers, or None; `tool_name`, `arguments` and `failed` are taken from it.
    """

    index: int
    turn: int
    messages: Sequence[Message]
    newer_messages: int
    newer_tool_messages: int
    call: Call | None

    @property
    def tool_name(self) -> str | None:
        return None if self.call is None else self.call.name

    @property
    def arguments(self) -> Mapping[str, object]:
        return {} if self.call is None else self.call.arguments

    @property
    def failed(self) -> bool:
        return self.call is not None and self.call.failed


@dataclass(frozen=True)
class RulePolicy(ChangePolicy):
    """A rule as a policy. Call it with settings to get one with other settings: `cut(max_chars=100)`.

    function: what `@rule` decorates. roles: which messages it is asked about; empty for all. In a history without tool
    calls `tool` means each user message but the first directly behind an assistant message, and `user` the others.
    """

    function: RuleFunction
    roles: tuple[str, ...] = ()
    settings: JsonMapping = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for role in self.roles:
            if role not in ROLES:
                raise PolicyError(f"{self.name}: unknown role {role!r};{nearest(role, ROLES)} Use {', '.join(ROLES)}")
        parameters = list(inspect.signature(self.function).parameters.values())
        variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        if len([p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]) < 2 and not variadic:
            raise PolicyError(f"{self.name}: a rule takes (message, ctx) and then settings, not ({_names(parameters)})")

    @property
    def name(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)

    @property
    def parameters(self) -> list[inspect.Parameter]:
        """The settings a rule takes: its parameters behind (message, ctx)."""
        found = list(inspect.signature(self.function).parameters.values())[2:]
        return [p for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]

    def __call__(self, *, mode: Mode | str | None = None, **settings: object) -> RulePolicy:
        """The same rule with these settings. Raises PolicyError for one it does not have."""
        known = [p.name for p in self.parameters]
        for name in settings:
            if name not in known:
                takes = ", ".join([*known, "mode"])
                raise PolicyError(f"{self.name}: no setting {name!r};{nearest(name, known)} It takes {takes}")
        own = self.mode if mode is None else as_mode(mode, self.name)
        return RulePolicy(self.function, self.roles, {**self.settings, **settings}, mode=own)

    def check_complete(self) -> None:
        """Raise PolicyError if a setting without a default is not set."""
        missing = [p.name for p in self.parameters if p.default is p.empty and p.name not in self.settings]
        if missing:
            raise PolicyError(f"{self.name}: needs {missing[0]}; write {self.name}({missing[0]}=...)")

    def changes(self, messages: Sequence[Message], turn: int) -> Mapping[int, Message | None]:
        self.check_complete()
        # The rule gets copies: whatever it does to them, the history stays.
        history = clone(list(messages))
        outputs = observations(history)
        is_output = set(outputs)
        answered = {call.result_index: call for call in calls(history)}
        changes: dict[int, Message | None] = {}
        for index, message in enumerate(messages):
            role = "tool" if index in is_output else message.get("role")
            if self.roles and role not in self.roles:
                continue
            newer = len(outputs) - bisect_right(outputs, index)
            call = answered.get(index)
            context = RuleContext(index, turn, history, len(messages) - 1 - index, newer, call)
            verdict = self._ask(clone(message), context)
            if verdict is not None:
                changes[index] = None if verdict is DROP else verdict
        return changes

    def _ask(self, message: Message, context: RuleContext) -> Message | Literal[_Drop.DROP] | None:
        try:
            verdict = self.function(message, context, **self.settings)
        except PolicyError:
            raise
        except (Exception, SystemExit) as error:
            raise PolicyError(f"rule {self.name} failed on message {context.index}: {one_line(error)}") from error
        if verdict is None or verdict is DROP or (isinstance(verdict, dict) and isinstance(verdict.get("role"), str)):
            return verdict
        raise PolicyError(
            f"rule {self.name} returned {type(verdict).__name__} for message {context.index}; "
            "return a message, DROP, or None to keep it"
        )

    def __str__(self) -> str:
        parts = [f"{name}={literal(value)}" for name, value in self.settings.items()]
        parts += [] if self.mode is None else [f"mode={literal(self.mode)}"]
        return f"{self.name}({', '.join(parts)})" if parts else self.name


@overload
def rule(function: RuleFunction, /) -> RulePolicy: ...


@overload
def rule(
    *, roles: str | Iterable[str] = (), mode: Mode | str | None = None
) -> Callable[[RuleFunction], RulePolicy]: ...


def rule(
    function: RuleFunction | None = None, /, *, roles: str | Iterable[str] = (), mode: Mode | str | None = None
) -> RulePolicy | Callable[[RuleFunction], RulePolicy]:
    """Make a policy of a function `(message, ctx, **settings)`.

    The function returns the new message, `DROP`, or None to keep the message as it is; it should be pure.

    Examples
    --------
    >>> @rule(roles="tool")
    ... def cut(message, ctx, max_chars: int = 200):
    ...     if ctx.newer_tool_messages >= 2:
    ...         return {**message, "content": message["content"][:max_chars]}
    >>> cut(max_chars=3).transform([{"role": "tool", "content": c} for c in ("first", "second", "third")], turn=3)[0]
    {'role': 'tool', 'content': 'fir'}
    """
    names = (roles,) if isinstance(roles, str) else tuple(roles)

    def make(function: RuleFunction) -> RulePolicy:
        name = getattr(function, "__name__", "rule")
        return RulePolicy(function, names, mode=None if mode is None else as_mode(mode, name))

    return make if function is None else make(function)


def _names(parameters: Sequence[inspect.Parameter]) -> str:
    return ", ".join(p.name for p in parameters)
