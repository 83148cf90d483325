"""Adapters: an edit policy at the extension points of other harnesses, each a thin layer on the `Editor`.

Nothing is imported here: each module needs its own harness.
"""
