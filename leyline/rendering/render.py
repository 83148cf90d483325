"""From messages to the exact tokens that the model reads, with one token span a message.

Needs jinja2 and tokenizers only, so that a client without torch renders the same tokens as the server.
"""

from __future__ import annotations

import json
import os
import warnings
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer

from leyline.directives import Message, Rendered
from leyline.rendering.boundaries import BoundaryFinder
from leyline.rendering.errors import RenderingError
from leyline.rendering.normal import normalised
from leyline.rendering.served import takes_parts
from leyline.rendering.template import ChatTemplate
from leyline.rendering.tokenizer import read_tokenizer, tokenisable

SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
TOOL_TEMPLATE = "tool_use"


class RenderReport(NamedTuple):
    """What the deprecated `Renderer.report` gives."""

    rendered: Rendered
    text: str


@dataclass(frozen=True, slots=True)
class _Pin:
    start: int
    end: int
    ids: tuple[int, ...]


class Renderer:
    """Renders with a chat template and a fast tokenizer.

    chat_template: Jinja source, or sources by name (`default`, `tool_use`).
    special_tokens: what templates may print, by name (`bos_token`, ...).
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        chat_template: str | Mapping[str, str],
        special_tokens: Mapping[str, str] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.special_tokens = dict(special_tokens or {})
        sources = {"default": chat_template} if isinstance(chat_template, str) else dict(chat_template)
        if "default" not in sources:
            raise RenderingError(f"no default chat template among {', '.join(sorted(sources)) or 'none'}")
        templates = {name: ChatTemplate(source, self.special_tokens) for name, source in sources.items()}
        self._finders = {name: BoundaryFinder(template) for name, template in templates.items()}
        self.takes_parts = takes_parts(sources["default"])

    @classmethod
    def from_dir(cls, path: str | os.PathLike[str]) -> Renderer:
        """Read the tokenizer, its settings and the template of a model directory. Raises `RenderingError`."""
        directory = Path(path)
        file = directory / "tokenizer.json"
        if not file.is_file():
            raise RenderingError(f"no tokenizer in {str(path)!r}: tokenizer.json is missing; give a model directory")
        tokenizer = read_tokenizer(file)
        config = _read_json(directory / "tokenizer_config.json")
        tokens = {**_read_json(directory / "special_tokens_map.json"), **config}
        special = {name: text for name in SPECIAL_TOKENS if (text := _token_text(tokens.get(name))) is not None}
        return cls(tokenizer, _templates(directory, config), special)

    @property
    def eos_token_id(self) -> int | None:
        """The tokenizer's end-of-turn token, or None."""
        token = self.special_tokens.get("eos_token")
        found = None if token is None else self.tokenizer.token_to_id(token)
        return None if found is None else int(found)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, with no special tokens added; half of a surrogate pair counts as a `?`."""
        return list(self.tokenizer.encode(tokenisable(text), add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, special tokens included."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, object]] | None = None,
        pinned: Mapping[int, Sequence[int]] | None = None,
    ) -> Rendered:
        """The tokens of a conversation and the generation prompt. Raises `RenderingError`.

        pinned: the generated tokens of assistant messages, by index: they stand in the prompt as they are, if they
            spell the text that the template prints there; else that text is tokenised again. The text around them is
            tokenised by itself, as it was when they were generated behind it.
        """
        text, boundaries = self._find(messages, tools)
        pins: list[_Pin] = []
        for index, ids in sorted((pinned or {}).items()):
            if not 0 <= index < len(messages):
                raise RenderingError(f"message {index} is pinned, but there are {len(messages)} messages")
            start = boundaries[index - 1] if index else 0
            pin = self._locate(text, start, boundaries[index], boundaries[-1], tuple(ids))
            if pin is not None:
                pins.append(pin)
        ids, ends = self._tokenise(text, pins, boundaries)
        spans = tuple(zip([0, *ends[:-1]], ends, strict=True)) if ends else ()
        return Rendered(ids, spans)

    def text(self, messages: Sequence[Message], tools: Sequence[Mapping[str, object]] | None = None) -> str:
        """What `render` tokenises, where nothing is pinned. Raises `RenderingError`."""
        return self._find(messages, tools)[0]

    def report(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, object]] | None = None,
        pinned: Mapping[int, Sequence[int]] | None = None,
    ) -> RenderReport:
        """Deprecated: `render` and `text` in one."""
        warnings.warn("Renderer.report() is now render() and text()", DeprecationWarning, stacklevel=2)
        return RenderReport(self.render(messages, tools, pinned), self.text(messages, tools))

    def _find(self, messages: Sequence[Message], tools: Sequence[Mapping[str, object]] | None) -> tuple[str, list[int]]:
        """The text, and where each message ends in it."""
        finder = self._finders[TOOL_TEMPLATE if tools and TOOL_TEMPLATE in self._finders else "default"]
        text, boundaries = finder.find(normalised(messages), tools)
        try:
            text.encode()
        except UnicodeEncodeError as error:
            found = f"{error.reason} at character {error.start}"
            raise RenderingError(f"the messages hold text that is not valid Unicode ({found}); clean them") from None
        return text, boundaries

    def _locate(self, text: str, start: int, end: int, last: int, ids: tuple[int, ...]) -> _Pin | None:
        """Where the pinned tokens' text stands in a message: behind the generation prompt, else at its only place."""
        spelled = self.decode(ids)
        if not ids or not spelled:
            return None
        prompt = text[last:]
        at = start + len(prompt)
        if not (prompt and text.startswith(prompt, start) and text.startswith(spelled, at)):
            at = text.find(spelled, start, end)
            if at < 0 or text.find(spelled, at + 1, end) >= 0:
                return None
        return _Pin(at, at + len(spelled), ids) if at + len(spelled) <= end else None

    def _tokenise(
        self, text: str, pins: Sequence[_Pin], boundaries: Sequence[int]
    ) -> tuple[tuple[int, ...], list[int]]:
        """All tokens, and for each boundary how many of them start before it."""
        ids: list[int] = []
        starts: list[int] = []
        position = 0
        for pin in [*pins, None]:
            piece = text[position : pin.start if pin else len(text)]
            encoding = self.tokenizer.encode(piece, add_special_tokens=False)
            ids.extend(encoding.ids)
            starts.extend(position + start for start, _ in encoding.offsets)
            if pin:
                ids.extend(pin.ids)
                starts.extend([pin.start] * len(pin.ids))
                position = pin.end
        for k in range(1, len(starts)):
            starts[k] = max(starts[k], starts[k - 1])
        return tuple(ids), [bisect_left(starts, b) for b in boundaries]


def _templates(directory: Path, config: Mapping[str, object]) -> dict[str, str]:
    """Templates by name; files win over the entry of tokenizer_config.json, as in transformers."""
    found: dict[str, str] = {}
    entry = config.get("chat_template")
    if isinstance(entry, str):
        found["default"] = entry
    elif isinstance(entry, list):
        found.update((str(e["name"]), str(e["template"])) for e in entry)
    file = directory / "chat_template.jinja"
    if file.is_file():
        found["default"] = file.read_text(encoding="utf-8")
    for extra in sorted((directory / "additional_chat_templates").glob("*.jinja")):
        found[extra.stem] = extra.read_text(encoding="utf-8")
    if not found:
        raise RenderingError(
            f"no chat template in {str(directory)!r}; add a chat_template.jinja to the model directory"
        )
    return found


def _read_json(path: Path) -> dict[str, object]:
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RenderingError(f"cannot read {str(path)!r}: {error}") from error
    return data if isinstance(data, dict) else {}


def _token_text(value: object) -> str | None:
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) else None
