"""
Who is to be erased, what is held of them where, and the record that makes the stages forget them.

`found` says who a number or a native contact id is, by the changelog of decode's ``keys``. `look` reads every
topic and changelog and counts what tells of the person. `redact` puts them on ``redactions``: in one
transaction with its entry of ``audit``, a copy on every partition. Redactions are stamped before all other
records, so that whoever reads topics again from their beginning leaves the person out from the first.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, Literal, TypeAlias, final

import msgspec
import orjson
import phonenumbers

from pipeline.codec import Codec, Places, Record
from pipeline.errors import BrokerError, ConfigError, Unavailable
from pipeline.events import Redaction
from pipeline.identity import native_key
from pipeline.instants import Time, from_ms
from pipeline.runtime import audit, names
from pipeline.runtime.admin import Admin
from pipeline.runtime.batch import stores_of
from pipeline.runtime.connection import Connection
from pipeline.runtime.reader import reading
from pipeline.runtime.transaction import TransactionalProducer, broker_errors
from pipeline.sources.scan import ITEMS
from pipeline.stage import Emit, Event, Stage
from pipeline.stages.decode.stores import KEYS
from pipeline.stages.redactions import REDACTED
from pipeline.topics import Topics

__all__ = [
    "TOPIC",
    "Held",
    "Kind",
    "Person",
    "Place",
    "Scope",
    "found",
    "gone",
    "look",
    "places_of",
    "redact",
    "redacted",
    "scope",
]

TOPIC: Final = "redactions"

#: The Kafka timestamp of redactions, in ms since 1970: before that of every other record.
FIRST_MS: Final = 1

#: Bound of a transaction, in seconds.
TIMEOUT_S: Final = 30.0

#: Pause between looks at what is still held, in seconds.
_POLL_S: Final = 0.2

#: Tables of native contacts, and the field that holds the number there.
_NUMBERS: Final = {"sakari.contacts": "mobile", "users.contacts": "phone"}

#: What becomes of what a topic holds of an erased person: ``removed`` once the stages have read the
#: redaction; ``polled``, at the next scan of the poller; ``expires``, by retention; ``kept``, keys only.
Kind: TypeAlias = Literal["removed", "polled", "expires", "kept"]


@final
class Person(msgspec.Struct, frozen=True, kw_only=True):
    """Whom an erasure means: *keys* are contact keys and native keys, *numbers* E.164."""

    tenant: str
    keys: tuple[str, ...]
    numbers: tuple[str, ...] = ()


@final
class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A topic or changelog that may hold something."""

    topic: str
    kind: Kind
    is_table: bool
    retention_ms: int | None = None


@final
class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What one topic holds of a person: records, and until when where they expire."""

    topic: str
    kind: Kind
    records: int
    until: Time | None = None


@final
class Scope(msgspec.Struct, frozen=True):
    """The cluster that is looked through: what it has, by the names of its topics."""

    connection: Connection
    codec: Codec
    places: tuple[Place, ...]
    partitions: Mapping[str, int]


def places_of(topics: Topics, application_id: str, stages: Iterable[Stage]) -> tuple[Place, ...]:
    """Every topic and changelog, with what becomes of an erased person's records there."""
    made = {
        topic.name: Place(
            topic=topic.name,
            kind=_kind_of_topic(topic.name, expires="delete" in topic.cleanup),
            is_table=topic.is_table,
            retention_ms=topic.retention_ms,
        )
        for topic in topics.values()
    }
    for stage in stages:
        for store in stores_of(stage):
            name = names.changelog(application_id, stage.name, store)
            kind: Kind = "kept" if store in (KEYS, REDACTED) else "polled" if store is ITEMS else "removed"
            made.setdefault(name, Place(topic=name, kind=kind, is_table=True))
    return tuple(made.values())


def _kind_of_topic(name: str, *, expires: bool) -> Kind:
    if name == TOPIC:
        return "kept"
    return "expires" if expires else "removed"


async def scope(connection: Connection, codec: Codec, places: Sequence[Place]) -> Scope:
    """
    *places* as far as the cluster has them.

    Raises:
        ConfigError: it has no ``redactions``.
        BrokerError: Kafka does not answer.
    """
    async with Admin(connection.common) as admin:
        there = await admin.found([place.topic for place in places])
    if TOPIC not in there:
        raise ConfigError(f"{TOPIC}: the cluster lacks this topic; `pipeline topics apply`")
    partitions = {name: each.partitions for name, each in there.items()}
    return Scope(connection, codec, tuple(each for each in places if each.topic in partitions), partitions)


async def found(at: Scope, tenant: str, *, contact_key: str = "", contact_id: str = "") -> Person:
    """
    The person of *tenant* with that contact key, or that contact id on either system.

    Raises:
        ConfigError: nobody has the id.
        BrokerError: Kafka does not answer.
    """
    log = names.changelog(at.codec.application_id, "decode", KEYS)
    if not contact_key:
        asked = {native_key(tenant, system, contact_id) for system in ("s", "u")}
        known = {native: key async for native, key in _mapped(at, log) if native in asked}
        if not known:
            raise ConfigError(f"--contact-id: tenant {tenant} has no contact of this id; or give --mobile")
        keys = set(known) | set(known.values())
    else:
        keys = {contact_key}
    mapping: dict[str, str] = {}
    async for native, key in _mapped(at, log):
        if key in keys:
            mapping[native] = key
        else:
            mapping.pop(native, None)
    keys |= set(mapping)
    numbers = {number async for number in _numbers(at, keys)}
    return Person(tenant=tenant, keys=tuple(sorted(keys)), numbers=tuple(sorted(numbers)))


async def look(at: Scope, person: Person, *kinds: Kind) -> list[Held]:
    """
    What is held of *person* by topics of *kinds*, by default of all; those that hold nothing are left out.

    Raises:
        BrokerError: Kafka does not answer.
    """
    tells = _told_by(person)
    held = [await _held(at, place, tells) for place in at.places if not kinds or place.kind in kinds]
    return [each for each in held if each.records]


async def redact(at: Scope, person: Person, report: str, by: str) -> Time:
    """
    Let all stages forget *person* and leave them out from now on; returns when that was asked for.

    Raises:
        BrokerError: it is not known whether it stands; ask again.
    """
    asked_at = from_ms(time.time_ns() // 1_000_000)
    value = Redaction(tenant=person.tenant, erased_at=asked_at, report=report)
    cause = Event(topic="", key="", value=None, received_at=FIRST_MS)
    places: Places = {}
    at.codec.writer("erase").write([(Emit(TOPIC, key, value), cause, 0) for key in person.keys], places)
    audit.add(at.codec, places, audit.entry("person.erased", by, (report,)))
    producer = TransactionalProducer(at.connection, f"{at.codec.application_id}.erase", "", TIMEOUT_S)
    try:
        await producer.start()
        await producer.commit(places, {})
    finally:
        await producer.drop()
    return asked_at


async def redacted(connection: Connection) -> frozenset[str]:
    """
    The keys of all who are erased.

    Raises:
        Unavailable: Kafka does not answer, so that whoever polls comes back later.
    """
    keys: set[str] = set()
    try:
        async with asyncio.timeout(TIMEOUT_S), reading(connection, (TOPIC,), 1) as reader:
            async for record in reader.everything():
                (keys.add if record.value else keys.discard)((record.key or b"").decode())
    except (BrokerError, TimeoutError) as error:
        raise Unavailable(f"{TOPIC}: {type(error).__name__}") from error
    return frozenset(keys)


async def gone(at: Scope, person: Person, timeout_s: float) -> list[Held]:
    """
    What is still held once the stages have forgotten *person*, or after *timeout_s* seconds.

    Raises:
        BrokerError: Kafka does not answer.
    """
    until_s = time.monotonic() + timeout_s
    while await look(at, person, "removed") and time.monotonic() < until_s:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(_POLL_S)
    return await look(at, person)


def _told_by(person: Person) -> Callable[[Record], bool]:
    """
    Whether a record tells of *person*: by their keys, or by their numbers as they are written.

    A number stands for them within their tenant only: another one may know the same person.
    """
    keys = [key.encode() for key in person.keys]
    numbers = _written(person.numbers)
    is_own = re.compile(rb"(?<![a-z0-9-])" + person.tenant.encode() + rb"[:|]").search

    def tells(record: Record) -> bool:
        key, value = record.key or b"", record.value or b""
        if any(each in key or each in value for each in keys):
            return True
        return any(each in value or each in key for each in numbers) and is_own(key) is not None

    return tells


def _written(numbers: Iterable[str]) -> list[bytes]:
    """*numbers* in the ways that an API may write them: national digits stand in E.164 as well."""
    parsed = [phonenumbers.parse(number) for number in numbers]
    styles = (phonenumbers.PhoneNumberFormat.NATIONAL, phonenumbers.PhoneNumberFormat.INTERNATIONAL)
    told = {str(each.national_number) for each in parsed}
    told |= {phonenumbers.format_number(each, style) for each in parsed for style in styles}
    return [text.encode() for text in sorted(told)]


async def _held(at: Scope, place: Place, tells: Callable[[Record], bool]) -> Held:
    matching: dict[object, int] = {}  # key, or number of a record that has no successor -> timestamp
    async for number, record in _numbered(at, place.topic):
        key: object = record.key if place.is_table else number
        if record.value is not None and tells(record):
            matching[key] = record.timestamp
        else:
            matching.pop(key, None)
    until = None
    if matching and place.kind == "expires" and place.retention_ms is not None:
        until = from_ms(max(matching.values()) + place.retention_ms)
    return Held(topic=place.topic, kind=place.kind, records=len(matching), until=until)


async def _numbered(at: Scope, topic: str) -> AsyncIterator[tuple[int, Record]]:
    """Every committed record of *topic*, counted."""
    number = 0
    with broker_errors(f"reading {topic}"):
        async with reading(at.connection, (topic,), at.partitions.get(topic, 0)) as reader:
            async for record in reader.everything():
                yield number, record
                number += 1


async def _mapped(at: Scope, log: str) -> AsyncIterator[tuple[str, str]]:
    """Native key and contact key, as decode learnt them one after another."""
    if log in at.partitions:
        async for _, record in _numbered(at, log):
            if record.key and record.value:
                yield record.key.decode(), msgspec.msgpack.decode(record.value, type=str)


async def _numbers(at: Scope, keys: Collection[str]) -> AsyncIterator[str]:
    """The numbers of the contacts under the contact *keys*."""
    for table, field in _NUMBERS.items():
        if table not in at.partitions:
            continue
        async for _, record in _numbered(at, table):
            if record.value and record.key and record.key.decode().partition("|")[0] in keys:
                number = orjson.loads(record.value).get(field)
                if number:
                    yield number
