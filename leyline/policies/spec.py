"""Specs: a policy written as text, such as `then(drop_stale, truncate_older_than(n=2))`.

A spec is a name, or a name with arguments that are literals or specs again. It is parsed, never evaluated.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from leyline.policies.errors import PolicyError

_STRING = re.compile(r"(?P<prefix>\b[rRbBuUfF]{1,2})?(?P<body>'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\")", re.S)
_ESCAPE = re.compile(r"\\(.)", re.S)


@dataclass(frozen=True, slots=True)
class Spec:
    """A parsed spec: what to load, and its arguments; those that are specs themselves are already loaded."""

    target: str
    args: tuple[Any, ...] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()
    called: bool = False


def split(text: str) -> tuple[str, str]:
    """The target of a spec and its arguments with their parentheses: `a.py:cut(n=1)` is `a.py:cut` and `(n=1)`."""
    text = text.strip()
    match = re.fullmatch(r"([^()]*?)\s*(\(.*\))?", text, re.S)
    if match is None or not match[1]:
        raise PolicyError(f"cannot read the policy {text!r}: write a name, or a name with arguments in parentheses")
    return match[1], match[2] or ""


def parse(text: str, load: Callable[[Spec], object]) -> Spec:
    """Read a spec; `load` turns the specs among its arguments into policies. Raises PolicyError."""
    target, arguments = split(text)
    if not arguments:
        return Spec(target)
    try:
        # The target may hold slashes and dots; only the arguments have to be Python.
        tree = ast.parse("f" + _STRING.sub(_keep_backslashes, arguments), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else type(error).__name__
        raise PolicyError(
            f"cannot read the arguments of {target}: {reason} in {arguments!r}; "
            f"write {target}(name=value, other='text')"
        ) from None
    call = tree.body
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
        raise PolicyError(f"cannot read {text!r}: write one policy, and join several with then(A, B)")
    return _spec(target, call, load)


def _spec(target: str, call: ast.Call, load: Callable[[Spec], object]) -> Spec:
    if any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords):
        raise PolicyError(f"{target}: * and ** are not allowed in a spec; write the arguments out")
    names = [k.arg for k in call.keywords]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise PolicyError(f"{target}: {repeated} is given twice; leave one out")
    args = tuple(_value(a, target, load) for a in call.args)
    kwargs = tuple((str(k.arg), _value(k.value, target, load)) for k in call.keywords)
    return Spec(target, args, kwargs, called=True)


def _value(node: ast.expr, target: str, load: Callable[[Spec], object]) -> Any:
    if isinstance(node, ast.Call):
        return load(_spec(_dotted(node.func, target), node, load))
    if isinstance(node, (ast.Name, ast.Attribute)):
        try:
            return load(Spec(_dotted(node, target)))
        except PolicyError as error:
            raise PolicyError(f"in {target}: {error}; if {ast.unparse(node)} is meant as text, quote it") from None
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError):
        raise PolicyError(
            f"{target}: {ast.unparse(node)} is neither a literal nor a policy; use numbers, 'text', lists and policies"
        ) from None


def _dotted(node: ast.expr, target: str) -> str:
    """`a.b.c` of a name or an attribute of a name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, target)}.{node.attr}"
    raise PolicyError(f"{target}: {ast.unparse(node)} is not the name of a policy")


def _keep_backslashes(match: re.Match[str]) -> str:
    """A string literal in which a backslash stays one, except in front of quotes, backslashes and line breaks.

    Python would read a pattern's word boundary as a backspace, and warn about its character classes.
    """
    prefix, body = match["prefix"] or "", match["body"]
    if "r" in prefix.lower():
        return match[0]
    return prefix + _ESCAPE.sub(lambda m: m[0] if m[1] in "\\'\"nrtxuU" else "\\" + m[0], body)
