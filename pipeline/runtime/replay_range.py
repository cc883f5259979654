"""
Copies a range of a topic to a side topic: a job that goes on where it stood, and yields to live traffic.

Partition, order, key, value, timestamp and headers of each record stay; the headers ``replay`` (the job),
``replay_topic``, ``replay_partition`` and ``replay_offset`` are added. Each page of copies is written in one
transaction with the job's cursor, so that none is missing or doubled whatever happens in between.
"""

import asyncio
import time
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, final

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.codec import Places, Sent
from pipeline.errors import BrokerError, ConfigError
from pipeline.headers import REPLAY, Header, encoded
from pipeline.runtime.admin import Admin, ensure
from pipeline.runtime.closing import stop_consumer
from pipeline.runtime.connection import Connection
from pipeline.runtime.jobs import Job, JobProducer
from pipeline.runtime.live_lag import LiveGroups, Throttle
from pipeline.runtime.replay_points import TIMEOUT_S, Point, held, offset_of
from pipeline.runtime.topic_plan import MAX_MESSAGE_BYTES, Wanted
from pipeline.runtime.transaction import broker_errors

__all__ = ["Range", "Selection", "bounds", "copy", "refuse_target", "run", "target_of"]

#: Seconds between two transactions, more or less, and their largest number of records.
_PAGE_S = 0.2
_PAGE_RECORDS = 2_000
_POLL_MS = 200

#: How long a page may take to come, in seconds.
_PATIENCE_S = 60.0


@final
class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which records of a range are copied: those to which all that is given applies."""

    keys: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    tenant: str = ""
    since_ms: int | None = None
    until_ms: int | None = None

    def takes(self, record: Any) -> bool:
        """Whether *record* is copied."""
        key = (record.key or b"").decode(errors="replace")
        return (
            (not self.keys or key in self.keys)
            and (not self.tenant or key.startswith((f"{self.tenant}:", f"{self.tenant}|")))
            and (self.since_ms is None or record.timestamp >= self.since_ms)
            and (self.until_ms is None or record.timestamp < self.until_ms)
            and (not self.types or _type(record.headers) in self.types)
        )


@final
class Range(msgspec.Struct, frozen=True, kw_only=True):
    """What is copied where: of each partition of *topic* the offsets from *begins* to before *ends*."""

    topic: str
    target: str
    begins: dict[str, int]  #: by partition number, as text
    ends: dict[str, int]
    selection: Selection = Selection()
    rate: float = 5_000.0  #: records a second that are looked at
    live: tuple[str, ...] = ()  #: groups that are not to be held up
    what: str = "range"

    @property
    def records(self) -> int:
        """How many are looked at, at most: offsets, of which compaction and transactions leave some out."""
        return sum(max(0, self.ends[number] - begin) for number, begin in self.begins.items())


def target_of(range_: Range, id_: str) -> str:
    """The side topic of job *id_*."""
    return range_.target or f"replay.{id_}.{range_.topic}"


async def bounds(
    connection: Connection,
    topic: str,
    span: tuple[Point, Point | None],
    *,
    partitions: Sequence[int] = (),
    retention_ms: Mapping[str, int | None],
) -> tuple[dict[str, int], dict[str, int]]:
    """
    The first offset, and the one after the last, of *span* in each partition of *topic*.

    Where the end is a time, all up to the end as it is now is looked at: timestamps are when sources got
    something, and so not always in order.

    Raises:
        ConfigError: there is no such topic or partition, or retention has removed some of it.
        BrokerError: Kafka does not answer.
    """
    since, until = span
    consumer = connection.reader()
    try:
        with broker_errors("connecting"):
            async with asyncio.timeout(TIMEOUT_S):
                await consumer.start()
        found = await held(consumer, await _places(connection, topic, partitions))
        begins = await offset_of(consumer, found, since, retention_ms)
    finally:
        await stop_consumer(consumer)
    last = None if until is None else until.offset
    ends = {place: each.end if last is None else min(last, each.end) for place, each in found.items()}
    return (
        {str(place.partition): at for place, at in sorted(begins.items())},
        {str(place.partition): max(at, begins[place]) for place, at in sorted(ends.items())},
    )


async def refuse_target(connection: Connection, topics: Container[str], target: str) -> None:
    """
    Refuse to write copies to a *target* that is there already, or is one of *topics*.

    Raises:
        ConfigError: it is; says what is allowed.
        BrokerError: Kafka does not answer.
    """
    async with Admin(connection.common) as admin:
        is_there = target in topics or (target and target in await admin.names())
    if is_there:
        raise ConfigError(f"--to: there is a topic {target!r} already; name one that is not there yet")


async def run(connection: Connection, runner: JobProducer) -> Job:
    """
    Make the side topic, and `copy` to it beside live groups.

    Raises:
        ConfigError: there is a topic of that name that is not as the side topic must be.
        BrokerError: Kafka failed us, or another runner has the job; it can be run again.
    """
    range_ = msgspec.convert(runner.job.spec, Range)
    await ensure(connection.common, [await _side_topic(connection, range_, runner.job.id)])
    live = LiveGroups(connection, range_.live)
    await live.open()
    try:
        return await copy(connection, runner, Throttle(range_.rate, live))
    finally:
        await live.close()


async def copy(connection: Connection, runner: JobProducer, throttle: Throttle) -> Job:
    """
    Copy what is left of the job of *runner*, until its end or until something else is wished.

    Raises:
        BrokerError: Kafka failed us, or another runner has the job; it can be run again.
    """
    range_ = msgspec.convert(runner.job.spec, Range)
    copying = _Copying(range_, runner, connection.follower())
    try:
        await copying.begin()
        return await copying.run(throttle)
    finally:
        await copying.close()


async def _places(connection: Connection, topic: str, partitions: Sequence[int]) -> list[TopicPartition]:
    async with Admin(connection.common) as admin:
        found = (await admin.found([topic])).get(topic)
    if found is None:
        raise ConfigError(f"unknown topic {topic!r} on this cluster; see `pipeline topics list`")
    unknown = [number for number in partitions if not 0 <= number < found.partitions]
    if unknown:
        raise ConfigError(
            f"--partition: {unknown[0]} is not of {topic}; allowed: 0 to {found.partitions - 1}"
        )
    return [TopicPartition(topic, number) for number in partitions or range(found.partitions)]


async def _side_topic(connection: Connection, range_: Range, id_: str) -> Wanted:
    """As its source, but that nothing is compacted or removed from it by age."""
    async with Admin(connection.common) as admin:
        source = (await admin.found([range_.topic]))[range_.topic]
    configs = {
        "cleanup.policy": "delete",
        "retention.ms": "-1",
        "message.timestamp.type": "CreateTime",
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
        "min.insync.replicas": source.configs.get("min.insync.replicas", "1"),
    }
    return Wanted(
        name=target_of(range_, id_),
        partitions=source.partitions,
        replication=source.replication,
        configs=configs,
        keyed=True,
    )


class _Copying:
    """One run of a job."""

    def __init__(self, range_: Range, runner: JobProducer, consumer: AIOKafkaConsumer) -> None:
        self._range = range_
        self._runner = runner
        self._consumer = consumer
        self._target = target_of(range_, runner.job.id)
        self._next: dict[str, int] = runner.job.cursor.get("next", {}) or dict(range_.begins)
        self._copied: int = runner.job.cursor.get("copied", 0)
        self._begun = runner.job.done, time.monotonic()
        self._places = {
            number: TopicPartition(range_.topic, int(number))
            for number, at in self._next.items()
            if at < range_.ends[number]
        }

    async def begin(self) -> None:
        """Go to where the job stands."""
        with broker_errors(f"reading {self._range.topic}"):
            await self._consumer.start()
            self._consumer.assign(list(self._places.values()))
            for number, place in self._places.items():
                self._consumer.seek(place, self._next[number])

    async def close(self) -> None:
        await self._consumer.stop()

    async def run(self, throttle: Throttle) -> Job:
        began_s = time.monotonic()
        while self._left():
            places, looked_at = await self._page(throttle)
            if not looked_at:
                if time.monotonic() - began_s > _PATIENCE_S:
                    raise BrokerError(f"reading {self._range.topic}: nothing came")
                continue
            began_s = time.monotonic()
            wished = await self._runner.commit(places, self._progress(places, looked_at))
            if wished != "run":
                return await self._runner.end(wished)
            await throttle.passed(looked_at, began_s)
        return await self._runner.end("done")

    def _left(self) -> bool:
        return any(at < self._range.ends[number] for number, at in self._next.items())

    async def _page(self, throttle: Throttle) -> tuple[Places, int]:
        """The next copies, and how many offsets they are of; the next offsets are noted."""
        most = int(min(_PAGE_RECORDS, max(1.0, throttle.per_s * _PAGE_S)))
        left = [
            place for number, place in self._places.items() if self._next[number] < self._range.ends[number]
        ]
        places: Places = {}
        with broker_errors(f"reading {self._range.topic}"):
            fetched = await self._consumer.getmany(*left, timeout_ms=_POLL_MS, max_records=most)
            for place, records in fetched.items():
                wanted = self._wanted(place, records)
                if wanted:
                    places[self._target, place.partition] = wanted
            reached = {str(place.partition): await self._consumer.position(place) for place in left}
        looked_at = 0
        for number, at in reached.items():
            end = min(at, self._range.ends[number])
            looked_at += end - self._next[number]
            self._next[number] = end
        return places, looked_at

    def _wanted(self, place: TopicPartition, records: Sequence[Any]) -> list[Sent]:
        end, takes = self._range.ends[str(place.partition)], self._range.selection.takes
        return [self._copy_of(each) for each in records if each.offset < end and takes(each)]

    def _copy_of(self, record: Any) -> Sent:
        marks = {
            REPLAY: self._runner.job.id,
            "replay_topic": record.topic,
            "replay_partition": str(record.partition),
            "replay_offset": str(record.offset),
        }
        kept: list[Header] = [header for header in record.headers if header[0] not in marks]
        headers = encoded([*kept, *((name, text.encode()) for name, text in marks.items())])
        return record.timestamp, record.key, record.value, headers

    def _progress(self, places: Places, looked_at: int) -> Job:
        job = self._runner.job
        self._copied += sum(map(len, places.values()))
        done_before, since_s = self._begun
        spent_s = max(0.001, time.monotonic() - since_s)
        return msgspec.structs.replace(
            job,
            state="running",
            done=job.done + looked_at,
            per_s=round((job.done + looked_at - done_before) / spent_s, 1),
            cursor={"next": dict(self._next), "copied": self._copied},
        )


def _type(headers: Iterable[Header]) -> str:
    return next((value.decode(errors="replace") for name, value in headers if name == "ce_type"), "")
