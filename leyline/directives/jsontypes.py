"""Types of JSON: what may be written, and what was read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, Union

Json: TypeAlias = Union[bool, int, float, str, Sequence["Json"], Mapping[str, "Json"], None]  # noqa: UP007
"""Whatever `json.dumps` takes."""

JsonObject: TypeAlias = dict[str, Any]
"""An object as `json.loads` gives it. Its values are what the other side sent: look before you use one."""

JsonMapping: TypeAlias = Mapping[str, Any]
"""The same, to be read only."""
