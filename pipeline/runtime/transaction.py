"""
A task's transactional producer, and the one order in which a batch is committed.

begin → send every batch of records → gather every produce future → offsets → commit. aiokafka's
``commit_transaction`` ignores the results of the batches, hence the gathering. Any failure or timeout
makes the producer worthless: it is dropped, never aborted and reused. The transactional id names the
task, so starting the next producer fences this one and ends its open transaction.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    InvalidProducerEpoch,
    InvalidTimestampError,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerFenced,
    RecordListTooLargeError,
)

from pipeline.codec import Output
from pipeline.errors import BrokerError
from pipeline.runtime.closing import stop_producer
from pipeline.runtime.connection import Connection
from pipeline.runtime.pace import Pace

__all__ = ["FencedError", "RecordRefusedError", "TransactionalProducer", "broker_errors"]

#: Answers of the broker that speak of the records themselves: repeating them cannot help.
_ABOUT_RECORDS = (
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    InvalidTimestampError,
)

#: Answers to a producer that another one has replaced, or that overran its transaction's time.
_FENCED = (ProducerFenced, InvalidProducerEpoch)

Ends = dict[tuple[str, int], int]


class RecordRefusedError(BrokerError):
    """The broker refused a record of the batch for what it is."""


class FencedError(BrokerError):
    """Another producer has this task's id, or the transaction took too long."""


@contextmanager
def broker_errors(doing: str) -> Iterator[None]:
    """Turn what aiokafka raises while *doing* into `BrokerError`."""
    try:
        yield
    except BrokerError:
        raise
    except _ABOUT_RECORDS as error:
        raise RecordRefusedError(f"{doing}: {type(error).__name__}") from error
    except _FENCED as error:
        raise FencedError(f"{doing}: {type(error).__name__}") from error
    except (KafkaError, OSError, TimeoutError) as error:
        raise BrokerError(f"{doing}: {type(error).__name__}: {error}") from error
    except (AssertionError, ValueError, RuntimeError) as error:
        # aiokafka's way to say that a producer or consumer is in no state to do this any more
        raise BrokerError(f"{doing}: {type(error).__name__}: {error}") from error


class TransactionalProducer:
    """The producer of one task; *timeout_s* bounds each step of a commit."""

    def __init__(
        self, connection: Connection, transactional_id: str, group_id: str, timeout_s: float
    ) -> None:
        self._producer: AIOKafkaProducer = connection.producer(transactional_id)
        self._group_id = group_id
        self._timeout_s = timeout_s

    async def start(self) -> None:
        """
        Fence the former owner and end its open transaction.

        Raises:
            BrokerError: the cluster did not answer in time.
        """
        with broker_errors("starting a transactional producer"):
            async with asyncio.timeout(self._timeout_s):
                await self._producer.start()

    async def commit(self, outputs: Sequence[Output], offsets: Mapping[TopicPartition, int]) -> Ends:
        """
        Write *outputs* and commit *offsets* in one transaction.

        Returns:
            For every partition written to, the offset after its last record.

        Raises:
            RecordRefusedError: the broker refused one of the records.
            BrokerError: nothing is known of the outcome; drop this producer.
        """
        with broker_errors("committing a transaction"):
            async with asyncio.timeout(self._timeout_s):
                await self._producer.begin_transaction()
                ends = await self._send(outputs)
                if offsets:
                    await self._producer.send_offsets_to_transaction(dict(offsets), self._group_id)
                await self._producer.commit_transaction()
        return ends

    async def drop(self) -> None:
        """Give the producer up, whatever state it is in."""
        await stop_producer(self._producer)

    async def _send(self, outputs: Sequence[Output]) -> Ends:
        by_partition: dict[tuple[str, int], list[Output]] = {}
        for output in outputs:
            by_partition.setdefault((output.topic, output.partition), []).append(output)
        sent: list[tuple[tuple[str, int], int, asyncio.Future[Any]]] = []
        try:
            for place, records in by_partition.items():
                await self._send_to(place, records, sent)
            results = await asyncio.gather(*(future for _, _, future in sent))
        finally:
            for _, _, future in sent:
                future.cancel()  # after a failure nobody will look at the others
        return {
            place: metadata.offset + count
            for (place, count, _), metadata in zip(sent, results, strict=True)
            if metadata.offset >= 0  # a repeated batch that the broker knew already has none
        }

    async def _send_to(
        self,
        place: tuple[str, int],
        records: Sequence[Output],
        sent: list[tuple[tuple[str, int], int, asyncio.Future[Any]]],
    ) -> None:
        """Send *records* in batches, one after another: two pending ones to one partition race."""
        pace = Pace()
        builder = self._producer.create_batch()
        for record in records:
            if not _appended(builder, record):
                sent.append((place, builder.record_count(), await self._submitted(builder, place)))
                builder = self._producer.create_batch()
                _appended(builder, record)
            await pace.breathe()
        sent.append((place, builder.record_count(), await self._submitted(builder, place)))

    async def _submitted(self, builder: Any, place: tuple[str, int]) -> asyncio.Future[Any]:
        builder.close()
        future: asyncio.Future[Any] = await self._producer.send_batch(builder, place[0], partition=place[1])
        return future


def _appended(builder: Any, record: Output) -> bool:
    """Whether *record* still fitted into *builder*."""
    return (
        builder.append(timestamp=record.timestamp, key=record.key, value=record.value, headers=record.headers)
        is not None
    )
