"""From what a person names (a bundled model, a folder, a file) to a model folder, a tokenizer or a renderer."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from leyline.directives import LeylineError
from leyline.models import fetchable, names, resolve, tokenizer_file
from leyline.rendering.render import Renderer
from leyline.rendering.renderer import TokenRenderer
from leyline.rendering.textrender import TextRenderer
from leyline.rendering.tokenizer import read_tokenizer


class ModelError(LeylineError):
    """No model has this name."""


def is_bundled(name: str) -> bool:
    """Whether a name means a bundled model: it is one's, and no folder of that name is there."""
    return name in names() and not Path(name).expanduser().is_dir()


def is_named(name: str) -> bool:
    """Whether a name means a model that `resolve` knows, bundled or fetchable, and no folder of that name is there."""
    return name in (*names(), *fetchable()) and not Path(name).expanduser().is_dir()


def model_folder(name: str) -> Path:
    """A model folder by path, or a bundled or fetchable model by name. Raises ModelError, and PackError by a name."""
    if is_named(name):
        return resolve(name)
    path = Path(name).expanduser()
    if not path.is_dir():
        raise ModelError(f"no model {name!r}; give a model folder, or one of the bundled {_known()}")
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
    if is_named(str(source)):
        source = resolve(str(source))
    path = Path(source).expanduser()
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        hint = f"give a tokenizer.json, a model folder, or one of {_known()}"
        raise ModelError(f"no tokenizer in {str(source)!r}: {hint}")
    return read_tokenizer(file)


def load_renderer(source: str | Path | None = None) -> TokenRenderer:
    """A renderer for recordings.

    source: None for ChatML and the tokenizer of the bundled models; a `tokenizer.json` or a folder with one for ChatML
    and that tokenizer; a model folder that has a chat template, or a bundled model's name, for its own template.
    Raises LeylineError.
    """
    if source is not None and is_named(str(source)):
        return Renderer.from_dir(resolve(str(source)))
    path = Path(source or "").expanduser()
    if source is not None and (path / "tokenizer.json").is_file():
        try:
            return Renderer.from_dir(path)
        except LeylineError:  # no chat template, or none that can be read
            pass
    return TextRenderer(find_tokenizer(source))


def _known() -> str:
    return ", ".join((*names(), *fetchable()))
