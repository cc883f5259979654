"""
What operators did to the data: the topic ``audit``, written with the deed and never changed.

`add` puts an entry into the transaction that does what it tells, so that one is never without the other;
`recorded` reads all entries. An entry holds ids, never a number, a name or a text of a contact.
"""

import asyncio
import time

import msgspec

from pipeline.codec import Codec, Places
from pipeline.events.audit import AuditEntry
from pipeline.instants import Time, from_ms
from pipeline.runtime.connection import Connection
from pipeline.runtime.reader import reading, written
from pipeline.runtime.transaction import broker_errors
from pipeline.stage import Emit, Event

__all__ = ["TOPIC", "AuditEntry", "add", "entry", "recorded"]

TOPIC = "audit"

#: Bound of reading all of it, in seconds: an open transaction may hold it up for 15 s.
TIMEOUT_S = 60.0

_decode = msgspec.json.Decoder(AuditEntry).decode


def entry(action: str, by: str, what: tuple[str, ...], why: str | None = None, job: str = "") -> AuditEntry:
    """What *by* did now to *what*, and why."""
    return AuditEntry(action=action, by=by, at=_now(), why=why, what=what, job=job or None)


def add(codec: Codec, places: Places, told: AuditEntry) -> None:
    """Let the transaction that writes *places* record *told* as well."""
    cause = Event(topic="", key=told.action, value=None, received_at=time.time_ns() // 1_000_000)
    codec.writer(TOPIC).write(((Emit(TOPIC, told.action, told), cause, 0),), places)


async def recorded(connection: Connection) -> list[AuditEntry]:
    """
    Every entry in its order; waits for the transactions that are open, whose entries may come yet.

    Raises:
        BrokerError: Kafka does not answer, or a transaction stays open.
    """
    with broker_errors("reading what operators did"):
        async with asyncio.timeout(TIMEOUT_S), reading(connection, (TOPIC,), 1) as reader:
            until = await written(connection, TOPIC, 1)
            return [_decode(record.value) async for record in reader.everything(until) if record.value]


def _now() -> Time:
    return from_ms(time.time_ns() // 1_000_000)
