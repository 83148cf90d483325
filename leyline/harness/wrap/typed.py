"""What a wrapped client is to a type checker: the client it was, with the `Editor` as `leyline`. Only checked."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from anthropic import Anthropic, AsyncAnthropic
from openai import AsyncOpenAI, OpenAI

from leyline.backends.contract import TokenRenderer
from leyline.directives import Mode
from leyline.harness.editor.editor import Editor


class WrapSettings(TypedDict, total=False):
    """The settings of `wrap` by name."""

    mode: Mode | str
    audit: bool
    renderer: TokenRenderer | None
    splice: bool
    seam: int
    honest: bool
    purge: bool
    max_conversations: int
    records: str | Path | None


class WrappedOpenAI(OpenAI):
    leyline: Editor


class WrappedAsyncOpenAI(AsyncOpenAI):
    leyline: Editor


class WrappedAnthropic(Anthropic):
    leyline: Editor


class WrappedAsyncAnthropic(AsyncAnthropic):
    leyline: Editor
