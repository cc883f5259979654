"""What a reader is given: everything up to an end, and then what comes."""

import uuid

import pytest
from aiokafka import TopicPartition

from pipeline.runtime.admin import ensure
from pipeline.runtime.connection import Connection
from pipeline.runtime.reader import reading
from pipeline.runtime.topic_plan import Wanted
from pipeline.settings import KafkaSettings, RuntimeSettings

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEYS = [b"0", b"1", b"2", b"3"]


async def test_what_is_fetched_beyond_the_end_is_given_next(kafka: str) -> None:
    """One fetch holds records on both sides of an end: those behind it are neither given early nor lost."""
    connection = Connection(KafkaSettings(bootstrap_servers=kafka), RuntimeSettings())
    topic = f"reader-{uuid.uuid4().hex[:8]}"
    wanted = Wanted(name=topic, partitions=1, replication=1, configs={}, keyed=False)
    await ensure(connection.common, [wanted])
    async with connection.producer() as producer:
        for key in KEYS:
            await producer.send_and_wait(topic, b"", key=key, partition=0)
    async with reading(connection, (topic,), 1) as reader:
        before = [record.key async for record in reader.everything({TopicPartition(topic, 0): 2})]
        after = [record.key for record in await reader.poll()]
    assert (before, after) == (KEYS[:2], KEYS[2:])
