"""Folders in the format of debug-gym as tasks."""
