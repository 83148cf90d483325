"""The files an agent works on."""

from leyline._moved import old_names

__getattr__ = old_names(__name__, "leyline.harness.workspace.workspace", "leyline.harness.workspace.jail")
