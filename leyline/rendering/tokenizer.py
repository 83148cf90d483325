"""Reading a `tokenizer.json`."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from leyline.rendering.errors import RenderingError


def read_tokenizer(file: Path) -> Tokenizer:
    """The tokenizer of a file. Raises RenderingError for a file that is none."""
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises a bare Exception
        raise RenderingError(f"{file} is no tokenizer: {' '.join(str(error).split())[:200]}") from None
