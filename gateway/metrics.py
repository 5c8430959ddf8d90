"""Every Prometheus object of the gateway.

Workers are processes: with PROMETHEUS_MULTIPROC_DIR set (as `llmgw gateway` does) each writes its values to files
there, and a scrape of any of them gives the sum.
Source: https://prometheus.github.io/client_python/multiprocess/
"""

import os
from bisect import bisect_right
from collections import Counter as Counts
from collections.abc import Iterable, Mapping
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

# Where an answer came from, as the cache saw it.
CacheOutcome = Literal["hit", "semantic", "shared", "miss"]
_Mode = Literal["livesum", "livemostrecent", "livemin", "livemax"]
_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class BatchHistogram(Histogram):
    """A histogram that takes many observations at once."""

    def observe_all(self, values: Iterable[float]) -> None:
        """Observes each of `values`, and writes each of its own values once."""
        ordered, below = sorted(values), 0
        for bucket, bound in zip(self._buckets, self._upper_bounds, strict=True):
            if (count := bisect_right(ordered, bound)) > below:
                bucket.inc(count - below)
                below = count
        self._sum.inc(sum(ordered))


class Metrics:
    """The metrics of one worker."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._of_requests()
        self._of_the_cache()
        self._of_engines()
        self.redis_up = self._gauge("llmgw_redis_up", "1 while Redis answers.", "livemostrecent")
        self.redis_parts = self._gauge(
            "llmgw_redis_in_use", "1 while this part of every worker works on Redis.", "livemin", "part"
        )

    def _of_requests(self) -> None:
        self.requests = self._counter("llmgw_requests", "Requests answered.", "door", "status", "tenant")
        self.request_seconds = self._seconds("llmgw_request_seconds", "From the request line to the last byte.")
        self.first_byte_seconds = self._seconds("llmgw_first_byte_seconds", "From the request line to the first byte.")
        self.in_flight = self._gauge("llmgw_requests_in_flight", "Open requests.", "livesum")
        self.disconnects = self._counter("llmgw_client_disconnects", "Requests whose client left before the end.")
        self.limits_alone = self._counter(
            "llmgw_limits_alone", "Requests whose limit a worker had to judge by itself, since Redis did not."
        )

    def _of_the_cache(self) -> None:
        answers = self._counter("llmgw_cache_answers", "Completions that the cache was asked for.", "cache")
        outcomes: tuple[CacheOutcome, ...] = get_args(CacheOutcome)
        self._cache_answers = {outcome: answers.labels(outcome) for outcome in outcomes}
        self._cache_noted = dict.fromkeys(self._cache_answers, 0)
        self.cache_bad_entries = self._counter("llmgw_cache_bad_entries", "Cache entries that could not be trusted.")
        self.semantic_failures = self._counter(
            "llmgw_semantic_failures", "Failures after which the semantic cache was off for a while."
        )

    def _of_engines(self) -> None:
        self.upstream_errors = self._counter("llmgw_upstream_errors", "Failed calls to a replica.", "model", "code")
        self.retries = self._counter("llmgw_retries", "Times an engine was asked after another had failed.", "model")
        self.resumes = self._counter("llmgw_resumes", "Broken streams that another replica went on with.", "model")
        self.fallbacks = self._counter("llmgw_fallbacks", "Requests that another model took.", "model", "fallback")
        self.replicas = self._gauge("llmgw_replicas", "Replicas known.", "livemostrecent", "model")
        self._left_out = self._gauge(
            "llmgw_replicas_left_out", "Replicas that are not asked, for they fail.", "livemax", "model"
        )
        self.waiting = self._gauge(
            "llmgw_requests_waiting", "Requests that wait for a model to start.", "livesum", "model"
        )
        self.queue_depth = self._gauge(
            "llmgw_queue_depth", "Requests that wait for a place at an engine.", "livesum", "model"
        )
        self.queue_refused = self._counter(
            "llmgw_queue_refused", "Requests that got no place at an engine.", "model", "reason"
        )
        self._queue_depths: dict[str, int] = {}
        self._refused_noted: Counts[tuple[str, str]] = Counts()
        self._models_seen: set[str] = set()
        self._models_failing: set[str] = set()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, mode: _Mode, *labels: str) -> Gauge:
        """`mode` is what the workers' values make together."""
        return Gauge(name, text, labels, registry=self.registry, multiprocess_mode=mode)

    def _seconds(self, name: str, text: str) -> BatchHistogram:
        return BatchHistogram(name, text, ["door"], buckets=_BUCKETS_S, registry=self.registry)

    def note_cache(self, outcome: CacheOutcome) -> None:
        """Counted by `write_noted`: a value that other processes can read costs a system call at each change."""
        self._cache_noted[outcome] += 1

    def note_waiting(self, model: str, depth: int) -> None:
        """Written by `write_noted`, as below."""
        self._queue_depths[model] = depth

    def note_refused(self, model: str, reason: Literal["full", "late"]) -> None:
        self._refused_noted[model, reason] += 1

    def write_noted(self) -> None:
        for outcome, count in self._cache_noted.items():
            if count:
                self._cache_answers[outcome].inc(count)
                self._cache_noted[outcome] = 0
        for model, depth in self._queue_depths.items():
            self.queue_depth.labels(model).set(depth)
        self._queue_depths.clear()
        for (model, reason), count in self._refused_noted.items():
            self.queue_refused.labels(model, reason).inc(count)
        self._refused_noted.clear()

    def replicas_changed(self, counts: Mapping[str, int]) -> None:
        for model in self._models_seen - counts.keys():
            self.replicas.labels(model).set(0)
        for model, count in counts.items():
            self.replicas.labels(model).set(count)
        self._models_seen |= counts.keys()

    def left_out_changed(self, counts: Mapping[str, int]) -> None:
        self._models_failing |= counts.keys()
        for model in self._models_failing:
            self._left_out.labels(model).set(counts.get(model, 0))

    def render(self) -> bytes:
        """The exposition text, summed over workers."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self.registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
