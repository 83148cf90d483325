"""Digests of configurations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def config_digest(config: Mapping[str, Any]) -> str:
    """Sixteen hex digits over canonical JSON; equal configurations give equal digests on any machine."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
