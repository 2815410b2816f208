"""What Prometheus reads at /metrics."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """One registry per app, so that two apps in one process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "seem_requests", "Requests by route, method and status.", ("route", "method", "status"),
            registry=self.registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "seem_request_seconds", "From a request's head to the end of its answer.", ("route",),
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.in_flight = Gauge("seem_requests_in_flight", "Requests being answered.", registry=self.registry)
        self.encodes = Counter(
            "seem_encodes",
            "Uploads: encoded, or known already; and windows of photos.",
            ("result",),
            registry=self.registry,
        )

    def watch(self, name: str, help: str, value: Callable[[], float]) -> None:
        """A number that is read when it is asked for."""
        Gauge(name, help, registry=self.registry).set_function(value)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
