"""Prometheus metrics: requests, stages, batches, decisions and scores."""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from unalike.recognition.decision import UNKNOWN
from unalike.serve.batching import BatchReport

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SCORES = tuple(round(0.05 * step, 2) for step in range(-4, 21))
RECENT = 1000  # decisions of which the share of unknown images is told
# The folder that several processes share; prometheus_client reads it when it is imported.
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
DECODE, QUEUE, NETWORK, SEARCH = "decode", "queue", "network", "search"


@dataclass(frozen=True)
class StageTimes:
    """Times of a stage since the start.

    Attributes:
        count: number of times.
        mean_s: their mean, in seconds; None without any.
        buckets: (upper bound in seconds, number of times up to it), by bound; the last bound is infinite.
    """

    count: int
    mean_s: float | None
    buckets: tuple[tuple[float, int], ...]

    def quantile(self, share: float) -> float | None:
        """The time that a share of all does not exceed, in seconds, interpolated within its bucket; None without any.

        One beyond the last finite bound is told as that bound.
        """
        target, low, before = share * self.count, 0.0, 0
        for bound, count in self.buckets if self.count else ():
            if count >= target and count > before:
                return low if math.isinf(bound) else low + (bound - low) * (target - before) / (count - before)
            low, before = (low if math.isinf(bound) else bound), count
        return None


class Metrics:
    """The metrics of a service; any thread may add to them."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._is_shared = bool(os.environ.get(FOLDER_VARIABLE))
        self.registry = CollectorRegistry()
        settings: Any = {"registry": self.registry}
        self._requests = Counter(
            "unalike_requests", "Requests by route, method and status.", ("route", "method", "status"), **settings
        )
        self._request_seconds = Histogram(
            "unalike_request_seconds", "Time from the first byte of a request to the end of its answer.", ("route",),
            buckets=SECONDS, **settings,
        )  # fmt: skip
        stage_seconds = Histogram(
            "unalike_stage_seconds",
            "Time of each image in decode and queue, and of each batch in network and search (search: all that follows the "
            "network, with the record of the decision).",
            ("stage",), buckets=SECONDS, **settings,
        )  # fmt: skip
        self._stages = {stage: stage_seconds.labels(stage) for stage in (DECODE, QUEUE, NETWORK, SEARCH)}
        self._batch_images = Histogram(
            "unalike_batch_images", "Images of each call of a network.", buckets=IMAGES, **settings
        )
        self._decisions = Counter("unalike_decisions", "Decisions by kind.", ("resource", "decision"), **settings)
        self._scores = Histogram("unalike_score", "Score of each decision.", ("resource",), buckets=SCORES, **settings)
        self._unknown_share = Gauge(
            "unalike_unknown_share", f"Share of unknown images among the last {RECENT} identified.", ("resource",),
            multiprocess_mode="mostrecent", **settings,
        )  # fmt: skip
        self._shadow = Counter(
            "unalike_shadow_images", "Images sampled for the candidate that shadows a gallery: computed, dropped or failed.",
            ("gallery", "outcome"), **settings,
        )  # fmt: skip
        self._waiting = Gauge(
            "unalike_queue_images", "Images that wait for a network.", multiprocess_mode="livesum", **settings
        )
        self._vectors = Gauge(
            "unalike_gallery_images", "References of each gallery.", ("gallery",), multiprocess_mode="max", **settings
        )
        self._recent: dict[str, deque[bool]] = {}
        self._lock = threading.Lock()

    def add_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(route, method, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def add_shadow(self, gallery: str, outcome: str, count: int = 1) -> None:
        """Count images that were sampled for a shadow: ``computed``, ``dropped`` or ``failed``."""
        self._shadow.labels(gallery, outcome).inc(count)

    def add_decoding(self, seconds: float) -> None:
        """Add the decoding of one image."""
        self._stages[DECODE].observe(seconds)

    def add_batch(self, report: BatchReport) -> None:
        """Add a call of a network."""
        self._batch_images.observe(report.images)
        self._stages[NETWORK].observe(report.network_s)
        self._stages[SEARCH].observe(report.finish_s)
        for seconds in report.queue_s:
            self._stages[QUEUE].observe(seconds)

    def add_decision(self, resource: str, decision: str, score: float | None) -> None:
        """Count a decision."""
        self._decisions.labels(resource, decision).inc()
        if score is not None:
            self._scores.labels(resource).observe(score)
        with self._lock:
            recent = self._recent.setdefault(resource, deque(maxlen=RECENT))
            recent.append(decision == UNKNOWN)
            share = sum(recent) / len(recent) if len(recent) % 10 == 1 else None
        if share is not None:
            self._unknown_share.labels(resource).set(share)

    def render(self, waiting: int, gallery_images: Mapping[str, int]) -> bytes:
        """The text that Prometheus reads."""
        self._waiting.set(waiting)
        for name, count in gallery_images.items():
            self._vectors.labels(name).set(count)
        return generate_latest(self._readable())

    @property
    def is_shared(self) -> bool:
        """Whether what is read is that of all processes of this service on this machine."""
        return self._is_shared

    def stage_times(self) -> dict[str, StageTimes]:
        """The times of each stage since the start."""
        counts: dict[str, list[tuple[float, int]]] = {}
        sums: dict[str, float] = {}
        for sample in self._samples("unalike_stage_seconds"):
            stage = sample.labels.get("stage", "")
            if sample.name.endswith("_bucket"):
                counts.setdefault(stage, []).append((float(sample.labels["le"]), int(sample.value)))
            elif sample.name.endswith("_sum"):
                sums[stage] = sample.value
        times = {}
        for stage in (DECODE, QUEUE, NETWORK, SEARCH):
            buckets = tuple(sorted(counts.get(stage, [])))
            count = buckets[-1][1] if buckets else 0
            times[stage] = StageTimes(count, sums.get(stage, 0.0) / count if count else None, buckets)
        return times

    def status_counts(self) -> dict[int, int]:
        """Number of requests by the status of their answer, since the start."""
        counts: dict[int, int] = {}
        for sample in self._samples("unalike_requests"):
            if sample.name.endswith("_total"):
                status = int(sample.labels["status"])
                counts[status] = counts.get(status, 0) + int(sample.value)
        return counts

    def _samples(self, name: str) -> list[Any]:
        return [sample for family in self._readable().collect() if family.name == name for sample in family.samples]

    def _readable(self) -> CollectorRegistry:
        """What can be read: the metrics of this process, or of all that share a folder."""
        if not self._is_shared:
            return self.registry
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return registry
