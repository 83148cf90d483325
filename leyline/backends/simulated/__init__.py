"""A radix cache without an engine behind it: a backend that serves nothing but the accounting."""
