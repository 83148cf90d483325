"""Commands under limits."""

from leyline._moved import old_names

__getattr__ = old_names(
    __name__, "leyline.harness.sandbox.sandbox", "leyline.harness.sandbox.sandbox:CommandLimits:Limits"
)
