"""`pipeline bench tally` against a real Kafka: the work that is measured is done right."""

import asyncio
import uuid
from collections import Counter, defaultdict

import msgspec
import orjson
import pytest
from aiokafka import AIOKafkaProducer

from pipeline.cli import main
from pipeline.codec import Record, text_headers
from pipeline.runtime.connection import Connection
from pipeline.runtime.reader import reading
from pipeline.settings import KafkaSettings, RuntimeSettings
from tests.bench.fill import fill, make, records

pytestmark = pytest.mark.asyncio(loop_scope="session")

Captured = pytest.CaptureFixture[str]
PARTITIONS, RECORDS, KEYS = 2, 3_000, 40
CLOUD_EVENTS = {"ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_subject"}
ATTRIBUTES = CLOUD_EVENTS | {"content-type", "traceparent"}


async def tally(kafka: str, topic: str, count: int = RECORDS) -> int:
    """Run the command in a thread: it has an event loop of its own."""
    words = ["bench", "tally", "--bootstrap", kafka, "--topic", topic, "--records", str(count), "--json"]
    return await asyncio.to_thread(main, words)


async def filled(kafka: str) -> str:
    """A fresh topic with `RECORDS` records over `KEYS` keys."""
    topic = f"b{uuid.uuid4().hex[:8]}"
    await fill(kafka, topic, RECORDS, KEYS, PARTITIONS)
    return topic


async def read(kafka: str, topic: str) -> list[Record]:
    """Every committed record of *topic*."""
    connection = Connection(KafkaSettings(bootstrap_servers=kafka), RuntimeSettings())
    async with reading(connection, (topic,), PARTITIONS) as reader:
        return [record async for record in reader.everything()]


async def write(kafka: str, topic: str, value: bytes) -> None:
    """Write *value* under key k."""
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        await producer.send_and_wait(topic, value, b"k")


async def test_every_event_is_passed_on_once_with_its_count(kafka: str, capsys: Captured) -> None:
    """The output holds each input once, per key in order, with the count that is due to it."""
    topic = await filled(kafka)
    assert await tally(kafka, topic) == 0
    due: Counter[str] = Counter()
    expected = defaultdict(list)
    for key, value in records(RECORDS, KEYS):
        due[key.decode()] += 1
        expected[key].append(orjson.loads(value) | {"count": due[key.decode()]})
    found = defaultdict(list)
    for record in await read(kafka, f"{topic}.out"):
        found[record.key].append(orjson.loads(record.value or b""))
    assert found == expected
    figures = orjson.loads(capsys.readouterr().out)
    assert (figures["kind"], figures["work"], figures["records"]) == ("bench", "tally", RECORDS)


async def test_an_output_carries_all_attributes(kafka: str) -> None:
    """CloudEvents attributes and trace are there and filled, ``ce_id`` differs from record to record."""
    topic = await filled(kafka)
    await tally(kafka, topic)
    headers = [text_headers(record.headers) for record in await read(kafka, f"{topic}.out")]
    assert all(set(each) == ATTRIBUTES and all(each.values()) for each in headers)
    assert len({each["ce_id"] for each in headers}) == RECORDS
    assert (headers[0]["ce_type"], headers[0]["content-type"]) == ("bench.counted.v1", "application/json")


async def test_the_changelog_holds_the_last_count_of_each_key(kafka: str, capsys: Captured) -> None:
    """What a restart would restore is what was counted."""
    topic = await filled(kafka)
    await tally(kafka, topic)
    log = await read(kafka, orjson.loads(capsys.readouterr().out)["changelog"])
    counts = {record.key: msgspec.msgpack.decode(record.value) for record in log if record.value}
    assert counts == {key: RECORDS // KEYS for key, _ in records(KEYS, KEYS)}


async def test_it_stops_at_the_number_asked_for(kafka: str, capsys: Captured) -> None:
    """Of a longer topic it counts as many as asked, up to the end of a transaction."""
    topic = await filled(kafka)
    assert await tally(kafka, topic, 10) == 0
    figures = orjson.loads(capsys.readouterr().out)
    assert figures["records"] >= 10
    assert figures["records_per_s"] == pytest.approx(figures["records"] / figures["seconds"], rel=0.05)


async def test_runs_are_independent(kafka: str) -> None:
    """The second run begins at zero and at the beginning, and adds its results to the same topic."""
    topic = await filled(kafka)
    assert await tally(kafka, topic) == await tally(kafka, topic) == 0
    found = await read(kafka, f"{topic}.out")
    counts = Counter(orjson.loads(record.value or b"")["count"] for record in found)
    assert counts == dict.fromkeys(range(1, RECORDS // KEYS + 1), 2 * KEYS)


async def test_a_topic_that_is_not_there_is_refused(kafka: str, capsys: Captured) -> None:
    """The error names the option, and no topic is made."""
    assert await tally(kafka, "nowhere") == 2
    told = orjson.loads(capsys.readouterr().err)
    assert told["problems"] == ["--topic: there is no topic 'nowhere' at this cluster"]


async def test_a_kafka_that_does_not_answer_is_told(capsys: Captured) -> None:
    """The error names the option and the address, and nothing else is said."""
    assert await tally("127.0.0.1:1", "any") == 1
    (told,) = orjson.loads(capsys.readouterr().err)["problems"]
    assert told.startswith("--bootstrap: cannot connect at 127.0.0.1:1")


async def test_too_few_records_are_refused(kafka: str, capsys: Captured) -> None:
    """It does not wait for what will not come."""
    topic = await filled(kafka)
    assert await tally(kafka, topic, RECORDS + 1) == 2
    told = orjson.loads(capsys.readouterr().err)
    assert told["problems"] == [f"--records: {RECORDS + 1}, but {topic} holds {RECORDS}"]


async def test_records_that_are_no_events_are_told(kafka: str, capsys: Captured) -> None:
    """A figure for records that were not counted is none."""
    topic = await filled(kafka)
    await write(kafka, topic, b'{"eventId":"1"}')
    assert await tally(kafka, topic, RECORDS + 1) == 2
    (told,) = orjson.loads(capsys.readouterr().err.splitlines()[-1])["problems"]
    assert told.startswith(f"--topic: 1 records of {topic} have no key, or are no JSON objects")


async def test_an_output_of_another_size_is_refused(kafka: str, capsys: Captured) -> None:
    """Keys would stand on other partitions than their counts."""
    topic = await filled(kafka)
    await make(kafka, f"{topic}.out", PARTITIONS + 1)
    assert await tally(kafka, topic) == 2
    assert f"{topic}.out has 3 partitions" in capsys.readouterr().err
