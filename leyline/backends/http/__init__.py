"""What every backend over HTTP shares: server-sent events and the wording of what went wrong."""
