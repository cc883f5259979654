"""The publisher: many who wait for one acknowledgement, and nobody who waits for ever."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from pipeline.codec import Output
from pipeline.errors import BrokerError
from pipeline.runtime.connection import Connection
from pipeline.runtime.publisher import APART_S, Publisher
from pipeline.settings import KafkaSettings, RuntimeSettings
from tests.broker.runtime_world import World

pytestmark = pytest.mark.asyncio(loop_scope="session")

AT_MS = 1_790_000_000_000


class Watched(Connection):
    """Notes when a producer of its takes a batch, and for which partition."""

    def __init__(self, kafka: KafkaSettings) -> None:
        super().__init__(kafka, RuntimeSettings())
        self.left: list[tuple[float, int]] = []

    def producer(self, transactional_id: str | None = None) -> AIOKafkaProducer:
        """A producer that is watched."""
        made = super().producer(transactional_id)
        send = made.send_batch

        async def noted(batch: Any, topic: str, *, partition: int) -> Any:
            self.left.append((time.monotonic(), partition))
            return await send(batch, topic, partition=partition)

        made.send_batch = noted
        return made


@asynccontextmanager
async def publishing(world: World) -> AsyncIterator[Publisher]:
    """A publisher to the world's cluster, whose topics are there."""
    await world.prepare(world.stage())
    publisher = Publisher(world.cluster().connection, 10)
    try:
        yield publisher
    finally:
        await publisher.close()


def record(world: World, number: int, value: bytes = b"") -> Output:
    """The record of this number, all on one partition."""
    return Output(world.output, 1, AT_MS, b"k", value or str(number).encode(), [])


async def rested(publisher: Publisher) -> None:
    """Return when a record that comes now leaves at once."""
    while asyncio.get_running_loop().time() < publisher._departed_at + APART_S:  # noqa: ASYNC110 - no event
        await asyncio.sleep(0)


async def test_many_at_a_time_are_all_there_once_and_in_order(kafka: str, tmp_path: Path) -> None:
    """Whoever waits for one partition shares a batch, in the order of the calls."""
    world = World(kafka, tmp_path)
    async with publishing(world) as publisher:
        await asyncio.gather(*(publisher.publish(record(world, number)) for number in range(500)))
        told = [each.value for each in await world.records(at_least=500)]
    assert told == [str(number).encode() for number in range(500)]


@asynccontextmanager
async def watching(kafka: str, tmp_path: Path) -> AsyncIterator[tuple[World, Watched, Publisher]]:
    """A publisher whose batches are noted as they leave."""
    world, connection = World(kafka, tmp_path), Watched(KafkaSettings(bootstrap_servers=kafka))
    await world.prepare(world.stage())
    publisher = Publisher(connection, 10)
    try:
        yield world, connection, publisher
    finally:
        await publisher.close()


async def test_under_load_batches_of_a_partition_keep_their_distance(kafka: str, tmp_path: Path) -> None:
    """However fast Kafka acknowledges, whoever comes within some milliseconds shares a batch."""
    async with watching(kafka, tmp_path) as (world, connection, publisher):
        await publisher.publish(record(world, 0))  # begins the producer
        connection.left.clear()

        async def sender(partition: int) -> None:
            for number in range(20):
                await publisher.publish(record(world, number)._replace(partition=partition))

        await asyncio.gather(*(sender(number % 2) for number in range(20)))
        for partition in (0, 1):
            left = [at for at, where in connection.left if where == partition]
            assert len(left) <= 40
            assert min(later - earlier for earlier, later in pairwise(left)) > 0.003


async def test_a_record_that_comes_alone_leaves_at_once(kafka: str, tmp_path: Path) -> None:
    """Where nothing left just before, no timer is waited for."""
    async with watching(kafka, tmp_path) as (world, connection, publisher):
        await publisher.publish(record(world, 0))
        await rested(publisher)
        alone = asyncio.ensure_future(publisher.publish(record(world, 1)))
        for _ in range(3):
            await asyncio.sleep(0)
        assert len(connection.left) == 2
        await alone


async def test_more_than_a_batch_takes_goes_in_several(kafka: str, tmp_path: Path) -> None:
    """What is left over by a full batch is in the next one."""
    world = World(kafka, tmp_path)
    values = [bytes([65 + number]) * 300_000 for number in range(12)]
    async with publishing(world) as publisher:
        await asyncio.gather(*(publisher.publish(record(world, 0, value)) for value in values))
        assert [each.value for each in await world.records(at_least=12)] == values


async def test_one_who_gives_up_keeps_nobody_waiting(kafka: str, tmp_path: Path) -> None:
    """Cancelled at any moment, its turn to send included: the others' records are durable all the same."""
    world = World(kafka, tmp_path)
    async with publishing(world) as publisher:
        await publisher.publish(record(world, 0))
        for turns in range(12):
            await rested(publisher)
            calls = [asyncio.ensure_future(publisher.publish(record(world, turns))) for _ in range(6)]
            for _ in range(turns):
                await asyncio.sleep(0)
            calls[turns % 3].cancel()
            ended = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 10)
            refused = [each for each in ended if isinstance(each, BrokerError)]
            assert len(refused) <= (5 if turns % 3 == 0 else 0)
            await asyncio.wait_for(publisher.publish(record(world, turns)), 10)


async def test_one_who_gives_up_when_it_is_its_turn_to_send_hands_it_on(kafka: str, tmp_path: Path) -> None:
    """Between the end of one batch and the next nobody is lost."""
    world = World(kafka, tmp_path)
    async with publishing(world) as publisher:
        await publisher.publish(record(world, 0))

        async def first() -> None:
            await publisher.publish(record(world, 1))
            second.cancel()  # its turn has come, and it does not know yet

        await rested(publisher)
        leading = asyncio.ensure_future(first())
        for _ in range(3):  # the first batch is on its way
            await asyncio.sleep(0)
        second = asyncio.ensure_future(publisher.publish(record(world, 2)))
        third = asyncio.ensure_future(publisher.publish(record(world, 3)))
        ended = await asyncio.wait_for(asyncio.gather(leading, second, third, return_exceptions=True), 10)
        assert [type(each) for each in ended] == [type(None), asyncio.CancelledError, type(None)]


async def test_a_record_that_cannot_be_written_keeps_nobody_waiting(kafka: str, tmp_path: Path) -> None:
    """Its caller is told; the others' records are durable, or they are told that they may not be."""
    world = World(kafka, tmp_path)
    async with publishing(world) as publisher:
        outputs = [record(world, number) for number in range(6)]
        outputs[2] = outputs[2]._replace(headers=[("h", "no bytes")])  # type: ignore[list-item]
        calls = asyncio.gather(*(publisher.publish(each) for each in outputs), return_exceptions=True)
        ended = await asyncio.wait_for(calls, 10)
        assert isinstance(ended[2], TypeError | BrokerError)
        assert [each for each in ended[3:] if each is not None] == []


async def test_without_kafka_all_are_told_so_in_time() -> None:
    """However many wait, none waits longer than the bound and its turn."""
    connection = Connection(KafkaSettings(bootstrap_servers="127.0.0.1:1"), RuntimeSettings())
    publisher, begun = Publisher(connection, 2), time.monotonic()
    output = Output("t.x", 0, 0, b"k", b"v", [])
    ended = await asyncio.gather(*(publisher.publish(output) for _ in range(50)), return_exceptions=True)
    assert {type(each) for each in ended} == {BrokerError}
    assert time.monotonic() - begun < 10
