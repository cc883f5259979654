"""What a process tells of itself, in Prometheus's terms; the names are documented in ``docs/metrics.md``."""

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from pipeline.codec import Places
from pipeline.headers import decoded
from pipeline.instants import Time, to_ms

__all__ = ["Latencies", "Metrics"]

_SECONDS = (0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0)
#: Records of a transaction and place at most whose latency is looked at.
_TIMED = 100
_RECORDS = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000)


class Latencies(Collector):
    """A histogram of seconds by topic that takes all records of a transaction at once."""

    def __init__(self, name: str, documentation: str, registry: CollectorRegistry) -> None:
        self._name = name
        self._documentation = documentation
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}
        registry.register(self)

    def observe(self, topic: str, now_ms: int, begun_ms: list[int], weight: int = 1) -> None:
        """Count for *topic* the times that passed until *now_ms* since each of *begun_ms*, *weight* times."""
        counts = self._counts.setdefault(topic, [0] * (len(_SECONDS) + 1))
        begun_ms.sort()
        above = len(begun_ms)
        for index, bound in enumerate(_SECONDS):
            older = bisect_left(begun_ms, now_ms - 1_000 * bound)
            counts[index] += weight * (above - older)
            above = older
        counts[-1] += weight * above
        passed_ms = weight * (len(begun_ms) * now_ms - sum(begun_ms))
        self._sums[topic] = self._sums.get(topic, 0.0) + passed_ms / 1000

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Give the registry what was counted."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=["topic"])
        for topic, counts in self._counts.items():
            family.add_metric([topic], self._buckets(counts), self._sums[topic])
        yield family

    @staticmethod
    def _buckets(counts: list[int]) -> list[tuple[str, float]]:
        bounds = [*map(str, _SECONDS), "+Inf"]
        return [(bound, float(sum(counts[: index + 1]))) for index, bound in enumerate(bounds)]


class Metrics:
    """All metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        task = ("stage", "partition")
        self.records = Counter("pipeline_records", "Input records committed", ("stage",), registry=r)
        self.outputs = Counter("pipeline_outputs", "Records written", ("topic",), registry=r)
        self.dead_letters = Counter(
            "pipeline_dead_letters", "Records dead-lettered", ("stage", "reason"), registry=r
        )
        self.transactions = Counter("pipeline_transactions", "Transactions committed", ("stage",), registry=r)
        self.transaction_seconds = Histogram(
            "pipeline_transaction_seconds", "Duration of a commit", ("stage",), buckets=_SECONDS, registry=r
        )
        self.batch_records = Histogram(
            "pipeline_batch_records", "Records in a transaction", ("stage",), buckets=_RECORDS, registry=r
        )
        self.output_latency = Latencies(
            "pipeline_output_latency_seconds",
            "From the receipt of the source record to the commit of what became of it",
            r,
        )
        self.event_delay = Gauge(
            "pipeline_event_delay_seconds",
            "From the event time of the newest record written to its commit",
            ("stage",),
            registry=r,
        )
        self.lag = Gauge("pipeline_lag_records", "Records not yet processed", task, registry=r)
        self.lag_seconds = Gauge(
            "pipeline_lag_seconds", "Age of the oldest record not yet processed", task, registry=r
        )
        self.lag_read = Gauge(
            "pipeline_lag_read_timestamp_seconds", "When the lag was last read", ("stage",), registry=r
        )
        self.inbox = Gauge(
            "pipeline_inbox_records", "Records fetched and not yet processed", task, registry=r
        )
        self.store_bytes = Gauge(
            "pipeline_store_bytes", "Size of the local store, on disk and in memory", task, registry=r
        )
        self.restore_records = Gauge("pipeline_restore_records", "Records restored", task, registry=r)
        self.restore_remaining = Gauge(
            "pipeline_restore_remaining", "Offsets still to pass", task, registry=r
        )
        self.restore_rate = Gauge(
            "pipeline_restore_records_per_second", "Rate of the restore in progress", task, registry=r
        )
        self.standby_lag = Gauge(
            "pipeline_standby_lag_records", "Offsets that a standby copy is behind", task, registry=r
        )
        self.rebuilds = Counter(
            "pipeline_task_rebuilds", "Sessions ended by a failure", ("stage",), registry=r
        )
        self.rebalances = Counter("pipeline_rebalances", "Assignments received", ("stage",), registry=r)
        self.idle = Gauge(
            "pipeline_watchdog_idle_seconds",
            "For how long a stage with work to do stands",
            ("stage",),
            registry=r,
        )
        self.rejoins = Counter(
            "pipeline_watchdog_rejoins", "Groups that were told to join anew", ("stage",), registry=r
        )
        self.loop_lag = Gauge("pipeline_loop_lag_seconds", "How late the event loop runs", registry=r)
        self.webhooks = Counter(
            "pipeline_webhooks", "Webhooks by product and answer", ("product", "status"), registry=r
        )
        self.requests = Counter(
            "pipeline_api_requests",
            "Requests to an API by outcome",
            ("api", "operation", "outcome"),
            registry=r,
        )

    def forget(self, stage: str, partition: int) -> None:
        """Show nothing of *partition* any more: another process has it now."""
        restore = (self.restore_records, self.restore_remaining, self.restore_rate)
        for gauge in (self.lag, self.lag_seconds, self.inbox, self.store_bytes, *restore):
            try:
                gauge.remove(stage, str(partition))
            except KeyError:
                continue  # there was nothing to show

    def written(self, stage: str, places: Places, now_ms: int) -> None:
        """Count what a transaction of *stage* wrote to *places*."""
        for (topic, _), records in places.items():
            self.outputs.labels(topic).inc(len(records))
            every = 1 + len(records) // _TIMED  # one in so many stands for them all
            self.output_latency.observe(topic, now_ms, [each[0] for each in records[::every]], every)
        if (occurred_ms := _event_time(places)) is not None:
            self.event_delay.labels(stage).set((now_ms - occurred_ms) / 1000)


def _event_time(places: Places) -> int | None:
    """When what the last output tells of happened, in ms since 1970; None where it does not say."""
    for (topic, _), records in places.items():
        text = next((value for name, value in decoded(records[-1][3]) if name == "ce_time"), b"")
        if text and topic != "dead-letters":
            with suppress(ValueError):
                return to_ms(Time(text.decode()))
    return None
