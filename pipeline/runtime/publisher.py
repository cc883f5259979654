"""A plain idempotent producer for what comes in from outside: one record, acknowledged or not."""

import asyncio

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from pipeline.codec import Output
from pipeline.errors import BrokerError
from pipeline.runtime.connection import Connection
from pipeline.runtime.transaction import broker_errors

__all__ = ["Publisher"]

_log = structlog.get_logger(__name__)

_STOP_S = 2.0


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
        try:
            with broker_errors(f"writing to {output.topic}"):
                async with asyncio.timeout(self._timeout_s):
                    producer = await self._started()
                    await (await self._sent(producer, output))
        except BrokerError:
            await self.close()
            raise

    async def close(self) -> None:
        """Give the producer up."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            async with asyncio.timeout(_STOP_S):
                await producer.stop()
        except (KafkaError, OSError, TimeoutError, RuntimeError) as error:
            _log.debug("producer.dropped", error=type(error).__name__)

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = self._connection.producer()
                await producer.start()
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
