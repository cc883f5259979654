"""
How far live groups are behind, in seconds, and how much a job beside them slows down for it.

A group's lag in seconds is the time since its partition ended where the group has come to. That takes no
look at records: ends and committed offsets are sampled, and the samples remembered.
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import final

from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.runtime.admin import Admin
from pipeline.runtime.connection import Connection
from pipeline.runtime.transaction import broker_errors

__all__ = ["Lags", "LiveGroups", "Throttle"]

Ends = Mapping[tuple[str, int], int]

#: How often live groups are looked at, in seconds, and for how long that is remembered.
SAMPLE_S = 1.0
_REMEMBERED = 3_600

#: Behind a group's last record there may be the marks that end transactions: to be so few offsets from the
#: end is to have read all.
_MARKS = 2

#: Seconds that live groups may get further behind before a job slows down.
TOLERATED_S = 2.0

#: What the rate is multiplied by while they are further behind, and when they are not any more; the least
#: share of the rate that is left, so that a group that stands still for reasons of its own stops no job.
_SLOWER, _FASTER, _LEAST = 0.5, 1.25, 0.01


@final
class Lags:
    """The samples of what groups had committed, and where their partitions ended."""

    def __init__(self) -> None:
        self._ends: deque[tuple[float, Ends]] = deque(maxlen=_REMEMBERED)

    def largest(self, now_s: float, ends: Ends, committed: Sequence[Ends]) -> float:
        """The lag in seconds of whichever of *committed* is furthest behind *ends*, both of *now_s*."""
        self._ends.append((now_s, ends))
        return max((self._lag(now_s, ends, each) for each in committed), default=0.0)

    def _lag(self, now_s: float, ends: Ends, committed: Ends) -> float:
        behind = {place: at for place, at in committed.items() if ends.get(place, 0) - at > _MARKS}
        return max((now_s - self._reached(place, at) for place, at in behind.items()), default=0.0)

    def _reached(self, place: tuple[str, int], offset: int) -> float:
        """When *place* ended at *offset*, at the latest; as long as anybody remembers."""
        for at_s, ends in reversed(self._ends):
            if ends.get(place, 0) <= offset:
                return at_s
        return self._ends[0][0]


@final
class LiveGroups:
    """Looks at *groups* from time to time."""

    def __init__(self, connection: Connection, groups: Sequence[str]) -> None:
        self._groups = groups
        self._consumer: AIOKafkaConsumer = connection.reader()
        self._admin = Admin(connection.common)
        self._lags = Lags()

    async def lag_s(self) -> float:
        """
        How far the one furthest behind is.

        Raises:
            BrokerError: Kafka does not answer.
        """
        committed = [await self._admin.committed(group) for group in self._groups]
        places = [TopicPartition(*place) for place in sorted({place for each in committed for place in each})]
        with broker_errors("reading ends"):
            async with asyncio.timeout(10):
                ends = await self._consumer.end_offsets(places) if places else {}
        told = {(place.topic, place.partition): end for place, end in ends.items()}
        return self._lags.largest(time.monotonic(), told, committed)

    async def open(self) -> None:
        """Connect."""
        with broker_errors("connecting"):
            async with asyncio.timeout(30):
                await self._consumer.start()
        await self._admin.__aenter__()

    async def close(self) -> None:
        """Give the clients up."""
        await self._consumer.stop()
        await self._admin.__aexit__(None, None, None)


@final
class Throttle:
    """Lets at most *rate* records a second pass, and fewer while live groups get further behind."""

    def __init__(self, rate: float, live: LiveGroups | None = None) -> None:
        self.share = 1.0
        self.lag_s = 0.0
        self._rate = rate
        self._live = live
        self._baseline_s: float | None = None
        self._sampled_at = 0.0

    @property
    def per_s(self) -> float:
        """How many records a second may pass now."""
        return self._rate * self.share

    def adapt(self, lag_s: float) -> None:
        """Take in that live groups are *lag_s* behind; the first time says what is normal here."""
        if self._baseline_s is None:
            self._baseline_s = lag_s
        self.lag_s = lag_s
        is_behind = lag_s > self._baseline_s + TOLERATED_S
        self.share = max(_LEAST, self.share * _SLOWER) if is_behind else min(1.0, self.share * _FASTER)

    async def passed(self, records: int, since_s: float) -> None:
        """Return when *records* that began at *since_s* have taken as long as they must."""
        now = time.monotonic()
        if self._live is not None and now - self._sampled_at >= SAMPLE_S:
            self._sampled_at = now
            self.adapt(await self._live.lag_s())
        await asyncio.sleep(max(0.0, since_s + records / self.per_s - time.monotonic()))
