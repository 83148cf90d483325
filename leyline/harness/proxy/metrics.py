"""What a proxy counts, for Prometheus. A registry of its own: two proxies in one process do not mix."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from leyline.harness.editor import EditorTurn

_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.015, 0.03, 0.1, 0.3, 1.0)


class ProxyMetrics:
    """Counters of one proxy."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "leyline_proxy_requests", "Requests by dialect and status.", ("dialect", "status"), registry=self.registry
        )
        self.planning = Histogram(
            "leyline_proxy_planning_seconds", "Reading and editing a request.", buckets=_SECONDS, registry=self.registry
        )
        self.edits = Counter("leyline_proxy_edits", "New edits.", registry=self.registry)
        self.tokens = Counter(
            "leyline_proxy_prompt_tokens",
            "Prompt tokens by what the server did with them.",
            ("kind",),
            registry=self.registry,
        )
        self.active = Gauge("leyline_proxy_active", "Requests in flight.", registry=self.registry)

    def served(self, turn: EditorTurn) -> None:
        """Count a request whose response has ended."""
        self.edits.inc(turn.edits)
        if turn.prompt_tokens is None or turn.receipt is None:
            return
        receipt = turn.receipt
        self.tokens.labels("prefix").inc(receipt.prefix_tokens)
        self.tokens.labels("spliced").inc(receipt.spliced_tokens)
        self.tokens.labels("prefilled").inc(receipt.prefilled_tokens)

    def text(self) -> bytes:
        """The exposition format."""
        return bytes(generate_latest(self.registry))
