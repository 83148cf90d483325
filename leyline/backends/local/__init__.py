"""A transformers causal LM in this process, with a prefix cache that can be edited. Needs `leyline-kv[local]`."""

from leyline.backends.local.backend import LocalBackend

__all__ = ["LocalBackend"]
