"""Reads topics as any subscriber would: read_committed, from the beginning or as they grow."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from pipeline.codec import Record
from pipeline.runtime.closing import stop_consumer, stop_producer
from pipeline.runtime.connection import Connection
from pipeline.runtime.transaction import broker_errors

__all__ = ["Reader", "reading", "warmed", "written"]

_POLL_MS = 200


class Reader:
    """A consumer without a group over *partitions* partitions of each of *topics*."""

    def __init__(self, consumer: AIOKafkaConsumer, places: list[TopicPartition]) -> None:
        self._consumer = consumer
        self._places = places
        self._ahead: list[Record] = []  # fetched by `everything` beyond its ends

    async def rewind(self) -> None:
        """Go to the beginning of everything."""
        self._ahead = []
        with broker_errors("rewinding"):
            await self._consumer.seek_to_beginning(*self._places)

    async def forward(self) -> None:
        """Go to the end of everything."""
        self._ahead = []
        with broker_errors("going to the end"):
            await self._consumer.seek_to_end(*self._places)

    async def ends(self) -> Mapping[str, int]:
        """The sum of the end offsets of each topic's partitions."""
        found: dict[str, int] = {}
        for place, end in (await self.limits()).items():
            found[place.topic] = found.get(place.topic, 0) + end
        return found

    async def poll(self) -> list[Record]:
        """What has come since the last call; waits a moment where nothing has."""
        if self._ahead:
            ahead, self._ahead = self._ahead, []
            return ahead
        return await self._fetched()

    async def _fetched(self) -> list[Record]:
        with broker_errors("fetching"):
            fetched = await self._consumer.getmany(timeout_ms=_POLL_MS)
        return [
            Record(place.topic, r.partition, r.offset, r.timestamp, r.key, r.value, r.headers)
            for place, records in fetched.items()
            for r in records
        ]

    async def limits(self) -> dict[TopicPartition, int]:
        """The end of each partition: what open transactions wrote does not count."""
        with broker_errors("reading end offsets"):
            async with asyncio.timeout(10):
                return dict(await self._consumer.end_offsets(self._places))

    async def everything(self, until: Mapping[TopicPartition, int] | None = None) -> AsyncIterator[Record]:
        """
        Every record from the beginning up to the ends as they are now, or to the offsets *until*.

        What is fetched beyond them is what `poll` gives next.
        """
        ends = await self.limits() if until is None else until
        await self.rewind()
        while await self._behind(ends):
            for record in await self._fetched():
                if record.offset < ends[TopicPartition(record.topic, record.partition)]:
                    yield record
                else:
                    self._ahead.append(record)

    async def _behind(self, ends: Mapping[TopicPartition, int]) -> bool:
        with broker_errors("reading positions"):
            positions = [(place, await self._consumer.position(place)) for place in self._places]
        return any(position < ends[place] for place, position in positions)


@asynccontextmanager
async def reading(connection: Connection, topics: Iterable[str], partitions: int) -> AsyncIterator[Reader]:
    """
    A reader of *topics*, until the end of the block.

    Raises:
        BrokerError: Kafka does not answer.
    """
    consumer = connection.reader()
    try:
        with broker_errors("connecting"):
            await consumer.start()
        places = [TopicPartition(topic, number) for topic in topics for number in range(partitions)]
        consumer.assign(places)
        yield Reader(consumer, places)
    finally:
        await stop_consumer(consumer)


async def written(connection: Connection, topic: str, partitions: int) -> dict[TopicPartition, int]:
    """
    The end of each of *partitions* of *topic*, what open transactions wrote included.

    Raises:
        BrokerError: Kafka does not answer.
    """
    consumer = AIOKafkaConsumer(**connection.common, enable_auto_commit=False)  # reads the uncommitted
    try:
        with broker_errors(f"reading the end of {topic}"):
            async with asyncio.timeout(10):
                await consumer.start()
                places = [TopicPartition(topic, number) for number in range(partitions)]
                return dict(await consumer.end_offsets(places))
    finally:
        await stop_consumer(consumer)


async def warmed(connection: Connection) -> None:
    """
    Let a fresh cluster make its coordinators' topics, which it does at the first group and transaction.

    Raises:
        BrokerError: Kafka does not answer.
    """
    producer = connection.producer("warm-up")
    client = AIOKafkaAdminClient(**connection.common)
    with broker_errors("warming up"):
        async with asyncio.timeout(30):
            await client.start()
            with suppress(GroupCoordinatorNotAvailableError):  # it is being made
                await client.find_coordinator("warm-up")
            await client.close()
            try:
                await producer.start()
            finally:
                await stop_producer(producer)
