"""Commands under limits."""
