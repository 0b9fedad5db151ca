"""What the server counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

ENDPOINTS = ("/v1/audio/transcriptions", "/v1/rescore", "/v1/combine", "/v1/models")
SECONDS = (0.01, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)


class Metrics:
    """Counters of one server, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = into = CollectorRegistry()
        asked = ("endpoint", "status")
        self._requests = Counter("relisten_requests", "Requests.", asked, registry=into)
        self._seconds = Histogram(
            "relisten_request_seconds",
            "From the headers of a request to the end of its answer.",
            asked[:1],
            buckets=SECONDS,
            registry=into,
        )
        self._speech = Counter(
            "relisten_speech_seconds", "Seconds of audio transcribed.", registry=into
        )
        self._work = Counter("relisten_work_seconds", "Seconds of models at work.", registry=into)
        self._batches = Histogram(
            "relisten_batch_segments",
            "Segments worked on together.",
            buckets=(1, 2, 4, 8, 16),
            registry=into,
        )
        self._open = Gauge(
            "relisten_open_requests", "Requests worked on or waiting.", registry=into
        )
        self._backlog = Gauge(
            "relisten_backlog_seconds", "Estimated work that waits.", registry=into
        )

    def observe_request(self, path: str, status: int, took_s: float) -> None:
        """Count a request; those of the page are one endpoint."""
        endpoint = path if path in ENDPOINTS else "other"
        self._requests.labels(endpoint, str(status)).inc()
        self._seconds.labels(endpoint).observe(took_s)

    def observe_batch(self, n_segments: int, speech_s: float, took_s: float) -> None:
        """Count a batch of the engine."""
        self._batches.observe(n_segments)
        self._speech.inc(speech_s)
        self._work.inc(took_s)

    def text(self, n_open: int, backlog_s: float) -> bytes:
        """All of them, and how much is open now, in Prometheus' text format."""
        self._open.set(n_open)
        self._backlog.set(backlog_s)
        return generate_latest(self._registry)
