"""
Doubles for a subscriber's own tests: the same `Subscription` and `Table`, fed by hand instead of by Kafka.

What is fed goes through the codec into bytes and headers and back, so that filters, types and errors are the
real ones; only the consumer group is not there.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from pipeline.codec import Codec, new_traceparent
from pipeline.instants import Time
from pipeline.stage import Emit, Event
from pipeline.subscribe.feed import Arrivals
from pipeline.subscribe.progress import Ends, Progress
from pipeline.subscribe.record import Fetched
from pipeline.subscribe.rows import Rows, reader
from pipeline.subscribe.selection import Keys, Selection, Types
from pipeline.subscribe.subscription import Errors, Subscription
from pipeline.subscribe.table import Table
from pipeline.subscribe.transaction import Outgoing
from pipeline.topics import Topics, load

__all__ = ["FedSubscription", "FedTable"]

#: 2030-01-01T00:00:00Z, when whatever is fed was received, unless it says otherwise.
_RECEIVED_MS = 1_893_456_000_000


class _Topic:
    """Encodes what is fed to one topic, in partitions of its own."""

    def __init__(self, topic: str, partitions: int, topics: Topics | None) -> None:
        self.topics = load() if topics is None else topics
        self.codec = Codec(self.topics, partitions, "test")
        self.topic = self.topics[topic]
        self._ends: defaultdict[int, int] = defaultdict(int)
        self._fed = 0

    def encoded(
        self, key: str, value: Any, occurred_at: Time, received_ms: int, headers: Mapping[str, str]
    ) -> Fetched:
        """The record of *value* as a partition has it."""
        self._fed += 1
        trace = new_traceparent(str(self._fed).encode())
        cause = Event(
            topic="", key=key, value=None, id=f"fed-{self._fed}", received_at=received_ms, traceparent=trace
        )
        emit = Emit(self.topic.name, key, value, occurred_at=occurred_at, headers=tuple(headers.items()))
        (output,) = self.codec.encode(emit, cause, "test", 0)
        return self.raw(output.partition, output.key, output.value, dict(output.headers), output.timestamp)

    def raw(
        self,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Mapping[str, bytes],
        timestamp: int,
    ) -> Fetched:
        """A record at the end of *partition*, whatever it holds."""
        offset = self._ends[partition]
        self._ends[partition] += 1
        return Fetched(partition, offset, timestamp, key, value, tuple(headers.items()))


class _Feed:
    """Records from memory; what is done is committed to memory."""

    def __init__(self) -> None:
        self.arrivals = Arrivals()
        self.progress = Progress()
        self.committed: Ends = {}
        self.written: list[Outgoing] = []
        self.arrivals.ended = True

    async def open(self) -> None:
        """Nothing is to be joined."""

    async def close(self) -> None:
        """Commit what is done."""
        await self.commit()

    async def commit(self) -> None:
        """Note what is done."""
        self.committed |= self.progress.done
        self.progress.committed(dict(self.progress.done))

    async def write(self, outgoing: list[Outgoing]) -> bool:
        """Note *outgoing* and what is in hand."""
        self.written += outgoing
        self.progress.finish()
        await self.commit()
        return True


class FedSubscription:
    """
    A subscription to *topic* whose records a test gives; ``subscription`` is what the code under test gets.

    Iteration ends when all that was fed is taken. ``committed`` (partition -> next offset) is what a restart
    would not see again, ``written`` what transactions wrote.
    """

    def __init__(
        self,
        topic: str,
        *,
        types: Types = (),
        tenant: str = "",
        key: Keys | None = None,
        errors: Errors = "raise",
        exactly_once: bool = False,
        partitions: int = 1,
        topics: Topics | None = None,
    ) -> None:
        self._topic = _Topic(topic, partitions, topics)
        self._feed = _Feed()
        self._selection = Selection(self._topic.topic, types=types, tenant=tenant, key=key)
        self.subscription: Subscription[Any] = Subscription(
            self._feed, self._topic.codec, topic, self._selection, errors, exactly_once=exactly_once
        )

    @property
    def committed(self) -> Mapping[int, int]:
        """Partition -> the offset that a restart begins with."""
        return self._feed.committed

    @property
    def written(self) -> list[Outgoing]:
        """What transactions wrote, in order."""
        return self._feed.written

    def feed(
        self,
        key: str,
        value: Any,
        *,
        occurred_at: Time | None = None,
        received_ms: int = _RECEIVED_MS,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Add a record: a typed value, bytes for a topic of bytes, or None for a tombstone."""
        at = occurred_at or Time("")
        self._put(self._topic.encoded(key, value, at, received_ms, headers or {}))

    def feed_bytes(
        self, key: bytes | None, value: bytes | None, headers: Mapping[str, bytes] | None = None
    ) -> None:
        """Add a record to partition 0 as it is, to see what becomes of one that cannot be read."""
        self._put(self._topic.raw(0, key, value, headers or {}, _RECEIVED_MS))

    def _put(self, fetched: Fetched) -> None:
        self._feed.arrivals.buffer.put(fetched, wanted=self._selection.may_hold(fetched))
        self._feed.arrivals.tell()


class _TableSource:
    """Rows that nobody but the test changes."""

    def __init__(self, topic: str) -> None:
        self.rows = Rows(topic)

    async def open(self) -> None:
        """What was fed so far is the snapshot."""
        self.rows.ready.set()

    async def close(self) -> None:
        """Nothing is to be closed."""


class FedTable:
    """A table of *topic* whose rows a test gives; ``table`` is what the code under test gets."""

    def __init__(
        self, topic: str, *, tenant: str = "", key: Keys | None = None, topics: Topics | None = None
    ) -> None:
        self._topic = _Topic(topic, 1, topics)
        self._source = _TableSource(topic)
        selection = Selection(self._topic.topic, tenant=tenant, key=key)
        self._read = reader(self._topic.codec, topic, selection, "raise")
        self.table: Table[Any] = Table(self._source)

    def put(self, key: str, value: Any) -> None:
        """A record of *key*: a typed value, or None for a tombstone."""
        read = self._read(self._topic.encoded(key, value, Time(""), _RECEIVED_MS, {}))
        if read is not None:
            self._source.rows.put(*read)
