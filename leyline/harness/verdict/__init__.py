"""Verdicts from files that the agent could not touch."""
