"""The plugin's settings from the environment, checked before a server is started and again where they are used."""

from __future__ import annotations

from collections.abc import Mapping

from leyline.directives import LeylineError

LIMIT_VARIABLE = "LEYLINE_MAX_GENERATIONS"
DEFAULT_LIMIT = 32
"""0.24 % rms after 1 move, 0.76 % after 10, about 1.4 % after 32 in bf16."""
LARGEST_LIMIT = 255
"""What a counter holds."""
MOVER_VARIABLE = "LEYLINE_MOVER"
MOVERS = ("triton", "torch")


def move_limit(environ: Mapping[str, str]) -> int:
    """How often a token may be moved. Raises `LeylineError` unless it is a number that can be counted to."""
    text = environ.get(LIMIT_VARIABLE, str(DEFAULT_LIMIT))
    if not text.isascii() or not text.isdigit() or int(text) > LARGEST_LIMIT:
        raise LeylineError(f"{LIMIT_VARIABLE} is {text!r}; give a whole number from 0 to {LARGEST_LIMIT}")
    return int(text)


def mover_name(environ: Mapping[str, str], default: str) -> str:
    """What moves KV. Raises `LeylineError` unless it is one of MOVERS."""
    name = environ.get(MOVER_VARIABLE, default)
    if name not in MOVERS:
        raise LeylineError(f"{MOVER_VARIABLE} is {name!r}; give {' or '.join(MOVERS)}")
    return name
