"""The tokenizer and chat template of a server's model, from a folder or from the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from leyline.backends.contract import BackendError
from leyline.rendering.render import Renderer

FILES = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "*.jinja", "additional_chat_templates/*"]


def find_renderer(source: str | Path) -> Renderer:
    """The renderer for a model folder, or for a model's name on the hub. Raises BackendError, and RenderingError
    for files that cannot be read.
    """
    if Path(source).is_dir():
        return Renderer.from_dir(source)
    if isinstance(source, Path) or source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise BackendError(
            f"the model's tokenizer is at {str(source)!r}, which is no folder on this machine; "
            "give a folder with the same tokenizer.json and chat template (--model)"
        )
    return Renderer.from_dir(_snapshot(source))


def _snapshot(name: str) -> str:
    """The folder of the hub's cache that holds the files; downloads them where they are missing."""
    from huggingface_hub import snapshot_download  # comes with tokenizers

    try:
        found = snapshot_download(name, allow_patterns=FILES, local_files_only=True)
        if (Path(found) / "tokenizer.json").is_file():
            return found
    except Exception:  # not in the cache; what the hub says is more telling
        pass
    try:
        return snapshot_download(name, allow_patterns=FILES)
    except Exception as error:  # the hub's client raises its own, httpx's and OS errors
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise BackendError(
            f"cannot get the tokenizer of {name!r} from the Hugging Face hub ({said}); "
            "give a folder with its tokenizer.json and chat template (--model)"
        ) from None
