"""Recorded trajectories through policy, cache and, if wanted, a real backend: what hits, what is spliced, what is left.

The recording fixes what the model said and saw, so a replay says nothing about solving the task; `leyline eval` does.
"""

from leyline._lazy import with_old_names
from leyline.evals.replay.by_policy import Bucket, Row, by_turn, summarise
from leyline.evals.replay.recorded import RecordedBackend
from leyline.evals.replay.replayed import FORMAT, ReplayError, ReplayRecord, read_records
from leyline.evals.replay.run import BUILTIN_POLICIES, ReplayPlan, run_plan
from leyline.evals.replay.traces import Recording, TraceError, iter_trajectories, load_trajectories
from leyline.evals.replay.walk import Setting, replay, replay_together

__all__ = [
    "BUILTIN_POLICIES",
    "FORMAT",
    "Bucket",
    "RecordedBackend",
    "Recording",
    "ReplayError",
    "ReplayPlan",
    "ReplayRecord",
    "Row",
    "Setting",
    "TraceError",
    "by_turn",
    "iter_trajectories",
    "load_trajectories",
    "read_records",
    "replay",
    "replay_together",
    "run_plan",
    "summarise",
]

__getattr__ = with_old_names(__name__, Plan="ReplayPlan", Trajectory="Recording")
