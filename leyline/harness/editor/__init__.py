"""The editor: policies for a harness that makes its own requests."""

from leyline.harness.editor.account import EditorReport, EditorTurn
from leyline.harness.editor.editor import Editor
from leyline.harness.editor.plan import EditPlan, Origin

__all__ = ["EditPlan", "Editor", "EditorReport", "EditorTurn", "Origin"]
