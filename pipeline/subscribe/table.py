"""
A compacted topic as a mapping that keeps itself current.

It is read whole, without a group: first everything up to the ends that the partitions have when it is
opened, then whatever comes. Caught up means that the *position* has reached the end: compaction and
transactions leave offsets without records. When the reading breaks off, or has fallen behind what the log
still has, everything is read anew and compared, because tombstones may be gone by then; meanwhile the rows
stay as they were.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Generic, Protocol, Self, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError, UnsupportedVersionError

from pipeline.errors import BrokerError
from pipeline.subscribe.closing import stop_consumer
from pipeline.subscribe.cluster import Cluster, broker_errors
from pipeline.subscribe.record import Fetched
from pipeline.subscribe.rows import Change, Changes, Read, Rows

__all__ = ["Change", "Table", "TableReader"]

T = TypeVar("T")

_POLL_MS = 200
#: Bounds of opening, and of asking for a position, in seconds.
_OPEN_S = 60.0
_ASK_S = 30.0
#: Pause before reading anew, and bound of a fetch to return by itself at the end, in seconds.
_AGAIN_S = 1.0
_LAST_FETCH_S = 1.0

_FINAL = (TopicAuthorizationFailedError, UnsupportedVersionError)

_log = logging.getLogger(__name__)


class Source(Protocol):
    """What keeps rows current."""

    @property
    def rows(self) -> Rows:
        """What it keeps."""
        ...

    async def open(self) -> None:
        """Begin."""
        ...

    async def close(self) -> None:
        """End."""
        ...


class Table(Mapping[str, T], Generic[T]):
    """A topic's rows by key; use it with ``async with``, and ``await ready()`` before you look at them."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._rows = source.rows

    async def __aenter__(self) -> Self:
        await self._source.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._source.close()

    async def ready(self) -> None:
        """
        Return when all that stood in the topic when it was opened is in the rows.

        Raises:
            BrokerError: that cannot be.
        """
        await self._rows.ready.wait()
        self._rows.check()

    def changes(self) -> Changes[T]:
        """What changes from this call on; several changes of a key that were not taken become one."""
        return self._rows.follow()

    def __getitem__(self, key: str) -> T:
        value: T = self._rows.values[key]
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows.values)

    def __len__(self) -> int:
        return len(self._rows.values)


class TableReader:
    """Reads all partitions of *topic*; *read* makes a row of a record."""

    def __init__(self, cluster: Cluster, topic: str, read: Read) -> None:
        self.rows = Rows(topic)
        self._cluster = cluster
        self._topic = topic
        self._read = read
        self._stopping = asyncio.Event()
        self._following: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """
        Begin to read.

        Raises:
            BrokerError: no cluster answers, or it has no such topic.
        """
        consumer, ends = await self._opened()
        self._following = asyncio.create_task(self._follow(consumer, ends), name=f"table {self._topic}")

    async def close(self) -> None:
        """End, within a bound."""
        self._stopping.set()
        if self._following is not None:
            await asyncio.wait((self._following,), timeout=_LAST_FETCH_S)
            self._following.cancel()
            await asyncio.wait((self._following,))

    async def _follow(self, consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int]) -> None:
        opened: AIOKafkaConsumer | None = consumer
        while not self._stopping.is_set():
            try:
                if opened is None:
                    opened, ends = await self._opened()
                await self._keep_current(opened, ends)
            except (BrokerError, KafkaError) as error:
                cause = error.__cause__ if isinstance(error, BrokerError) else error
                if isinstance(cause, _FINAL):
                    self.rows.fail(BrokerError(f"reading {self._topic}: {cause!r}"))
                    return
                _log.warning("table.interrupted topic=%s: %r", self._topic, cause or error)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_AGAIN_S):
                        await self._stopping.wait()
            except Exception as error:  # noqa: BLE001 - whoever looks at the rows has to be told
                self.rows.fail(error)
                return
            finally:
                if opened is not None:
                    await stop_consumer(opened)
                opened = None

    async def _opened(self) -> tuple[AIOKafkaConsumer, dict[TopicPartition, int]]:
        """A consumer at the beginning of every partition, and their ends."""
        consumer = self._cluster.reader()
        try:
            with broker_errors(f"reading {self._topic} at {self._cluster.servers}"):
                async with asyncio.timeout(_OPEN_S):
                    await consumer.start()
                    numbers = await self._cluster.partitions(self._topic)
                    places = [TopicPartition(self._topic, number) for number in numbers]
                    begins = await consumer.beginning_offsets(places)
                    ends = await consumer.end_offsets(places)
                    consumer.assign(places)  # at once followed by where: aiokafka would begin elsewhere
                    for place, offset in begins.items():
                        consumer.seek(place, offset)
        except BaseException:
            await stop_consumer(consumer)
            raise
        return consumer, ends

    async def _keep_current(self, consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int]) -> None:
        fresh: dict[str, Any] = {}
        while not (self._stopping.is_set() or await _reached(consumer, ends)):
            await self._fetch(consumer, lambda key, value: _set(fresh, key, value))
        if self._stopping.is_set():
            return
        self.rows.replace(fresh)
        while not self._stopping.is_set():
            await self._fetch(consumer, self.rows.put)

    async def _fetch(self, consumer: AIOKafkaConsumer, put: Callable[[str, Any], None]) -> None:
        fetched = await consumer.getmany(timeout_ms=_POLL_MS)
        for place, records in fetched.items():
            for each in records:
                read = self._read(
                    Fetched(place.partition, each.offset, each.timestamp, each.key, each.value, each.headers)
                )
                if read is not None:
                    put(*read)
            await asyncio.sleep(0)


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    if value is None:
        values.pop(key, None)
    else:
        values[key] = value


async def _reached(consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int]) -> bool:
    with broker_errors("asking for a position"):
        async with asyncio.timeout(_ASK_S):
            return all([await consumer.position(place) >= end for place, end in ends.items()])
