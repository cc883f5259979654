"""Every record of every public topic is a CloudEvent for the official SDKs, in Python and in Java."""

import asyncio
import struct
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

import orjson
import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event
from msgspec.structs import replace

from pipeline.codec import Codec, Record, text_headers
from pipeline.headers import decoded
from pipeline.instants import Time, to_ms
from pipeline.runtime.dead_letters import Place, made
from pipeline.stage import Emit, Event, Reject
from pipeline.testing import Driver
from pipeline.topics import Deprecation, Topics, load
from tests.contract import standards
from tests.contract.golden_values import VALUES
from tests.topology.oracle_run import Run
from tests.unit.receiver_world import SAKARI_PATH, message, receiving

TOPICS = load()
PUBLIC = {name: topic for name, topic in TOPICS.items() if topic.visibility == "public"}
NOON = Time("2030-01-10T12:00:00.250Z")
CAUSE = Event[None](topic="", key="", value=None, id="c", received_at=1_893_456_000_000, backfill=True)


def encoded(codec: Codec, emit: Emit) -> Record:
    """The first record that *emit* amounts to."""
    output = codec.encode(emit, CAUSE, "stage", 0)[0]
    return Record(output.topic, output.partition, 0, *output[2:5], tuple(output.headers))


def of_each_type() -> Iterator[Record]:
    """A record of each type on each public topic, and a tombstone of each table."""
    codec = Codec(TOPICS, 2)
    for topic in PUBLIC.values():
        for name in (each for each in topic.types if each != "raw"):
            _, key, value = VALUES[name]
            yield encoded(codec, Emit(topic.name, key, value, occurred_at=NOON))
            if topic.is_table:
                yield encoded(codec, Emit(topic.name, key, None))


def of_a_topic_that_ends() -> Iterator[Record]:
    """A record and a tombstone of users.tags while its successor is written too."""
    end = Deprecation(until="2030-12-31", instead="users.tags.v2")
    topics = {**TOPICS, "users.tags": replace(TOPICS["users.tags"], deprecated=end)}
    codec = Codec(Topics(topics.values(), TOPICS.profiles.values(), TOPICS.changelogs), 2)
    for value in (VALUES["users.tag.v1"][2], None):
        yield encoded(codec, Emit("users.tags", "acme:1", value))


def received() -> Record:
    """What the receiver makes of a webhook."""

    async def asked() -> Record:
        async with receiving() as world:
            await world.post(SAKARI_PATH, orjson.dumps(message()))
            (output,) = world.published.outputs
            return Record(output.topic, output.partition, 0, *output[2:5], tuple(output.headers))

    return asyncio.run(asked())


def of_a_dead_letter() -> Iterator[Record]:
    """What becomes of a public record and of one of an internal topic, which is no CloudEvent itself."""
    codec = Codec(TOPICS, 2)
    for topic, name in (("users.tags", "users.tag.v1"), ("users.tags.by-partition", "users.tag.v1")):
        refused = encoded(codec, Emit(topic, "acme:1", VALUES[name][2]))
        _, sent = made(Place("enrich", topic, 0), refused, Reject("a-reason"), 1)
        yield Record("dead-letters", 0, 0, *sent[:3], tuple(decoded(sent[3])))


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """What stages wrote to public topics in a story of 300 webhooks, played to its end."""
    driver: Driver = Run(tmp_path_factory.mktemp("story") / "ledger", webhooks=300).play().driver
    written = [name for name in PUBLIC if name not in {"sources.received", "dead-letters"}]
    return [record for name in written for record in driver.records(name)]


@pytest.fixture(scope="module")
def records(played: list[Record]) -> list[Record]:
    """All that is to be a CloudEvent."""
    return [*played, *of_each_type(), *of_a_topic_that_ends(), *of_a_dead_letter(), received()]


def test_the_records_are_of_every_public_topic(played: list[Record], records: list[Record]) -> None:
    """Of all types, with tombstones; a story alone tells of most."""
    assert {record.topic for record in records} == set(PUBLIC)
    assert len({text_headers(record.headers)["ce_type"] for record in played}) > 15
    removed = {record.topic for record in records if record.value is None}
    assert removed == {name for name, topic in PUBLIC.items() if topic.is_table}


def test_the_python_sdk_reads_every_record(records: list[Record]) -> None:
    """Attributes are the headers, data is the value; a tombstone is an event without data."""
    for record in records:
        told = text_headers(record.headers)
        event = from_binary_event(KafkaMessage(dict(record.headers), record.key, record.value or b""))
        read = (event.get_id(), event.get_source(), event.get_type(), event.get_subject())
        assert read == tuple(told.get(f"ce_{name}") for name in ("id", "source", "type", "subject"))
        assert event.get_time() == datetime.fromisoformat(told["ce_time"])
        assert isinstance(event.get_data(), dict) if record.value else event.get_data() is None


def test_the_java_sdk_reads_every_record(records: list[Record], tmp_path: Path) -> None:
    """The same, by the deserializer that a Java consumer is given; extensions too."""
    read = standards.java_cloudevents(framed(records), tmp_path)
    assert read == [told_of(record) for record in records]


def told_of(record: Record) -> str:
    """What the Java program prints of *record*."""
    told = text_headers(record.headers)
    extensions = sorted(name[3:] for name in told if name in {"ce_sunset", "ce_successor"})
    words = [told.get(f"ce_{name}", "null") for name in ("id", "source", "type", "subject")]
    words += [str(to_ms(Time(told["ce_time"]))), told.get("content-type", "null")]
    return "\t".join((*words, str(-1 if record.value is None else len(record.value)), ",".join(extensions)))


def framed(records: Iterable[Record]) -> bytes:
    """*records* as the Java program reads them."""
    found = list(records)
    parts = [_number(len(found))]
    for record in found:
        parts.append(_number(len(record.headers)))
        for name, value in record.headers:
            parts += [_bytes(name.encode()), _bytes(value)]
        parts.append(_bytes(record.value))
    return b"".join(parts)


def _number(value: int) -> bytes:
    return struct.pack(">i", value)


def _bytes(value: bytes | None) -> bytes:
    return _number(-1) if value is None else _number(len(value)) + value
