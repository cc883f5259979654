"""What runs beside the tasks: the publisher, the small tables, the admin port."""

import time
import uuid
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from pipeline.codec import Codec, Output
from pipeline.errors import BrokerError
from pipeline.events import Fingerprint
from pipeline.runtime.admin import ensure
from pipeline.runtime.connection import Connection
from pipeline.runtime.health import AdminServer
from pipeline.runtime.publisher import Publisher
from pipeline.runtime.table import KafkaTable
from pipeline.runtime.topic_plan import wanted
from pipeline.settings import AdminSettings, KafkaSettings, RuntimeSettings
from pipeline.stage import NOTHING, Event, Outcome, Stores
from pipeline.topics import load
from tests.broker.runtime_world import Running, World, running, until
from tests.broker.wire import Wire

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def table(kafka: str) -> KafkaTable[Fingerprint]:
    """The topic ``meta`` as a table."""
    topics = load()
    made = [each for each in wanted(topics, topics.profile("dev"), "app") if each.name == "meta"]
    await ensure({"bootstrap_servers": kafka}, made)
    connection = Connection(KafkaSettings(bootstrap_servers=kafka), RuntimeSettings())
    return KafkaTable(connection, Codec(topics, 2, "app"), "meta", Fingerprint)


async def test_a_table_gives_what_was_last_saved(kafka: str) -> None:
    """Load sees the newest value of a key, and None under one that nobody saved."""
    key, kept = uuid.uuid4().hex, await table(kafka)
    assert await kept.load(key) is None
    await kept.save(key, Fingerprint("one"))
    await kept.save(key, Fingerprint("two"))
    other = await table(kafka)
    assert await other.load(key) == Fingerprint("two")
    await kept.close()


async def test_a_published_record_is_there(kafka: str, tmp_path: Path) -> None:
    """When publish returns the record can be read, with its time and headers."""
    world = World(kafka, tmp_path)
    await world.prepare(world.stage())
    publisher = Publisher(world.cluster().connection, 5)
    at = 1_790_000_000_000
    await publisher.publish(Output(world.output, 1, at, b"k", b"v", [("h", b"x")]))
    await publisher.close()
    (record,) = await world.records(at_least=1)
    assert record[1:] == (1, 0, at, b"k", b"v", (("h", b"x"),))


async def test_a_publisher_without_kafka_says_so() -> None:
    """Nobody listens: a BrokerError within the bound, whatever aiokafka raises; and again the next time."""
    connection = Connection(KafkaSettings(bootstrap_servers="127.0.0.1:1"), RuntimeSettings())
    publisher = Publisher(connection, 2)
    for _ in range(2):
        with pytest.raises(BrokerError, match=r"writing to t\.x"):
            await publisher.publish(Output("t.x", 0, 0, b"k", b"v", []))
    await publisher.close()


async def test_the_admin_port_tells_health_and_metrics(kafka: str, tmp_path: Path) -> None:
    """Ready turns from 503 with the reasons to 200; the metrics count what was processed."""
    world = World(kafka, tmp_path)
    stage = world.stage()
    await world.prepare(stage)
    cluster = world.cluster()
    unready = {"count": "waiting for partitions"}
    admin = AdminServer(AdminSettings(port=0), cluster.metrics, lambda: unready)
    async with running(world, stage, services=[admin], cluster=cluster) as one:
        await one.ready()
        await world.send(("k", "r"))
        await world.told(at_least=1)
        async with aiohttp.ClientSession(admin.url) as session:
            assert (await session.get("/live")).status == 200
            first = await session.get("/ready")
            assert (first.status, (await first.json())["unready"]) == (503, unready)
            unready.clear()
            assert (await session.get("/ready")).status == 200
            text = await (await session.get("/metrics")).text()
    assert f'pipeline_records_total{{stage="{stage.name}"}} 1.0' in text
    assert f'pipeline_output_latency_seconds_count{{topic="{world.output}"}} 1.0' in text


async def test_the_lag_is_what_is_not_processed(kafka: str, tmp_path: Path) -> None:
    """The lag falls to zero when everything is processed, the control records at the ends included."""
    world = World(kafka, tmp_path)
    stage = world.stage()
    await world.prepare(stage)
    await world.send(*((f"k{number}", "r") for number in range(20)))
    async with running(world, stage) as one:
        await one.ready()
        await world.told(at_least=20)
        await until(lambda: all(task.idle for task in one.tasks().values()), "idle")
        assert await one.worker.lags() == {stage.name: 0}
    with pytest.raises(BrokerError, match="has no partitions now"):
        await one.worker.lags()


def value(one: Running, name: str, **labels: str) -> float | None:
    """What the process tells now as the metric *name*."""
    return one.cluster.metrics.registry.get_sample_value(name, labels)


async def test_a_stage_tells_what_it_did_and_holds(kafka: str, tmp_path: Path) -> None:
    """Its delay, its inbox, its store and its dead letters by reason are measured while it works."""
    world = World(kafka, tmp_path)
    stage = world.stage()
    await world.prepare(stage)
    place = {"stage": stage.name, "partition": "0"}
    async with running(world, stage) as one:
        await one.ready()
        await world.send(
            *((f"k{number}", "r") for number in range(20)), at_ms=time.time_ns() // 1_000_000 - 60_000
        )
        await world.send_raw(("k", b"{no json"), topic=world.input)
        await world.dead_letters(at_least=1)
        await until(lambda: value(one, "pipeline_inbox_records", **place) == 0, "an inbox that was looked at")
        await until(lambda: (value(one, "pipeline_store_bytes", **place) or 0) > 0, "a store with a size")
        assert 60 <= (value(one, "pipeline_event_delay_seconds", stage=stage.name) or 0) < 120
        reason = {"stage": stage.name, "reason": "invalid-value"}
        assert value(one, "pipeline_dead_letters_total", **reason) == 1


def slow(_: Stores, __: Event[Any]) -> Outcome:
    """A step that lets others wait for a while."""
    time.sleep(0.005)
    return NOTHING


async def test_a_lag_is_told_in_records_and_seconds_and_is_seen_to_be_stale(
    wire: Wire, tmp_path: Path
) -> None:
    """What waits is counted and has an age; where nobody can read it any more, its time stands still."""
    world = World(wire.kafka, tmp_path, batch_records=5)
    stage = world.stage(slow)
    await world.prepare(stage)
    await world.send(*(("k", "r") for _ in range(3_000)), at_ms=time.time_ns() // 1_000_000 - 60_000)
    partition = str(world.codec.placed(world.topics[world.input], "k")[0])
    place = {"stage": stage.name, "partition": partition}
    async with running(world, stage) as one:
        await until(lambda: (value(one, "pipeline_lag_records", **place) or 0) > 0, "a lag in records")
        await until(
            lambda: 60 <= (value(one, "pipeline_lag_seconds", **place) or 0) < 120, "a lag in seconds"
        )
        assert (one.worker.last_lags[stage.name] or 0) > 0
        wire.network.stalled = True
        await until(lambda: one.worker.last_lags[stage.name] is None, "a lag that is not known any more")
        read = value(one, "pipeline_lag_read_timestamp_seconds", stage=stage.name) or 0
        assert time.time() - read > 5
        wire.network.heal()
        await until(lambda: one.worker.last_lags[stage.name] is not None, "a lag that is known again")
