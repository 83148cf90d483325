"""The harness: sessions whose edits stay, the agent loop with its tools, trajectories, and the openai plug-in."""

from leyline.harness.agent import AgentResult, Event, Limits, run_agent
from leyline.harness.session.ledger import Ledger, LedgerError
from leyline.harness.session.session import Session, SessionTurn, Totals
from leyline.harness.trajectory import Trajectory, TrajectoryError, TrajectoryWriter, read_trajectory

__all__ = [
    "AgentResult",
    "Event",
    "Ledger",
    "LedgerError",
    "Limits",
    "Session",
    "SessionTurn",
    "Totals",
    "Trajectory",
    "TrajectoryError",
    "TrajectoryWriter",
    "read_trajectory",
    "run_agent",
]
