"""Watches the topics of a running pipeline as a subscriber would: counts, latency, the latest of each."""

import time
from collections import Counter, deque
from typing import Any, Final

import orjson

from pipeline.codec import Record
from pipeline.runtime.reader import Reader

__all__ = ["WATCHED", "Monitor", "quantile"]

#: The topics that are watched record by record.
WATCHED: Final = (
    "activity.enriched",
    "contacts.enriched",
    "engagement.metrics",
    "statistics.posted",
    "dead-letters",
)

#: Latencies of the live view are of so many newest records.
_RECENT: Final = 2_000


class Monitor:
    """Counts of the watched topics; *first_s* are seconds since *begun*, *latencies* ms -> how many."""

    def __init__(self, reader: Reader, begun: float) -> None:
        self._reader = reader
        self._begun = begun
        self.counts: Counter[str] = Counter()
        self.latencies: Counter[int] = Counter()
        self.recent: deque[int] = deque(maxlen=_RECENT)
        self.first_s: dict[str, float] = {}
        self.last_metrics: dict[str, Any] = {}
        self.last_dead_letter: dict[str, str] = {}

    async def run(self) -> None:
        """Watch until cancelled."""
        await self._reader.forward()
        while True:
            now_ms = 0
            for record in await self._reader.poll():
                now_ms = now_ms or time.time_ns() // 1_000_000
                self._take(record, now_ms)

    def _take(self, record: Record, now_ms: int) -> None:
        topic = record.topic
        if topic not in self.first_s:
            self.first_s[topic] = time.monotonic() - self._begun
        self.counts[topic] += 1
        match topic:
            case "activity.enriched":
                latency = max(0, now_ms - record.timestamp)
                self.latencies[latency] += 1
                self.recent.append(latency)
            case "engagement.metrics" if record.value is not None:
                self.last_metrics = orjson.loads(record.value)
            case "dead-letters":
                told = {name: value.decode(errors="replace") for name, value in record.headers}
                self.last_dead_letter = {name[3:]: text for name, text in told.items() if name[:3] == "dl_"}
            case _:
                pass


def quantile(latencies: Counter[int], share: float) -> int | None:
    """The latency in ms that *share* of all stay at or below; None without any."""
    wanted = share * latencies.total()
    passed = 0
    for latency in sorted(latencies):
        passed += latencies[latency]
        if passed >= wanted:
            return latency
    return None
