"""Settings for every test: no deadline for generated examples, and threads that do not spin while they wait."""

from __future__ import annotations

import os

from hypothesis import settings

# Read when torch is imported. With several workers on few cores, spinning threads take ten times the processor time.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

settings.register_profile("leyline", deadline=None, print_blob=True)
settings.load_profile("leyline")
