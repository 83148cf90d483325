"""Trials: one (task, arm, seed) each, run, recorded and resumed."""
