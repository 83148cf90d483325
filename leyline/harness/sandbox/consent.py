"""Whether commands may run where nothing keeps them from a person's files: only if that person says so."""

from __future__ import annotations

import os

from leyline.harness.sandbox.isolation import NO_SANDBOX, isolation


def allow_unconfined() -> None:
    """Run commands without a sandbox, in this process and in those that it starts."""
    os.environ[NO_SANDBOX] = "1"
    isolation.cache_clear()


def refusal() -> str | None:
    """One line for a person where commands would not be confined and nobody has allowed that; else None."""
    found = isolation()
    if found.mounts or os.environ.get(NO_SANDBOX):
        return None
    return (
        f"this system does not keep an agent's commands from your files ({found.reason}): they could read your home, "
        "and what they print goes to the model; add --no-sandbox to run them all the same"
    )
