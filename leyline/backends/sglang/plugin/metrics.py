"""Prometheus counters beside SGLang's own (`--enable-metrics`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leyline.directives import JsonMapping

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class Metrics:
    """Counts receipts. Disabled, it does nothing.

    Made in the scheduler's process, where SGLang's own collectors live; `prometheus_client`'s multiprocess mode, which
    SGLang sets up, carries the values to the server's `/metrics`.
    """

    def __init__(self, enabled: bool, labels: Mapping[str, str] | None = None) -> None:
        self.enabled = enabled
        if not enabled:
            return
        from prometheus_client import Counter, Histogram

        self._labels = dict(labels or {})
        names = tuple(self._labels)
        self._requests = Counter("leyline_requests_total", "Finished requests that carried a leyline value.", names)
        self._directives = Counter(
            "leyline_directives_total", "Directives by what became of them.", (*names, "outcome")
        )
        self._tokens = Counter(
            "leyline_prompt_tokens_total",
            "Prompt tokens of requests that carried a leyline value, by source: prefix, spliced or prefilled.",
            (*names, "source"),
        )
        self._fallbacks = Counter("leyline_fallbacks_total", "Requests with a fallback, by reason.", (*names, "reason"))
        self._seconds = Histogram(
            "leyline_splice_seconds",
            "Time in the scheduler for one moved run: finding its donor and slots; the copy itself goes on behind it.",
            names,
            buckets=_SECONDS,
        )

    def count(self, receipt: JsonMapping) -> None:
        """Count one finished request's receipt."""
        if not self.enabled:
            return
        self._of(self._requests).inc()
        for outcome in receipt["acknowledged"]:
            self._of(self._directives, outcome=outcome).inc()
        for source in ("prefix", "spliced", "prefilled"):
            self._of(self._tokens, source=source).inc(receipt[f"{source}_tokens"])
        if receipt["fallback"] is not None:
            self._of(self._fallbacks, reason=receipt["fallback"]).inc()
        for splice in receipt["splices"]:
            self._of(self._seconds).observe(splice["seconds"])

    def _of(self, metric: Any, **labels: str) -> Any:
        labels = {**self._labels, **labels}
        return metric.labels(**labels) if labels else metric
