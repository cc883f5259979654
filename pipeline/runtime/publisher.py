"""A plain idempotent producer for what comes in from outside: one record, acknowledged or not."""

import asyncio

from aiokafka import AIOKafkaProducer

from pipeline.codec import Output
from pipeline.errors import BrokerError
from pipeline.runtime.closing import stop_producer
from pipeline.runtime.connection import Connection
from pipeline.runtime.transaction import broker_errors

__all__ = ["Publisher"]


class Publisher:
    """
    Writes records with acks=all; *timeout_s* bounds the wait for each acknowledgement.

    With idempotence a batch never expires, so a time-out means *unknown*: the producer is dropped, the
    next call begins a new one, and whoever asked has to ask again.
    """

    def __init__(self, connection: Connection, timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()

    async def publish(self, output: Output) -> None:
        """
        Return when every in-sync replica has *output*.

        Raises:
            BrokerError: it may or may not be there.
        """
        producer: AIOKafkaProducer | None = None
        try:
            with broker_errors(f"writing to {output.topic}"):
                async with asyncio.timeout(self._timeout_s):
                    producer = await self._started()
                    await (await self._sent(producer, output))
        except BrokerError:
            # Others may have begun a new producer meanwhile: that one is not to blame.
            if producer is not None and producer is self._producer:
                await self.close()
            raise

    async def close(self) -> None:
        """Give the producer up."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await stop_producer(producer)

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = self._connection.producer()
                try:
                    await producer.start()
                except BaseException:
                    await stop_producer(producer)  # or its connections stay open
                    raise
                self._producer = producer
            return self._producer

    async def _sent(self, producer: AIOKafkaProducer, output: Output) -> asyncio.Future[object]:
        future: asyncio.Future[object] = await producer.send(
            output.topic,
            value=output.value,
            key=output.key,
            partition=output.partition,
            timestamp_ms=output.timestamp,
            headers=output.headers,
        )
        return future
