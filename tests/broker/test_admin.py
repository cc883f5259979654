"""Topics as code against a real Kafka: plan, apply, again and at once."""

import asyncio
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from pipeline.errors import BrokerError, ConfigError
from pipeline.runtime.admin import Admin, ensure
from pipeline.runtime.topic_plan import Wanted, wanted
from pipeline.stage import NOTHING, Event, Outcome, Stage, Store, Stores
from pipeline.topics import load

pytestmark = pytest.mark.asyncio(loop_scope="session")


def nothing(_: Stores, __: Event[Any]) -> Outcome:
    """A step that does nothing."""
    return NOTHING


STAGES = (
    Stage(
        name="decode", inputs=("sources.received",), outputs=(), stores=(Store("seen", str),), step=nothing
    ),
    Stage(
        name="rollup",
        inputs=("engagement.partials",),
        outputs=(),
        stores=(Store("parts", str),),
        step=nothing,
    ),
)


def all_wanted() -> tuple[Wanted, ...]:
    """Every topic of the project and two changelogs, renamed so that each test has its own."""
    unique = f"t{uuid.uuid4().hex[:8]}"
    topics = load()
    named = wanted(topics, topics.profile("dev"), "app", STAGES)
    return tuple(msgspec.structs.replace(topic, name=f"{unique}.{topic.name}") for topic in named)


def changed(topics: Iterable[Wanted], ending: str, **changes: Any) -> tuple[Wanted, ...]:
    """*topics*, of which those whose name ends in *ending* have *changes*."""
    return tuple(
        msgspec.structs.replace(topic, **changes) if topic.name.endswith(ending) else topic
        for topic in topics
    )


async def test_an_empty_cluster_gets_every_topic(kafka: str) -> None:
    """After apply nothing differs: sizes and every config are what was wanted."""
    topics = all_wanted()
    before = await ensure({"bootstrap_servers": kafka}, topics)
    async with Admin({"bootstrap_servers": kafka}) as admin:
        after = await admin.plan(topics)
    assert len(before.missing) == len(topics)
    assert after.differences == ()


async def test_topics_are_made_soon(kafka: str, record_property: Callable[[str, object], None]) -> None:
    """`pipeline dev` creates its topics at every first start: it may not be felt."""
    topics = all_wanted()
    started = time.perf_counter()
    await ensure({"bootstrap_servers": kafka}, topics)
    created = time.perf_counter()
    await ensure({"bootstrap_servers": kafka}, topics)
    checked = time.perf_counter()
    record_property("topics", len(topics))
    record_property("created_s", round(created - started, 3))
    record_property("checked_s", round(checked - created, 3))
    assert checked - started < 5.0  # half a second on an idle machine


async def test_several_processes_at_once_make_the_same_topics(kafka: str) -> None:
    """Whoever comes second finds the topic there: nobody fails, nothing differs afterwards."""
    topics = all_wanted()
    async with asyncio.timeout(60):
        await asyncio.gather(*(ensure({"bootstrap_servers": kafka}, topics) for _ in range(4)))
    assert (await ensure({"bootstrap_servers": kafka}, topics)).is_clean


async def test_a_drifted_config_is_put_back_and_others_are_kept(kafka: str) -> None:
    """Alter sets what topics.yaml says and leaves alone what an operator set besides."""
    topics = all_wanted()
    await ensure({"bootstrap_servers": kafka}, topics)
    name = next(topic.name for topic in topics if topic.name.endswith("sakari.events"))
    await set_configs(kafka, name, {"retention.ms": "1000", "segment.ms": "7200000"})
    plan = await ensure({"bootstrap_servers": kafka}, topics)
    assert {(each.topic, each.setting, each.found) for each in plan.differences} >= {
        (name, "retention.ms", "1000")
    }
    async with Admin({"bootstrap_servers": kafka}) as admin:
        assert (await admin.found([name]))[name].own["segment.ms"] == "7200000"
        assert (await admin.plan(topics)).is_clean


async def test_a_keyed_topic_never_changes_its_partitions(kafka: str) -> None:
    """The plan says that this is a replay, and nothing else of it is carried out either."""
    topics = all_wanted()
    await ensure({"bootstrap_servers": kafka}, topics)
    more = changed(changed(topics, "sakari.events", partitions=6), "clock.ticks", partitions=6)
    with pytest.raises(ConfigError, match="replay under a new application id"):
        await ensure({"bootstrap_servers": kafka}, more)
    assert (await ensure({"bootstrap_servers": kafka}, topics)).is_clean


async def test_a_topic_without_keys_grows(kafka: str) -> None:
    """Where no key decides the partition, more of them are added."""
    topics = all_wanted()
    await ensure({"bootstrap_servers": kafka}, topics)
    more = changed(topics, "clock.ticks", partitions=3)
    await ensure({"bootstrap_servers": kafka}, more)
    assert (await ensure({"bootstrap_servers": kafka}, more)).is_clean


async def test_a_replication_that_the_cluster_cannot_give_is_told(kafka: str) -> None:
    """What Kafka refuses names the topic and Kafka's reason."""
    topics = changed(all_wanted(), "sakari.events", replication=9)
    with pytest.raises(BrokerError, match=r"sakari\.events: .*replication"):
        await ensure({"bootstrap_servers": kafka}, topics)


async def test_a_kafka_that_is_away_is_told() -> None:
    """Nobody listens there: a BrokerError that names the address, not a foreign exception."""
    with pytest.raises(BrokerError, match=r"cannot connect at 127\.0\.0\.1:1"):
        await ensure({"bootstrap_servers": "127.0.0.1:1"}, all_wanted())


async def set_configs(kafka: str, name: str, configs: dict[str, str]) -> None:
    """Set *configs* on topic *name* as an operator would, keeping none of the others."""
    client = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await client.start()
    await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs)])
    await client.close()
    async with Admin({"bootstrap_servers": kafka}) as admin, asyncio.timeout(15):
        while (await admin.found([name]))[name].own != configs:  # noqa: ASYNC110 - Kafka does not tell
            await asyncio.sleep(0.02)
