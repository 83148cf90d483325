"""The plugin that splices in the cache of a stock SGLang server."""
