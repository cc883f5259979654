"""
A small compacted topic of one partition, read and written by name: tokens, facts about the cluster.

Every read goes to the cluster, so that what another process wrote is seen.
"""

import asyncio
import time
from typing import Generic, TypeVar

import msgspec

from pipeline.codec import Codec
from pipeline.errors import BrokerError
from pipeline.runtime.connection import Connection
from pipeline.runtime.publisher import Publisher
from pipeline.runtime.reader import reading
from pipeline.runtime.transaction import broker_errors
from pipeline.stage import Emit, Event

__all__ = ["KafkaTable"]

T = TypeVar("T", bound=msgspec.Struct)

#: Bound of one read or write, in seconds.
TIMEOUT_S = 10.0


class KafkaTable(Generic[T]):
    """Key -> value of *topic*; values are *type*."""

    def __init__(self, connection: Connection, codec: Codec, topic: str, type_: type[T]) -> None:
        self._connection = connection
        self._codec = codec
        self._topic = topic
        self._decode = msgspec.json.Decoder(type_).decode
        self._publisher = Publisher(connection, TIMEOUT_S)

    async def load(self, key: str) -> T | None:
        """
        The value last saved under *key*.

        Raises:
            BrokerError: the cluster did not answer in time.
        """
        with broker_errors(f"reading {self._topic}"):
            async with asyncio.timeout(TIMEOUT_S):
                raw = (await self._read()).get(key.encode())
        try:
            return None if raw is None else self._decode(raw)
        except msgspec.DecodeError as error:
            raise BrokerError(f"{self._topic}: the value of {key} cannot be read: {error}") from error

    async def save(self, key: str, value: T) -> None:
        """
        Keep *value* under *key*; returns when it is durable.

        Raises:
            BrokerError: it may not be.
        """
        cause = Event(topic="", key=key, value=None, received_at=0)
        for output in self._codec.encode(Emit(self._topic, key, value), cause, "run", 0):
            await self._publisher.publish(output._replace(timestamp=_now_ms()))

    async def close(self) -> None:
        """Give the producer up."""
        await self._publisher.close()

    async def _read(self) -> dict[bytes | None, bytes | None]:
        async with reading(self._connection, (self._topic,), 1) as reader:
            return {record.key: record.value async for record in reader.everything()}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
