"""The client of an SGLang server."""
