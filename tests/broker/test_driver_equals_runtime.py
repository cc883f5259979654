"""
Driver and runtime execute the same task code.

What a story's webhooks and polls put on a real Kafka goes through the runtime's workers, is read back as
it was recorded, and goes through the driver: the tables that other teams read must be the same.
"""

from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from pipeline.codec import Codec, Places, Record
from pipeline.effects import Unit
from pipeline.headers import encoded
from pipeline.identity import Identity
from pipeline.logs import mask
from pipeline.runtime.admin import ensure
from pipeline.runtime.broker import EmbeddedBroker
from pipeline.runtime.cluster import Cluster
from pipeline.runtime.connection import Connection
from pipeline.runtime.metrics import Metrics
from pipeline.runtime.reader import Reader, reading
from pipeline.runtime.topic_plan import wanted
from pipeline.runtime.transaction import TransactionalProducer
from pipeline.runtime.worker import Worker
from pipeline.settings import KafkaSettings, RuntimeSettings
from pipeline.stage import Stage
from pipeline.testing import Driver
from pipeline.topics import load
from pipeline.topology import stages
from tests.broker.runtime_world import Running, started, until_it
from tests.topology.oracle_run import SECRET, Run

pytestmark = pytest.mark.asyncio(loop_scope="session")

SOURCES = ("sources.received", "clock.ticks")
TABLES = ("contacts.enriched", "engagement.contacts", "engagement.metrics")


def cluster_of(kafka: str, folder: Path) -> Cluster:
    """A process with the project's own topics."""
    settings = RuntimeSettings(state_dir=folder, session_timeout_ms=6_000, heartbeat_interval_ms=500)
    return Cluster(
        id="cluster",
        application_id="same",
        partitions=2,
        connection=Connection(KafkaSettings(bootstrap_servers=kafka), settings),
        codec=Codec(load(), 2, "same"),
        settings=settings,
        metrics=Metrics(),
        mask=mask,
    )


async def prepared(kafka: str, made: Iterable[Stage]) -> None:
    """The project's topics, taking records of any time: the story plays in another year."""
    topics = load()
    any_time = {"message.timestamp.after.max.ms": str(1 << 60)}
    planned = wanted(topics, topics.profile("dev"), "same", made)
    await ensure(
        {"bootstrap_servers": kafka},
        [msgspec.structs.replace(each, configs={**each.configs, **any_time}) for each in planned],
    )


async def recorded(connection: Connection, topics: Iterable[str]) -> list[Record]:
    """Every record of *topics*."""

    async def everything(reader: Reader) -> list[Record]:
        return [record async for record in reader.everything()]

    async with reading(connection, topics, 2) as reader:
        return sorted(await everything(reader), key=lambda r: (r.topic, r.partition, r.offset))


async def play(cluster: Cluster, story: Driver, made: Iterable[Stage]) -> None:
    """Put the story's sources on Kafka, and let one stage after another work them off."""
    producer = TransactionalProducer(cluster.connection, "same.story", "same", 30)
    await producer.start()
    records = [record for topic in SOURCES for record in story.records(topic)]
    places: Places = {}
    for r in records:
        places.setdefault((r.topic, r.partition), []).append(
            (r.timestamp, r.key, r.value, encoded(list(r.headers)))
        )
    await producer.commit(places, {})
    await producer.drop()
    for stage in made:
        async with started(Worker([Unit(stage=stage)], cluster), cluster) as one:
            await one.ready()
            await until_it(lambda: _drained(one), f"{stage.name} to be done", 60)


async def _drained(one: Running) -> bool:
    lags = await one.worker.lags()
    return not any(lags.values()) and all(task.idle for task in one.tasks().values())


def values(table: dict[str, Any]) -> dict[str, Any]:
    """*table* without the revisions, which count the batches too."""
    return {
        key: msgspec.structs.replace(value, revision=0) if hasattr(value, "revision") else value
        for key, value in table.items()
    }


def untagged(table: dict[str, Any]) -> dict[str, Any]:
    """
    *table* without the windows of tags.

    A message counts for the tags that its contact had when it was enriched. Which of two topics enrich
    saw first is not recorded.
    """
    return {key: value for key, value in values(table).items() if "|tag:" not in key}


@pytest_asyncio.fixture(loop_scope="session")
async def empty_kafka() -> AsyncIterator[str]:
    """The bootstrap servers of a Kafka whose topics nobody else writes to: they are compared whole."""
    async with EmbeddedBroker() as broker:
        yield broker.bootstrap_servers


async def test_a_broker_run_through_the_driver_ends_with_the_same_tables(
    empty_kafka: str, tmp_path: Path
) -> None:
    """Recorded inputs of a run on Kafka, taken through the driver, leave the same final tables."""
    story = Run(tmp_path / "ledger", webhooks=300).play()
    made = stages(story.settings(), Identity(SECRET))
    await prepared(empty_kafka, made)
    cluster = cluster_of(empty_kafka, tmp_path / "state")
    await play(cluster, story.driver, made)
    runtime = await taken(cluster, (), TABLES)
    whole = await taken(cluster, made, SOURCES)
    counted = await taken(cluster, made[-2:], ("activity.enriched", "clock.ticks"))
    for table in TABLES:
        assert len(runtime.table(table)) > 20
        assert untagged(runtime.table(table)) == untagged(whole.table(table))
    for table in TABLES[1:]:
        assert values(runtime.table(table)) == values(counted.table(table))


async def taken(cluster: Cluster, made: Iterable[Stage], topics: Iterable[str]) -> Driver:
    """What the records of *topics* come to when a driver's *made* stages take them."""
    driver = Driver(made, batches=(1_000_000,))
    for record in await recorded(cluster.connection, topics):
        driver.append(record)
    driver.run()
    return driver
