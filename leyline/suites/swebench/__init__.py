"""SWE-bench as a suite."""
