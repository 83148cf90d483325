"""From what a person names (a bundled model, a folder, a tokenizer file) to a model folder or a renderer."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from leyline.directives import LeylineError
from leyline.models import names, resolve, tokenizer_file
from leyline.rendering.render import Renderer
from leyline.rendering.renderer import TokenRenderer
from leyline.rendering.textrender import TextRenderer


class ModelError(LeylineError):
    """No model has this name."""


def load_renderer(source: str | Path | None = None) -> TokenRenderer:
    """A renderer for recordings.

    source: None for ChatML and the tokenizer of the bundled models; a `tokenizer.json` or a folder with one for ChatML
    and that tokenizer; a model folder that has a chat template, or a bundled model's name, for its own template.
    Raises LeylineError.
    """
    if source is None:
        return TextRenderer(_tokenizer(tokenizer_file()))
    path = Path(source).expanduser()
    if path.is_file():
        return TextRenderer(_tokenizer(path))
    if not path.exists() and str(source) in names():
        return Renderer.from_dir(resolve(str(source)))
    if not (path / "tokenizer.json").is_file():
        known = ", ".join(names())
        raise LeylineError(f"no tokenizer in {str(source)!r}: give a tokenizer.json, a model folder, or one of {known}")
    try:
        return Renderer.from_dir(path)
    except LeylineError:
        return TextRenderer(_tokenizer(path / "tokenizer.json"))


def _tokenizer(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise LeylineError(f"{path} is not a tokenizer.json: {' '.join(str(error).split())[:200]}") from None


def model_folder(name: str) -> Path:
    """A model folder by path, or a bundled model by name. Raises ModelError."""
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").exists():
            raise ModelError(f"{path} has no config.json; give a Hugging Face model folder")
        return path
    if name in names():
        return resolve(name)
    raise ModelError(f"no model {name!r}; give a model folder, or one of the bundled {', '.join(names())}")
