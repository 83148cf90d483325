"""Chat templates as model makers write them: Jinja as transformers runs it, without transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from leyline.directives import Message
from leyline.rendering.errors import RenderingError
from leyline.rendering.normal import NullText, Parts, RawArguments


class ChatTemplate:
    """A compiled template. `variables` are the special tokens by name (`bos_token`, ...)."""

    def __init__(self, source: str, variables: Mapping[str, object]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        environment.tests["none"] = lambda value: value is None or isinstance(value, NullText)
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = _strftime_now
        self._variables = dict(variables)
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise RenderingError(f"the chat template is not valid Jinja: {_line(error)}") from error

    def render(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, object]] | None, *, add_generation_prompt: bool
    ) -> str:
        """The text of a conversation; messages as `normalise` gives them.

        Raises `RenderingError` when the template refuses the messages or leaves out a content that it cannot read.
        """
        mixed = {index: parts for index, m in enumerate(messages) if isinstance(parts := m.get("content"), Parts)}
        for parts in mixed.values():
            parts.read = False
        try:
            text = self._render(messages, tools, add_generation_prompt)
            unread = [index for index, parts in mixed.items() if parts.lost(text)]
        except RenderingError:
            if not mixed:
                raise
            unread = list(mixed)
        if not unread:
            return text
        # The template reads text only. What was said is rendered, thinking goes where templates look for it.
        plain = [mixed[i].flattened(m) if i in unread else m for i, m in enumerate(messages)]
        text = self._render(plain, tools, add_generation_prompt)
        for index in unread:
            if not mixed[index].thought:
                kinds = ", ".join(sorted(mixed[index].kinds()))
                raise RenderingError(
                    f"message {index} holds content parts ({kinds}) that the chat template does not read; give text"
                )
        return text

    def _render(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, object]] | None, add_generation_prompt: bool
    ) -> str:
        try:
            return self._template.render(
                messages=list(messages),
                tools=list(tools) if tools else None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._variables,
            )
        except (
            jinja2.TemplateError,
            TypeError,
            ValueError,
            KeyError,
            AttributeError,
            IndexError,
            ArithmeticError,
            RecursionError,
        ) as error:
            raise RenderingError(f"the chat template refuses these messages: {_line(error)}") from error


class _Generation(Extension):
    """`{% generation %}` marks assistant text for training; here its body is just rendered."""

    tags = {"generation"}  # noqa: RUF012 - the attribute as Jinja declares it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Any) -> str:
        return str(caller())


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    if isinstance(value, RawArguments) and indent is None and separators is None and not sort_keys:
        return value.raw
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
