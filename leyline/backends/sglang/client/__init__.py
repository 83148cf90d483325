"""The client of an SGLang server."""

from leyline._moved import old_names
from leyline.backends.sglang.client.tokenizer import find_renderer

__all__ = ["find_renderer"]

__getattr__ = old_names(__name__, "leyline.backends.sglang.client.backend", "leyline.backends.sglang.client.facts")
