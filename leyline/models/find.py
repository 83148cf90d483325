"""From what a person names (a bundled model, a folder, a file) to a model folder, a tokenizer or a renderer."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from leyline.directives import LeylineError
from leyline.models import names, resolve, tokenizer_file
from leyline.rendering.render import Renderer
from leyline.rendering.renderer import TokenRenderer
from leyline.rendering.textrender import TextRenderer
from leyline.rendering.tokenizer import read_tokenizer


class ModelError(LeylineError):
    """No model has this name."""


def is_bundled(name: str) -> bool:
    """Whether a name means a bundled model: it is one's, and no folder of that name is there."""
    return name in names() and not Path(name).expanduser().is_dir()


def model_folder(name: str) -> Path:
    """A model folder by path, or a bundled model by name. Raises ModelError."""
    if is_bundled(name):
        return resolve(name)
    path = Path(name).expanduser()
    if not path.is_dir():
        raise ModelError(f"no model {name!r}; give a model folder, or one of the bundled {', '.join(names())}")
    if not (path / "config.json").is_file():
        raise ModelError(f"{path} has no config.json; give a Hugging Face model folder")
    return path


def find_tokenizer(source: str | Path | None = None) -> Tokenizer:
    """A tokenizer without a template.

    source: None for that of the bundled models, which is found without expanding one; a bundled model's name, a
    `tokenizer.json`, or a folder that has one. Raises ModelError, and RenderingError for a file that is no tokenizer.
    """
    if source is None or is_bundled(str(source)):
        return read_tokenizer(tokenizer_file())
    path = Path(source).expanduser()
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        known = ", ".join(names())
        raise ModelError(f"no tokenizer in {str(source)!r}: give a tokenizer.json, a model folder, or one of {known}")
    return read_tokenizer(file)


def load_renderer(source: str | Path | None = None) -> TokenRenderer:
    """A renderer for recordings.

    source: None for ChatML and the tokenizer of the bundled models; a `tokenizer.json` or a folder with one for ChatML
    and that tokenizer; a model folder that has a chat template, or a bundled model's name, for its own template.
    Raises LeylineError.
    """
    if source is not None and is_bundled(str(source)):
        return Renderer.from_dir(resolve(str(source)))
    path = Path(source or "").expanduser()
    if source is not None and (path / "tokenizer.json").is_file():
        try:
            return Renderer.from_dir(path)
        except LeylineError:  # no chat template, or none that can be read
            pass
    return TextRenderer(find_tokenizer(source))
