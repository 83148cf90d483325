"""Sessions: conversations whose edits stay."""

from leyline._moved import old_names

__getattr__ = old_names(__name__, "leyline.harness.session.session")
