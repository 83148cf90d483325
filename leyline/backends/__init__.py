"""Backends: what serves the model. `local` runs in process, `sglang` splices in a server, `openai` is any server."""
