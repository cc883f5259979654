"""Who cannot keep up, or has nowhere to put things, holds up nobody else and fills no memory."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from pipeline.codec import Codec
from pipeline.logs import mask
from pipeline.runtime.admin import ensure
from pipeline.runtime.cluster import Cluster
from pipeline.runtime.connection import Connection
from pipeline.runtime.group import _FETCH_RECORDS
from pipeline.runtime.metrics import Metrics
from pipeline.runtime.publisher import Publisher
from pipeline.runtime.reader import reading
from pipeline.runtime.topic_plan import wanted
from pipeline.runtime.worker import Worker
from pipeline.settings import KafkaSettings, RuntimeSettings
from pipeline.sinks.statistics.state import PENDING
from pipeline.sources.receiver import Receiver
from pipeline.stage import Emit, Event, Outcome, Stage, Stores
from pipeline.topics import load
from tests.broker.runtime_world import Running, World, count_and_pass, running, started, until
from tests.broker.wire import Wire
from tests.unit.client_server import users
from tests.unit.receiver_world import SAKARI_PATH, message, settings
from tests.unit.sink_context import sink, tenant, window
from tests.unit.test_sink_effect import Destination

pytestmark = pytest.mark.asyncio(loop_scope="session")

WINDOWS = 25
REVISIONS = 40

#: What the receiver of these tests waits for Kafka's acknowledgement, in seconds.
PRODUCE_S = 2.0

IN_FLIGHT = 10


async def test_a_slow_stage_fills_no_memory(kafka: str, tmp_path: Path) -> None:
    """However much waits on Kafka, an inbox holds no more than its bound and one fetch."""
    world = World(kafka, tmp_path, batch_records=100)
    count, most = count_and_pass(world.output), 0

    def slow(read: Stores, event: Event[Any]) -> Outcome:
        nonlocal most
        most = max([most, *(len(task.inbox) for task in one.tasks().values())])
        time.sleep(0.0002)  # a step is synchronous, and this one takes its time
        return count(read, event)

    stage = world.stage(slow)
    await world.prepare(stage)
    await world.send(*(("k", f"r{number}") for number in range(4 * _FETCH_RECORDS)))
    async with running(world, stage) as one:
        await world.told(at_least=4 * _FETCH_RECORDS)
    assert 0 < most <= 200 + _FETCH_RECORDS


def cluster_of(kafka: str, folder: Path) -> Cluster:
    """A process with the project's own topics."""
    made = RuntimeSettings(state_dir=folder, session_timeout_ms=6_000, heartbeat_interval_ms=500)
    return Cluster(
        id="cluster",
        application_id="pressed",
        partitions=2,
        connection=Connection(KafkaSettings(bootstrap_servers=kafka), made),
        codec=Codec(load(), 2, "pressed"),
        settings=made,
        metrics=Metrics(),
        mask=mask,
    )


async def prepare(kafka: str, stages: Iterable[Stage] = ()) -> None:
    """Make the project's topics, and what *stages* need."""
    topics = load()
    await ensure({"bootstrap_servers": kafka}, wanted(topics, topics.profile("dev"), "pressed", stages))


async def publish_windows(cluster: Cluster, revision: int) -> None:
    """Write this *revision* of `WINDOWS` windows of each of two tenants."""
    publisher, now = Publisher(cluster.connection, 10), time.time_ns() // 1_000_000
    for name in ("sound", "stuck"):
        for day in range(1, WINDOWS + 1):
            event = msgspec.structs.replace(window(revision, tenant=name, day=day), received_at=now)
            emit = Emit(event.topic, event.key, event.value)
            for output in cluster.codec.encode(emit, event, "rollup", 0):
                await publisher.publish(output)
    await publisher.close()


def waiting(one: Running, name: str) -> int:
    """How many values of the tenant *name* are kept to be posted."""
    found = [value for task in one.tasks().values() for _, value in task.read.scan(PENDING, "", "~")]
    return sum(value.tenant == name for value in found)


async def test_a_stuck_destination_delays_only_its_own_tenant(wire: Wire, tmp_path: Path) -> None:
    """The other's posts go out; the stuck one's wait in the store, a value per window, and go out later."""
    sound, stuck = Destination(), Destination()
    stuck.gate.clear()
    async with users(sound.answer) as first, users(stuck.answer) as second:
        tenants = {"sound": tenant("loc-1"), "stuck": tenant("loc-2")}
        unit = sink(tenants, {"loc-1": first, "loc-2": second}, open_interval_s=0.05)
        await prepare(wire.kafka, [unit.stage])
        cluster = cluster_of(wire.kafka, tmp_path)
        async with started(Worker([unit], cluster), cluster) as one:
            await one.ready()
            for revision in range(1, REVISIONS + 1):
                await publish_windows(cluster, revision)
            await until(lambda: sound.revisions.count(REVISIONS) == WINDOWS, "the other's posts")
            await until(lambda: one.worker.last_lags == {unit.stage.name: 0}, "an input that does not wait")
            assert [len(task.inbox) for task in one.tasks().values()] == [0, 0]
            assert (waiting(one, "stuck"), REVISIONS in stuck.revisions) == (WINDOWS, False)
            stuck.gate.set()
            await until(lambda: stuck.revisions.count(REVISIONS) == WINDOWS, "the stuck one's posts")


@asynccontextmanager
async def receiving(wire: Wire, folder: Path) -> AsyncIterator[tuple[Receiver, Cluster]]:
    """A receiver that writes to Kafka, as in `pipeline run`."""
    await prepare(wire.kafka)
    cluster = cluster_of(wire.kafka, folder)
    publisher = Publisher(cluster.connection, PRODUCE_S)
    answered = Counter[tuple[str, int]]()
    made = Receiver(
        settings(max_in_flight=IN_FLIGHT),
        cluster.codec,
        publisher.publish,
        lambda product, status: answered.update([(product, status)]),
    )
    async with started(Worker([], cluster, [made]), cluster):
        await until(lambda: made.ready, "the receiver")
        yield made, cluster
    await publisher.close()


async def posted(session: aiohttp.ClientSession, receiver: Receiver, name: str) -> tuple[int, str, str]:
    """Send the webhook *name*: status, Retry-After and text of the answer."""
    body = message(payload={"id": name, "contact": {"id": name}})
    async with session.post(receiver.url + SAKARI_PATH, json=body) as answer:
        return answer.status, answer.headers.get("Retry-After", ""), await answer.text()


async def taken(session: aiohttp.ClientSession, receiver: Receiver, name: str) -> None:
    """Send the webhook *name* as a sender does that is put off: again, until it is taken."""
    async with asyncio.timeout(30):
        while (await posted(session, receiver, name))[0] != 200:
            pass


async def test_a_receiver_without_kafka_puts_senders_off(wire: Wire, tmp_path: Path) -> None:
    """Never a 5xx: what is above its bound is refused at once, the rest in its time; then it takes all."""
    async with receiving(wire, tmp_path) as (receiver, cluster), aiohttp.ClientSession() as session:
        await taken(session, receiver, "before")
        wire.network.stalled = True
        async with asyncio.timeout(PRODUCE_S + 10):
            answers = await asyncio.gather(
                *(posted(session, receiver, f"away-{number}") for number in range(5 * IN_FLIGHT))
            )
        assert {(status, wait) for status, wait, _ in answers} == {(429, "5")}
        assert sum("overloaded" in text for _, _, text in answers) == 4 * IN_FLIGHT
        wire.network.heal()
        await taken(session, receiver, "after")
        stored = await received(cluster)
    assert {"before", "after"} <= set(stored)


async def received(cluster: Cluster) -> Counter[str]:
    """How often each webhook is on ``sources.received``, by its name."""
    async with reading(cluster.connection, ["sources.received"], 2) as reader:
        bodies = [msgspec.json.decode(record.value or b"") async for record in reader.everything()]
    return Counter(body["payload"]["id"] for body in bodies)
