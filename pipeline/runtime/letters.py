"""
The dead letters of a cluster: which there are, which are open, what was decided of them.

Nothing but records says what became of a letter: that it was redriven or discarded stands on ``audit``, in
the same transaction; another value for it on ``dead-letters.edits``. Decisions are made one operator at a
time: all of them write under one transactional id, so that a second one fences the first.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import TypeAlias, final

import msgspec
from aiokafka import TopicPartition

from pipeline.codec import Codec, Header, Places, Record, text_headers
from pipeline.errors import ConfigError
from pipeline.headers import encoded
from pipeline.instants import Time, from_ms
from pipeline.runtime import audit
from pipeline.runtime.audit import AuditEntry
from pipeline.runtime.closing import stop_consumer
from pipeline.runtime.connection import Connection
from pipeline.runtime.reader import Reader, reading
from pipeline.runtime.transaction import TransactionalProducer, broker_errors

__all__ = [
    "DISCARDED",
    "EDITED",
    "EDITS",
    "REDRIVEN",
    "TOPIC",
    "Decisions",
    "Edit",
    "Letter",
    "Letters",
    "Selection",
    "add_edit",
    "deciding",
    "letter_of",
    "lock",
]

TOPIC = "dead-letters"
EDITS = "dead-letters.edits"

#: Actions of `AuditEntry`: a letter that one of the first two names is open no more.
REDRIVEN, DISCARDED, EDITED = (f"{TOPIC}.{done}" for done in ("redriven", "discarded", "edited"))

#: Bound of each step of a decision, in seconds.
TIMEOUT_S = 30.0


@final
class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter, with what its headers say of where and why it failed; -1 and "" where they do not."""

    partition: int
    offset: int
    timestamp: int  #: when its source record was received, ms since 1970
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]
    stage: str
    topic: str
    origin_partition: int
    origin_offset: int
    reason: str
    error: str
    attempts: int
    tenant: str

    @property
    def id(self) -> str:
        """What it is called: where it stands, which never changes."""
        return f"{self.partition}-{self.offset}"

    @property
    def key_text(self) -> str:
        """Its key as text."""
        return (self.key or b"").decode(errors="replace")


@final
class Edit(msgspec.Struct, frozen=True, kw_only=True):
    """Another value for a letter."""

    value: bytes
    by: str
    at: Time


@final
class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which letters are meant: those that are all that is given. Times are those of reception, in ms."""

    ids: tuple[str, ...] = ()
    topic: str = ""
    stage: str = ""
    reason: str = ""
    tenant: str = ""
    since_ms: int | None = None
    until_ms: int | None = None

    def takes(self, letter: Letter) -> bool:
        """Whether *letter* is meant."""
        return (
            (not self.ids or letter.id in self.ids)
            and self.topic in ("", letter.topic)
            and self.stage in ("", letter.stage)
            and self.reason in ("", letter.reason)
            and self.tenant in ("", letter.tenant)
            and (self.since_ms is None or letter.timestamp >= self.since_ms)
            and (self.until_ms is None or letter.timestamp < self.until_ms)
        )


#: Id of a letter -> what was decided of it.
Decisions: TypeAlias = Mapping[str, AuditEntry]


class Letters:
    """The dead letters of the cluster of *connection*."""

    def __init__(self, connection: Connection, codec: Codec) -> None:
        self._connection = connection
        self._count = codec.partitions(TOPIC)

    async def ends(self) -> dict[str, int]:
        """Partition -> the end of it as it is now; letters that come later are not before it."""
        async with reading(self._connection, (TOPIC,), self._count) as reader:
            return {str(place.partition): end for place, end in (await reader.limits()).items()}

    async def matching(
        self, selection: Selection, ends: Mapping[str, int] | None = None
    ) -> AsyncGenerator[Letter, None]:
        """
        The letters of *selection*, those before *ends* only, one partition after another in their order.

        Raises:
            BrokerError: Kafka does not answer.
        """
        consumer = self._connection.reader()
        try:
            with broker_errors("connecting"):
                await consumer.start()
            for number in _numbers(selection.ids, self._count):
                place = TopicPartition(TOPIC, number)
                consumer.assign([place])
                until = None if ends is None else {place: ends.get(str(number), 0)}
                async for record in Reader(consumer, [place]).everything(until):
                    letter = letter_of(record)
                    if selection.takes(letter):
                        yield letter
        finally:
            await stop_consumer(consumer)

    async def one(self, id_: str) -> Letter:
        """
        The letter *id_*.

        Raises:
            ConfigError: there is none, or no more.
        """
        async with aclosing(self.matching(Selection(ids=(id_,)))) as found:
            async for letter in found:
                return letter
        raise ConfigError(f"there is no dead letter {id_!r}; `pipeline dlq list` shows them")

    async def decisions(self) -> dict[str, AuditEntry]:
        """Id -> the entry by which a letter was redriven or discarded, the first of several."""
        decided: dict[str, AuditEntry] = {}
        for entry in await audit.recorded(self._connection):
            if entry.action in (REDRIVEN, DISCARDED):
                for id_ in entry.what:
                    decided.setdefault(id_, entry)
        return decided

    async def edits(self) -> dict[str, Edit]:
        """Id -> the value that a letter was given."""
        async with asyncio.timeout(TIMEOUT_S), reading(self._connection, (EDITS,), 1) as reader:
            latest = {record.key: record async for record in reader.everything()}
        return {
            (key or b"").decode().rpartition("|")[2]: _edit_of(record)
            for key, record in latest.items()
            if record.value is not None
        }


@asynccontextmanager
async def deciding(connection: Connection, codec: Codec) -> AsyncIterator[TransactionalProducer]:
    """
    The producer of whoever decides, until the end of the block; whoever decided before is fenced.

    Raises:
        BrokerError: Kafka does not answer.
    """
    name = f"{codec.application_id}.job.{lock()}"
    producer = TransactionalProducer(connection, name, "", TIMEOUT_S)
    try:
        await producer.start()
        yield producer
    finally:
        await producer.drop()


def lock() -> str:
    """What all transactional ids that decide end in."""
    return TOPIC


def add_edit(places: Places, letter: Letter, value: bytes | None, by: str) -> None:
    """Let the transaction that writes *places* keep *value* for *letter*; None forgets the one it has."""
    now = time.time_ns() // 1_000_000
    key = f"{letter.key_text}|{letter.id}".encode()
    headers = encoded([("edited_by", by.encode()), ("edited_at", from_ms(now).encode())])
    places.setdefault((EDITS, 0), []).append((now, key, value, headers))


def letter_of(record: Record) -> Letter:
    """*record* of ``dead-letters``, whoever wrote it."""
    told = text_headers(record.headers)
    return Letter(
        partition=record.partition,
        offset=record.offset,
        timestamp=record.timestamp,
        key=record.key,
        value=record.value,
        headers=tuple(record.headers),
        stage=told.get("dl_stage", ""),
        topic=told.get("dl_topic", ""),
        origin_partition=_number(told.get("dl_partition")),
        origin_offset=_number(told.get("dl_offset")),
        reason=told.get("dl_reason", ""),
        error=told.get("dl_error", ""),
        attempts=max(1, _number(told.get("dl_attempts"))),
        tenant=told.get("tenant") or _tenant((record.key or b"").decode(errors="replace")),
    )


def _tenant(key: str) -> str:
    """Whose record it was: what every key of ours begins with."""
    return key.partition("|")[0].partition(":")[0]


def _numbers(ids: Iterable[str], count: int) -> list[int]:
    """The partitions of *ids*, in their order; all of *count* where none is given."""
    named = {_number(id_.partition("-")[0]) for id_ in ids} & set(range(count))
    return sorted(named) if ids else list(range(count))


def _number(text: str | None) -> int:
    """The number that *text* is; -1 where it is none."""
    return int(text) if text and text.isdecimal() else -1


def _edit_of(record: Record) -> Edit:
    told = text_headers(record.headers)
    at = Time(told.get("edited_at", from_ms(record.timestamp)))
    return Edit(value=record.value or b"", by=told.get("edited_by", ""), at=at)
