"""`pipeline topics lag` on a real Kafka: records and seconds that a group is behind."""

import asyncio
import signal
import sys
import time
import uuid

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.errors import ConfigError
from pipeline.runtime.connection import Connection
from pipeline.runtime.lags import GroupLag, lags
from pipeline.settings import KafkaSettings, RuntimeSettings
from tests.broker.tail_world import PATIENCE_S, START_MS, topic_of, written

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def committed(kafka: str, topic: str, offsets: dict[int, int]) -> str:
    """A new group that has committed *offsets* of *topic*."""
    group = f"g{uuid.uuid4().hex[:8]}"
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, group_id=group, enable_auto_commit=False)
    async with asyncio.timeout(PATIENCE_S), consumer:
        consumer.assign([TopicPartition(topic, number) for number in offsets])
        await consumer.commit({TopicPartition(topic, number): at for number, at in offsets.items()})
    return group


async def lags_of(kafka: str, *groups: str) -> list[GroupLag]:
    """How far *groups* are behind."""
    connection = Connection(KafkaSettings(bootstrap_servers=kafka), RuntimeSettings(), "tests")
    async with asyncio.timeout(PATIENCE_S):
        return await lags(connection, groups)


async def test_lag_is_what_waits_and_how_old_its_oldest_is(kafka: str) -> None:
    """The age is of the record where the group reads on, not of the newest."""
    topic = await topic_of(kafka)
    await written(kafka, topic, [0, 1_000, 3_000])
    group = await committed(kafka, topic, {0: 1})
    (found,) = await lags_of(kafka, group)
    assert (found.group, found.topic, found.partition) == (group, topic, 0)
    assert (found.next_offset, found.end, found.records) == (1, 4, 3)
    assert found.seconds is not None
    assert found.seconds == pytest.approx(time.time() - START_MS / 1000 - 1_000, abs=60)


async def test_nothing_waits_behind_the_end_of_a_transaction(kafka: str) -> None:
    """Its control record, and all of an aborted one, are no records that a group has to read."""
    topic = await topic_of(kafka)
    await written(kafka, topic, [0, 1])
    await written(kafka, topic, [2, 3], commit=False)
    group = await committed(kafka, topic, {0: 2, 1: 0})
    assert [(each.records, each.seconds) for each in await lags_of(kafka, group)] == [(0, 0.0), (0, 0.0)]


async def test_two_groups_on_one_partition_have_their_own_ages(kafka: str) -> None:
    """Each by where it stands; without a name both are among all of the cluster."""
    topic = await topic_of(kafka)
    await written(kafka, topic, [0, 1_000])
    early, late = await committed(kafka, topic, {0: 0}), await committed(kafka, topic, {0: 1})
    found = {each.group: each for each in await lags_of(kafka) if each.topic == topic}
    assert {name: each.records for name, each in found.items()} == {early: 3, late: 2}
    ages = [found[name].seconds or 0 for name in (early, late)]
    assert 990 < ages[0] - ages[1] < 1_010


async def test_an_unknown_group_is_refused_with_a_guess(kafka: str) -> None:
    """All problems at once."""
    group = await committed(kafka, await topic_of(kafka), {0: 0})
    with pytest.raises(ConfigError) as refused:
        await lags_of(kafka, f"{group}x", "nobody-is-called-so")
    assert f"did you mean {group!r}?" in refused.value.problems[0]
    assert len(refused.value.problems) == 2


async def test_watch_tells_again_and_again_until_ctrl_c(kafka: str) -> None:
    """A line of JSON each time; exit code 0."""
    topic = await topic_of(kafka)
    await written(kafka, topic, [0])
    group = await committed(kafka, topic, {0: 0})
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pipeline", "topics", "lag", "--group", group, "--watch", "--every-s", "0.1",
        "--json", "--bootstrap-servers", kafka, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert program.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        told = [orjson.loads(await program.stdout.readline()) for _ in range(2)]
        program.send_signal(signal.SIGINT)
        await program.communicate()
    assert program.returncode == 0
    assert [[each["group"] for each in line["lags"]] for line in told] == [[group], [group]]
