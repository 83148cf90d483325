"""Statistics of paired trials clustered by task."""
