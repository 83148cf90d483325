"""Sessions: conversations whose edits stay."""
