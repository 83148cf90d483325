"""Rendering: from messages to the exact tokens a model reads, and from generated tokens back to messages."""
