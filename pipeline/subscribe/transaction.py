"""
Exactly once for subscribers who write to Kafka: outputs and offsets in one transaction.

A group's members are fenced by the transactional id of each partition, ``<group>.<topic>.<partition>``:
Kafka's own fencing by group generation is not in aiokafka. Whoever is assigned a partition starts the
producer of that id, which ends the former owner's open transaction and refuses its later ones; only then
the committed offset is read. So an id has to be the same in all members, and it is made from the group's
name.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, Self

import msgspec
from aiokafka import AIOKafkaProducer, TopicPartition

from pipeline.headers import Header
from pipeline.subscribe.closing import stop_producer
from pipeline.subscribe.cluster import Cluster, broker_errors

__all__ = ["Outgoing", "PartitionProducer", "Transaction", "Writer"]

#: Bound of each transaction, and of starting a producer, in seconds; less than Kafka gives it.
_BOUND_S = 12.0


class Outgoing(NamedTuple):
    """A record that a subscriber writes; its partition follows from the key as everywhere."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: list[Header]
    timestamp_ms: int | None = None


class Writer(Protocol):
    """Commits what a transaction holds, with the offsets of what is in hand."""

    async def __call__(self, outgoing: list[Outgoing]) -> bool:
        """Whether all of it is durable; if not, none of it is, and the records come again."""
        ...


class Transaction:
    """
    What is written for the records in hand; nothing leaves before the block ends without an exception.

    ``committed`` says afterwards whether it stands. If not (the partition was taken away, Kafka failed),
    nothing of it does, and the records are handed out again, here or to another member.
    """

    def __init__(self, write: Writer, trace: str) -> None:
        self.committed = False
        self._write = write
        self._trace = trace
        self._outgoing: list[Outgoing] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.committed = await self._write(self._outgoing)

    async def send(
        self,
        topic: str,
        *,
        key: str | bytes | None = None,
        value: Any,
        headers: Mapping[str, str] | None = None,
        timestamp_ms: int | None = None,
    ) -> None:
        """
        Write *value* to *topic*: bytes as they are, None as a tombstone, anything else as JSON.

        The record in hand hands its ``traceparent`` on, unless *headers* have one.
        """
        trace = {"traceparent": self._trace} if self._trace else {}
        texts = {**trace, **(headers or {})}
        raw = value if value is None or isinstance(value, bytes) else msgspec.json.encode(value)
        raw_key = key.encode() if isinstance(key, str) else key
        named = [(name, text.encode()) for name, text in texts.items()]
        self._outgoing.append(Outgoing(topic, raw_key, raw, named, timestamp_ms))


class PartitionProducer:
    """The transactional producer of one partition of a group."""

    def __init__(self, cluster: Cluster, group: str, place: TopicPartition) -> None:
        self._producer: AIOKafkaProducer = cluster.producer(f"{group}.{place.topic}.{place.partition}")
        self._group = group
        self._place = place

    async def start(self) -> None:
        """
        Fence the former owner and end its open transaction.

        Raises:
            BrokerError: the cluster did not answer in time.
        """
        with broker_errors("starting a transactional producer"):
            async with asyncio.timeout(_BOUND_S):
                await self._producer.start()

    async def commit(self, outgoing: list[Outgoing], end: int) -> None:
        """
        Write *outgoing* and commit offset *end* of the partition in one transaction.

        Raises:
            BrokerError: nothing is known of the outcome; drop this producer.
        """
        with broker_errors("committing a transaction"):
            async with asyncio.timeout(_BOUND_S):
                await self._producer.begin_transaction()
                # commit_transaction would ignore what became of the records
                await _delivered([await self._send(each) for each in outgoing])
                await self._producer.send_offsets_to_transaction({self._place: end}, self._group)
                await self._producer.commit_transaction()

    async def drop(self) -> None:
        """Give the producer up, whatever state it is in."""
        await stop_producer(self._producer)

    async def _send(self, one: Outgoing) -> asyncio.Future[Any]:
        sent: asyncio.Future[Any] = await self._producer.send(
            one.topic, one.value, one.key, headers=one.headers, timestamp_ms=one.timestamp_ms
        )
        return sent


async def _delivered(sent: list[asyncio.Future[Any]]) -> None:
    try:
        await asyncio.gather(*sent)
    finally:
        for future in sent:
            if not (future.cancel() or future.cancelled()):  # after a failure nobody looks at the others
                future.exception()
