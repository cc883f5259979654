"""
Reads one topic from a time, an offset, its newest records, or its end on: committed records, without a group.

`Follower` keeps the order of each partition. What it reads is not changed, and nobody notices that it does.
"""

import asyncio
import heapq
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias, final

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.codec import Record
from pipeline.runtime.closing import stop_consumer
from pipeline.runtime.connection import Connection
from pipeline.runtime.transaction import broker_errors

__all__ = ["Follower", "Keep", "Lag", "following"]

_POLL_MS: Final = 200
_MOST: Final = 1_000
_TIMEOUT_S: Final = 30.0

#: Offsets of a partition that a search for the newest records goes back at first; then twice as many.
_BACK: Final = 200

#: Those of some records that are wanted.
Keep: TypeAlias = Callable[[Sequence[Record]], Awaitable[list[Record]]]


@final
class Lag(msgspec.Struct, frozen=True):
    """How far reading is behind: offsets still to be read, and the age of what was read last, in seconds."""

    records: int
    seconds: float


class Follower:
    """A consumer without a group over all partitions of one topic."""

    def __init__(self, consumer: AIOKafkaConsumer, places: list[TopicPartition]) -> None:
        self._consumer = consumer
        self._places = places
        self._read_ms = 0

    async def begins(self) -> dict[int, int]:
        """Partition -> offset of the first record that is kept."""
        async with _asking("reading the first offsets"):
            return _numbered(await self._consumer.beginning_offsets(self._places))

    async def ends(self) -> dict[int, int]:
        """Partition -> offset of the next record that will be committed."""
        async with _asking("reading the last offsets"):
            return _numbered(await self._consumer.end_offsets(self._places))

    async def at(self, timestamp_ms: int) -> dict[int, int]:
        """Partition -> offset of the first record that is not older than *timestamp_ms*, else the end."""
        async with _asking("looking up a time"):
            found = await self._consumer.offsets_for_times(dict.fromkeys(self._places, timestamp_ms))
        ends = await self.ends()
        return {place.partition: at.offset if at else ends[place.partition] for place, at in found.items()}

    def seek(self, offsets: Mapping[int, int]) -> None:
        """Read on from *offsets*; partitions that are not named are not read."""
        for place in self._places:
            if place.partition in offsets:
                self._consumer.seek(place, offsets[place.partition])
                self._consumer.resume(place)
            else:
                self._consumer.pause(place)

    async def poll(self) -> list[Record]:
        """What has come since the last call; waits a moment where nothing has."""
        with broker_errors("fetching"):
            fetched = await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=_MOST)
        found = [
            Record(place.topic, r.partition, r.offset, r.timestamp, r.key, r.value, r.headers)
            for place, records in fetched.items()
            for r in records
        ]
        if found:
            self._read_ms = max(record.timestamp for record in found)
        return found

    async def until(self, begins: Mapping[int, int], ends: Mapping[int, int]) -> AsyncIterator[list[Record]]:
        """Everything from *begins* up to *ends*, in pieces; some may be empty, while Kafka is slow."""
        open_ = {number: begin for number, begin in begins.items() if begin < ends[number]}
        self.seek(open_)
        while open_:
            yield [r for r in await self.poll() if r.partition in open_ and r.offset < ends[r.partition]]
            for place in self._places:
                number = place.partition
                if number in open_ and await self._position(place) >= ends[number]:
                    del open_[number]
                    self._consumer.pause(place)

    async def newest(self, count: int, keep: Keep, ends: Mapping[int, int]) -> AsyncIterator[list[Record]]:
        """
        The newest *count* before *ends* that *keep* keeps, by their timestamps; each partition in its order.

        Goes back until there are enough, at worst to the beginning, and holds at most twice as many a
        partition. They are the last piece that it gives; the empty ones before only let others do something.
        """
        begins, edges = await self.begins(), dict(ends)
        found: dict[int, deque[Record]] = {number: deque(maxlen=count) for number in edges}
        back = max(_BACK, count)
        while open_ := {n: e for n, e in edges.items() if e > begins[n] and len(found[n]) < count}:
            starts = {number: max(begins[number], edge - back) for number, edge in open_.items()}
            older: dict[int, deque[Record]] = {number: deque(maxlen=count) for number in open_}
            async for records in self.until(starts, open_):
                for record in await keep(records):
                    older[record.partition].append(record)
                yield []
            for number, earlier in older.items():
                earlier.extend(found[number])
                found[number] = earlier
            edges, back = edges | starts, back * 2
        merged = heapq.merge(*found.values(), key=lambda record: record.timestamp)
        yield list(deque(merged, maxlen=count))

    async def lag(self) -> Lag:
        """How far this is behind what is committed, as far as the last fetches told."""
        behind = 0
        for place in self._places:
            end = self._consumer.last_stable_offset(place)
            if end is not None and place not in self._consumer.paused():
                behind += max(0, end - await self._position(place))
        return Lag(behind, max(0.0, time.time() - self._read_ms / 1000) if behind and self._read_ms else 0.0)

    async def _position(self, place: TopicPartition) -> int:
        async with _asking("reading a position"):
            position: int = await self._consumer.position(place)
        return position


@asynccontextmanager
async def following(connection: Connection, topic: str, partitions: int) -> AsyncIterator[Follower]:
    """
    A follower of the *partitions* of *topic*, until the end of the block.

    Raises:
        BrokerError: Kafka does not answer.
    """
    consumer = connection.reader()
    try:
        async with _asking("connecting"):
            await consumer.start()
        places = [TopicPartition(topic, number) for number in range(partitions)]
        consumer.assign(places)
        yield Follower(consumer, places)
    finally:
        await stop_consumer(consumer)


@asynccontextmanager
async def _asking(what: str) -> AsyncIterator[None]:
    with broker_errors(what):
        async with asyncio.timeout(_TIMEOUT_S):
            yield


def _numbered(offsets: Mapping[Any, int]) -> dict[int, int]:
    return {place.partition: offset for place, offset in offsets.items()}
