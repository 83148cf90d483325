"""Settings for every test: no deadline for generated examples, and threads that do not spin while they wait."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts background jobs with SIGINT ignored, and children inherit that: Ctrl-C could not be tested.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Read when litellm is imported, which else asks the network for a list of prices.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

# Read when torch is imported. With several workers on few cores, spinning threads take ten times the processor time.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

settings.register_profile("leyline", deadline=None, print_blob=True)
settings.load_profile("leyline")
