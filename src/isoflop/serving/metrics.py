"""Counts and times of a server for Prometheus, by vLLM's names after `isoflop:`.

Not for logs. A server has a registry of its own, so that several fit into one process.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from isoflop.serving.costs import Promises
from isoflop.serving.engine import Engine
from isoflop.serving.request import Output

_SECONDS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The measurements of one server."""

    def __init__(self, engine: Engine, model_name: str, promises: Promises) -> None:
        self.registry = CollectorRegistry()
        self._name, self._engine, self._promises = model_name, engine, promises
        self.registry.register(_EngineLoad(engine, model_name))
        self.registry.register(_Foretold(promises, model_name))
        self._success = self._counter(
            "request_success", "Answers that ended, by reason", "finished_reason"
        )
        self._http = self._counter("http_requests", "Replies, by status", "status")
        self._first = self._histogram("time_to_first_token_seconds", "From request to first token")
        self._between = self._histogram(
            "inter_token_latency_seconds", "Between pieces of an answer"
        )
        self._whole = self._histogram("e2e_request_latency_seconds", "From request to last token")

    def _counter(self, name: str, words: str, *labels: str) -> Counter:
        return Counter(f"isoflop:{name}", words, ["model_name", *labels], registry=self.registry)

    def _histogram(self, name: str, words: str) -> Histogram:
        return Histogram(
            f"isoflop:{name}", words, ["model_name"], registry=self.registry, buckets=_SECONDS
        )

    def reply(self, status: int) -> None:
        """Note the status of a reply."""
        self._http.labels(self._name, str(status)).inc()

    def text(self) -> bytes:
        """All of it in Prometheus' text form."""
        return generate_latest(self.registry)

    def watch(self) -> Watch:
        """Begin to time a request."""
        return Watch(self)

    @property
    def full(self) -> bool:
        """Whether a request that comes now has to wait for its turn."""
        load = self._engine.load()
        return load.running + load.waiting >= self._engine.config.most_running

    def promised(self, tokens: int, since_start: float, since_last: float | None) -> None:
        """Note a piece of so many new tokens beside what was foretold of the load now."""
        load = len(self._engine.scheduler.running)
        self._promises.note(load, tokens, since_start, since_last)

    def note(self, output: Output, since_start: float, since_last: float | None) -> None:
        """Note a piece of an answer, with the seconds since the request and the piece before."""
        if since_last is None:
            self._first.labels(self._name).observe(since_start)
        else:
            self._between.labels(self._name).observe(since_last)
        if output.finish is not None:
            self._success.labels(self._name, output.finish).inc()
            self._whole.labels(self._name).observe(since_start)


class Watch:
    """Times the pieces of one request's answers."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics, self._start = metrics, time.perf_counter()
        self._waited = metrics.full
        self._last: dict[tuple[int, int], tuple[float, int]] = {}

    def see(self, place: int, output: Output) -> None:
        """Note a piece that has just come, of the request at that place."""
        now, which = time.perf_counter(), (place, output.choice)
        at, n_before = self._last.get(which, (None, 0))
        since = None if at is None else now - at
        tokens = output.n_new - n_before
        if since is not None or not self._waited:  # the wait for a turn is in no promise
            self._metrics.promised(tokens, now - self._start, since)
        self._metrics.note(output, now - self._start, since)
        self._last[which] = now, output.n_new


class _Foretold:
    """What was foretold of each load before the start, and what was measured since."""

    def __init__(self, promises: Promises, model_name: str) -> None:
        self._promises, self._name = promises, model_name

    def collect(self) -> Iterator[Metric]:
        """The metrics now; of what was measured, only what was seen often enough."""
        units = {
            "time_to_first_token": "_seconds", "inter_token_latency": "_seconds",
            "throughput": "_tokens_per_second",
        }  # fmt: skip
        measured = {(name, cost.load): value for name, cost, value in self._promises.measured()}
        for name, unit in units.items():
            told = self._gauge(f"predicted_{name}{unit}", "Foretold before the start, by load")
            seen = self._gauge(f"measured_{name}{unit}", "Mean since the start, by load")
            for cost in self._promises.costs:
                labels = [self._name, str(cost.load)]
                told.add_metric(labels, cost.value(name))
                if (name, cost.load) in measured:
                    seen.add_metric(labels, measured[name, cost.load])
            yield told
            yield seen

    def _gauge(self, name: str, words: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"isoflop:{name}", words, labels=["model_name", "load"])


class _EngineLoad:
    """The engine's own counts, read when they are asked for."""

    def __init__(self, engine: Engine, model_name: str) -> None:
        self._engine, self._name = engine, model_name

    def collect(self) -> Iterator[Metric]:
        """The metrics now."""
        load = self._engine.load()
        gauges = {
            "num_requests_running": ("Answers under way", load.running),
            "num_requests_waiting": ("Answers that wait", load.waiting),
            "kv_cache_usage_perc": ("Share of the cache held, 0 to 1",
                                    load.blocks_held / load.blocks),
        }  # fmt: skip
        counters = {
            "num_preemptions": ("Answers that gave their memory back", load.preempted),
            "prompt_tokens": ("Tokens of prompts", load.prompt_tokens),
            "generation_tokens": ("Tokens of answers", load.new_tokens),
            "prefix_cache_queries": ("Tokens looked up in the prefix cache", load.prompt_tokens),
            "prefix_cache_hits": ("Tokens found there", load.cached_tokens),
            "spec_decode_num_draft_tokens": ("Tokens guessed ahead", load.drafted),
            "spec_decode_num_accepted_tokens": ("Of them, those that were right", load.accepted),
        }
        for name, (words, value) in gauges.items():
            gauge = GaugeMetricFamily(f"isoflop:{name}", words, labels=["model_name"])
            gauge.add_metric([self._name], value)
            yield gauge
        for name, (words, count) in counters.items():
            counter = CounterMetricFamily(f"isoflop:{name}", words, labels=["model_name"])
            counter.add_metric([self._name], count)
            yield counter
