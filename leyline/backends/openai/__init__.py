"""Any OpenAI-compatible server, over chat completions."""
