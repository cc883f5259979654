"""Topics of a test's own, as the pipeline writes them, and subscribers to them, here or in processes."""

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from pipeline.codec import Codec, Record
from pipeline.events import ConversationStarted, LocationTag
from pipeline.instants import Time
from pipeline.runtime.admin import ensure
from pipeline.runtime.topic_plan import wanted
from pipeline.stage import Emit, Event
from pipeline.subscribe import Subscription, Table, subscribe, table
from pipeline.topics import Topic, Topics, load

ROOT = Path(__file__).parents[2]
PARTITIONS = 2
AT = Time("2026-11-01T00:00:00.000Z")
AT_MS = 1_793_491_200_000
#: The least that brokers allow.
SESSION_S = 6.0
PATIENCE_S = 60


def started(number: int) -> ConversationStarted:
    """A fact that is told apart by its *number*."""
    return ConversationStarted(tenant="acme", account_id="a", occurred_at=AT, conversation_id=str(number))


def tag(name: str) -> LocationTag:
    """A location tag of *name*."""
    return LocationTag(tenant="acme", location_id="l", tag_id=name, name=name)


def named(name: str, changes: dict[str, Any] | None = None) -> Topics:
    """``<name>.events`` and ``<name>.out`` as ``sakari.events``, ``<name>.tags`` as ``users.tags``."""
    real = load()
    own = [
        _renamed(real["sakari.events"], f"{name}.events"),
        _renamed(real["sakari.events"], f"{name}.out"),
        _renamed(real["users.tags"], f"{name}.tags"),
    ]
    return Topics(own, real.profiles.values(), real.changelogs)


def _renamed(topic: Topic, name: str) -> Topic:
    return msgspec.structs.replace(topic, name=name, producers=(), consumers=())


class Shop:
    """Three topics on the cluster *kafka*, and a group that reads them."""

    def __init__(self, kafka: str, name: str = "") -> None:
        self.name = name or f"t{uuid.uuid4().hex[:8]}"
        self.kafka = kafka
        self.topics = named(self.name)
        self.events, self.out, self.tags = self.topics
        self.codec = Codec(self.topics, PARTITIONS)
        self.group = f"{self.name}-team"

    def subscribed(self, **options: Any) -> Subscription[Any]:
        """A member of the shop's group."""
        given = {"group": self.group, "session_s": SESSION_S, "topics": self.topics, **options}
        return subscribe(self.events, bootstrap_servers=self.kafka, **given)

    def table(self, **options: Any) -> Table[Any]:
        """The tags as a table."""
        return table(self.tags, bootstrap_servers=self.kafka, topics=self.topics, **options)

    async def write(self, *numbers: int, key: str = "", at_ms: int = AT_MS, commit: bool = True) -> None:
        """Write facts of *numbers* to the events, each under a key of its own unless *key* is given."""
        made = [(self.events, key or f"acme:m:{number}", started(number)) for number in numbers]
        await self.write_values(made, at_ms=at_ms, commit=commit)

    async def write_values(
        self, made: Sequence[tuple[str, str, Any]], *, at_ms: int = AT_MS, commit: bool = True
    ) -> None:
        """Write topic, key and value of each of *made* in one transaction."""
        producer = AIOKafkaProducer(bootstrap_servers=self.kafka, transactional_id=f"w{uuid.uuid4().hex}")
        async with producer:
            await producer.begin_transaction()
            sent = []
            for topic, key, value in made:
                cause = Event(topic="", key=key, value=None, id=key, received_at=at_ms)
                (output,) = self.codec.encode(Emit(topic, key, value, occurred_at=AT), cause, "test", 0)
                place = {"partition": output.partition, "timestamp_ms": at_ms, "headers": output.headers}
                sent.append(await producer.send(topic, output.value, output.key, **place))
            await asyncio.gather(*sent)
            await (producer.commit_transaction() if commit else producer.abort_transaction())

    async def committed(self) -> dict[int, int]:
        """Partition -> the offset that the group has committed."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.kafka, group_id=self.group, enable_auto_commit=False
        )
        async with consumer:
            places = [TopicPartition(self.events, number) for number in range(PARTITIONS)]
            told = {place.partition: await consumer.committed(place) for place in places}
        return {partition: offset for partition, offset in told.items() if offset is not None}

    async def records(self, topic: str) -> list[Record]:
        """All committed records of *topic*."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.kafka, isolation_level="read_committed", auto_offset_reset="earliest"
        )
        places = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        found: list[Record] = []
        async with asyncio.timeout(PATIENCE_S), consumer:
            consumer.assign(places)
            ends = await consumer.end_offsets(places)
            while any([await consumer.position(place) < end for place, end in ends.items()]):
                for read in (await consumer.getmany(timeout_ms=100)).values():
                    found += [
                        Record(r.topic, r.partition, r.offset, r.timestamp, r.key, r.value, r.headers)
                        for r in read
                    ]
        return found


@asynccontextmanager
async def opened(kafka: str, configs: dict[str, dict[str, str]] | None = None) -> AsyncIterator[Shop]:
    """A shop whose topics are there, with extra *configs* by the last part of their names."""
    shop = Shop(kafka)
    profile = msgspec.structs.replace(shop.topics.profile("dev"), partitions=PARTITIONS)
    made = [
        msgspec.structs.replace(
            each, configs={**each.configs, **(configs or {}).get(each.name.rpartition(".")[2], {})}
        )
        for each in wanted(shop.topics, profile, shop.name, ())
    ]
    await ensure({"bootstrap_servers": kafka}, made)
    yield shop


class Process:
    """A subscriber in a process of its own, which prints what it does."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self.child = child
        self.lines: list[str] = []

    async def printed(self, count: int) -> list[str]:
        """All lines so far, once there are *count*."""
        assert self.child.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            while len(self.lines) < count:
                line = await self.child.stdout.readline()
                assert line, f"it ended after {self.lines}"
                self.lines.append(line.decode().rstrip())
        return self.lines

    async def kill(self) -> None:
        """Kill it, and take what it had printed."""
        self.child.kill()
        assert self.child.stdout is not None
        self.lines += (await self.child.stdout.read()).decode().splitlines()
        await self.child.wait()


@asynccontextmanager
async def process(shop: Shop, mode: str) -> AsyncIterator[Process]:
    """See `tests.broker.subscribe_process`; it is killed at the end of the block, if it was not before."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.broker.subscribe_process", shop.kafka, shop.name, mode),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    one = Process(child)
    try:
        yield one
    finally:
        if child.returncode is None:
            await one.kill()
