"""Reading a `tokenizer.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from leyline.rendering.errors import RenderingError


def tokenisable(value: Any) -> Any:
    """A text as a tokenizer takes it, or a value with such texts: half of a surrogate pair (undecodable bytes, a cut
    emoji) is a `?`.
    """
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {tokenisable(key): tokenisable(inner) for key, inner in value.items()}
    return [tokenisable(inner) for inner in value] if isinstance(value, list) else value


def read_tokenizer(file: Path) -> Tokenizer:
    """The tokenizer of a file. Raises RenderingError for a file that is none."""
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises a bare Exception
        raise RenderingError(f"{file} is no tokenizer: {' '.join(str(error).split())[:200]}") from None
