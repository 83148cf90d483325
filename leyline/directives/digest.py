"""Digests of configurations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping


def config_digest(config: Mapping[str, object]) -> str:
    """Sixteen hex digits over canonical JSON; equal configurations give equal digests on any machine."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
