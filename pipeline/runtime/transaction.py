"""
A task's transactional producer, and the one order in which a batch is committed.

begin → send every batch of records → gather every produce future → offsets → commit. aiokafka's
``commit_transaction`` ignores the results of the batches, hence the gathering. The offsets could go beside
the records, but a broker refuses records (NotEnoughReplicas, to be tried again) while the coordinator is
busy with the same transaction. Any failure or timeout makes the producer worthless: it is dropped, never
aborted and reused. The transactional id names the task, so starting the next producer fences this one and
ends its open transaction.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    ConsumerStoppedError,
    IllegalOperation,
    InvalidProducerEpoch,
    InvalidTimestampError,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerFenced,
    RecordListTooLargeError,
)

from pipeline.codec import Places, Sent
from pipeline.errors import BrokerError
from pipeline.headers import NO_HEADERS
from pipeline.runtime.closing import stop_producer
from pipeline.runtime.connection import MAX_BATCH_BYTES, Connection
from pipeline.runtime.pace import Pace
from pipeline.runtime.record_batch import RecordBatch, batches

__all__ = ["BARRIER", "FencedError", "RecordRefusedError", "TransactionalProducer", "broker_errors"]

#: Answers of the broker that speak of the records themselves: repeating them cannot help.
_ABOUT_RECORDS = (
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    InvalidTimestampError,
)

#: Answers to a producer that another one has replaced, or that overran its transaction's time.
_FENCED = (ProducerFenced, InvalidProducerEpoch)

#: Errors of aiokafka that are no `KafkaError`: what a producer says that was fenced behind its back, and a
#: consumer that was stopped.
_NO_STATE = (IllegalOperation, ConsumerStoppedError)

#: Key of the record, without a value, with which a task finds the end of a changelog; no entry has it.
BARRIER = b""

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
    except (AssertionError, ValueError, RuntimeError, *_NO_STATE) as error:
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

    async def commit(self, places: Places, offsets: Mapping[TopicPartition, int]) -> Ends:
        """
        Write what *places* hold and commit *offsets* in one transaction.

        Returns:
            For every partition written to, the offset after its last record.

        Raises:
            RecordRefusedError: the broker refused one of the records.
            BrokerError: nothing is known of the outcome; drop this producer.
        """
        with broker_errors("committing a transaction"):
            async with asyncio.timeout(self._timeout_s):
                await self._producer.begin_transaction()
                ends = await self._send(places)
                if offsets:
                    await self._producer.send_offsets_to_transaction(dict(offsets), self._group_id)
                await self._producer.commit_transaction()
        return ends

    async def ends(self, topics: Iterable[str], partition: int, at_ms: int) -> dict[str, int]:
        """
        Write `BARRIER` to *partition* of each of *topics*; returns the offsets behind it.

        Only a leader takes a record. An end that is merely asked for may be told by a broker that was frozen
        and does not know yet that it leads no more: what others took meanwhile would be forgotten.

        Raises:
            BrokerError: nothing is known of the outcome; drop this producer.
        """
        barrier: list[Sent] = [(at_ms, BARRIER, None, NO_HEADERS)]
        places: Places = {(topic, partition): barrier for topic in topics}
        ends = await self.commit(places, {}) if places else {}
        if len(ends) < len(places):
            raise BrokerError("committing a transaction: the offsets are not told")
        return {topic: end for (topic, _), end in ends.items()}

    async def drop(self) -> None:
        """Give the producer up, whatever state it is in."""
        await stop_producer(self._producer)

    async def _send(self, places: Places) -> Ends:
        waiting = await _batched(places)
        sent: list[tuple[tuple[str, int], int, asyncio.Future[Any]]] = []
        try:
            # The first batch of every place at once, so that the coordinator is asked once for all of them:
            # while it takes more in, the broker refuses records, which then wait to be tried again.
            for place, (first, *_) in waiting:
                await self._submit(place, first, sent)
            for place, (_, *others) in waiting:
                for batch in others:  # one after another: two pending ones to one partition race
                    await self._submit(place, batch, sent)
            results = await asyncio.gather(*(future for _, _, future in sent))
        finally:
            for _, _, future in sent:
                if not (future.cancel() or future.cancelled()):  # after a failure nobody looks at the others
                    future.exception()  # and asyncio would complain of those that failed as well
        return {
            place: metadata.offset + count
            for (place, count, _), metadata in zip(sent, results, strict=True)
            if metadata.offset >= 0  # a repeated batch that the broker knew already has none
        }

    async def _submit(
        self,
        place: tuple[str, int],
        batch: RecordBatch,
        sent: list[tuple[tuple[str, int], int, asyncio.Future[Any]]],
    ) -> None:
        future = await self._producer.send_batch(batch, place[0], partition=place[1])
        sent.append((place, batch.record_count(), future))


async def _batched(places: Places) -> list[tuple[tuple[str, int], list[RecordBatch]]]:
    pace = Pace()
    made = []
    for place, records in places.items():
        made.append((place, list(batches(records, MAX_BATCH_BYTES))))
        await pace.breathe()
    return made
