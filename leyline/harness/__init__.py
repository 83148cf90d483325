"""The harness: sessions whose edits stay, the agent loop with its tools, trajectories, and what plugs in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leyline._lazy import lazily

if TYPE_CHECKING:
    from leyline.harness.agent import AgentResult, Event, Limits, run_agent
    from leyline.harness.editor import Editor, EditorReport, EditorTurn, EditPlan, Origin
    from leyline.harness.sandbox.sandbox import CommandLimits, HarnessError, Sandbox, SandboxError
    from leyline.harness.session.inputs import InputError
    from leyline.harness.session.ledger import Ledger
    from leyline.harness.session.pins import LedgerError
    from leyline.harness.session.session import Session, SessionTurn
    from leyline.harness.session.totals import Totals
    from leyline.harness.tasks import FilesTask
    from leyline.harness.tools import DEFAULT_TOOLS, TOOLS, Evaluation, Tool, ToolBox, ToolError, ToolResult
    from leyline.harness.trajectory import Trajectory, TrajectoryError, TrajectoryWriter, read_trajectory
    from leyline.harness.workspace.jail import NoFileError, WorkspaceError
    from leyline.harness.workspace.workspace import DiskWorkspace, MemoryWorkspace, Workspace
    from leyline.harness.wrap import WrapError, WrapReport, WrapTurn
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "leyline.harness.agent": "AgentResult Event Limits run_agent",
            "leyline.harness.editor": "EditPlan Editor EditorReport EditorTurn Origin",
            "leyline.harness.sandbox.sandbox": "CommandLimits HarnessError Sandbox SandboxError",
            "leyline.harness.session.inputs": "InputError",
            "leyline.harness.session.ledger": "Ledger",
            "leyline.harness.session.pins": "LedgerError",
            "leyline.harness.session.session": "Session SessionTurn",
            "leyline.harness.session.totals": "Totals",
            "leyline.harness.tasks": "FilesTask",
            "leyline.harness.tools": "DEFAULT_TOOLS TOOLS Evaluation Tool ToolBox ToolError ToolResult",
            "leyline.harness.trajectory": "Trajectory TrajectoryError TrajectoryWriter read_trajectory",
            "leyline.harness.workspace.jail": "NoFileError WorkspaceError",
            "leyline.harness.workspace.workspace": "DiskWorkspace MemoryWorkspace Workspace",
            "leyline.harness.wrap": "WrapError WrapReport WrapTurn",
        },
    )

__all__ = [
    "DEFAULT_TOOLS",
    "TOOLS",
    "AgentResult",
    "CommandLimits",
    "DiskWorkspace",
    "EditPlan",
    "Editor",
    "EditorReport",
    "EditorTurn",
    "Evaluation",
    "Event",
    "FilesTask",
    "HarnessError",
    "InputError",
    "Ledger",
    "LedgerError",
    "Limits",
    "MemoryWorkspace",
    "NoFileError",
    "Origin",
    "Sandbox",
    "SandboxError",
    "Session",
    "SessionTurn",
    "Tool",
    "ToolBox",
    "ToolError",
    "ToolResult",
    "Totals",
    "Trajectory",
    "TrajectoryError",
    "TrajectoryWriter",
    "Workspace",
    "WorkspaceError",
    "WrapError",
    "WrapReport",
    "WrapTurn",
    "read_trajectory",
    "run_agent",
]
