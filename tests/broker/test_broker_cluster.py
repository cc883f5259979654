"""Three embedded nodes as one cluster: one may die, hang and come back, and nothing acknowledged is lost."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from pipeline.runtime import run, topic_plan
from pipeline.runtime.admin import Admin, ensure
from pipeline.runtime.broker_cluster import EmbeddedCluster, kept_ports
from pipeline.runtime.connection import Connection
from pipeline.runtime.topic_plan import Wanted
from pipeline.settings import KafkaSettings, RuntimeSettings
from pipeline.topics import Profile, load

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEADLINE_S = 60.0
PROFILE = Profile(
    name="three",
    partitions=3,
    replication=3,
    min_insync_replicas=2,
    segment_bytes=2**20,
    segment_ms=600_000,
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedCluster]:
    """A cluster for all tests here; each leaves all nodes running."""
    async with EmbeddedCluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


def wanted(name: str) -> Wanted:
    """A topic that is on every node, and is written to while two have it."""
    configs = {"min.insync.replicas": "2"}
    return Wanted(name=name, partitions=3, replication=3, configs=configs, keyed=True)


async def write(cluster: EmbeddedCluster, topic: str, *values: bytes) -> None:
    """Write *values* to every partition of *topic*, each acknowledged."""
    settings = {"acks": "all", "enable_idempotence": True, "request_timeout_ms": 3_000}
    producer = AIOKafkaProducer(bootstrap_servers=cluster.bootstrap_servers, **settings)
    async with asyncio.timeout(DEADLINE_S), producer:
        for value in values:
            for partition in range(3):
                await producer.send_and_wait(topic, value, partition=partition)


async def read(cluster: EmbeddedCluster, topic: str, count: int) -> list[bytes]:
    """The first *count* values of *topic*, in order."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=cluster.bootstrap_servers,
        auto_offset_reset="earliest",
        request_timeout_ms=3_000,
    )
    async with asyncio.timeout(DEADLINE_S), consumer:
        consumer.assign([TopicPartition(topic, partition) for partition in range(3)])
        return sorted([(await consumer.getone()).value for _ in range(count)])


async def test_every_topic_is_made_on_all_nodes(cluster: EmbeddedCluster) -> None:
    """Applying topics.yaml is done when it says so, though each node learns of a topic in its own time."""
    common = {"bootstrap_servers": cluster.bootstrap_servers}
    topics = topic_plan.wanted(load(), PROFILE, "app")
    await ensure(common, topics)
    async with Admin(common) as admin:
        plan = await admin.plan(topics)
    assert plan.is_clean
    assert {found.replication for found in plan.found.values()} == {3}


async def test_a_process_starts_while_a_node_is_away(cluster: EmbeddedCluster) -> None:
    """Others know as much: whichever node is asked first, and however often."""
    kafka = KafkaSettings(bootstrap_servers=cluster.bootstrap_servers)
    connection = Connection(kafka, RuntimeSettings())
    await cluster.nodes[2].kill()
    try:
        answers = [await run._asked(connection, []) for _ in range(8)]
    finally:
        await cluster.nodes[2].start()
    assert len({cluster_id for cluster_id, _ in answers}) == 1


async def test_a_killed_node_is_missed_by_nobody(cluster: EmbeddedCluster) -> None:
    """Writing goes on without it; back again it has what it missed, so another one may go."""
    await ensure({"bootstrap_servers": cluster.bootstrap_servers}, [wanted("killed")])
    for number, node in enumerate(cluster.nodes[:2]):
        await node.kill()
        assert not node.running
        await write(cluster, "killed", b"%d" % number)
        await node.start()
    assert await read(cluster, "killed", 6) == [b"0"] * 3 + [b"1"] * 3


async def test_a_frozen_node_leads_nothing_any_more(cluster: EmbeddedCluster) -> None:
    """Its connections stay open and say nothing; others take over, and it goes on as if nothing was."""
    await ensure({"bootstrap_servers": cluster.bootstrap_servers}, [wanted("frozen")])
    node = cluster.nodes[0]
    node.freeze()
    try:
        await write(cluster, "frozen", b"without")
    finally:
        node.thaw()
    await write(cluster, "frozen", b"with")
    assert await read(cluster, "frozen", 6) == [b"with"] * 3 + [b"without"] * 3


async def test_clients_are_told_where_the_caller_wants_them(tmp_path: Path) -> None:
    """Whoever asks a node for the cluster's addresses hears of the proxies, and of nothing else."""
    advertised = kept_ports(1)
    async with EmbeddedCluster(tmp_path, count=1, advertised_ports=advertised) as single:
        told = await _brokers(single.nodes[0].port)
        assert single.bootstrap_servers == f"127.0.0.1:{advertised[0]}"
    assert told == {("127.0.0.1", advertised[0])}


async def _brokers(port: int) -> set[tuple[str, int]]:
    from aiokafka.client import AIOKafkaClient

    client = AIOKafkaClient(bootstrap_servers=f"127.0.0.1:{port}")
    try:
        async with asyncio.timeout(DEADLINE_S):
            await client.bootstrap()
        return {(broker.host, broker.port) for broker in client.cluster.brokers()}
    finally:
        await client.close()
