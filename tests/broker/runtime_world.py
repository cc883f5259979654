"""A worker with toy stages against the session's Kafka; every world has its own topics and groups."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from pipeline.codec import Codec, Record, text_headers
from pipeline.effects import Unit
from pipeline.events import Tick, ce_type
from pipeline.instants import Time
from pipeline.logs import mask
from pipeline.runtime.admin import Admin, ensure
from pipeline.runtime.cluster import Cluster
from pipeline.runtime.connection import Connection
from pipeline.runtime.metrics import Metrics
from pipeline.runtime.task import Task
from pipeline.runtime.topic_plan import Wanted, wanted
from pipeline.runtime.worker import Service, Worker
from pipeline.settings import KafkaSettings, RuntimeSettings
from pipeline.stage import Emit, Event, Outcome, Put, Stage, Store, Stores
from pipeline.topics import Topic, Topics, load

PARTITIONS = 2
DEADLINE_S = 30.0
TYPE = ce_type(Tick)

#: What each toy stage counts, by key.
COUNTS: Store[int] = Store("counts", int)


async def until(holds: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Return when *holds* does; fails with *what* after the deadline."""
    ends = time.monotonic() + deadline_s
    while not holds():
        assert time.monotonic() < ends, f"still not: {what}"
        await asyncio.sleep(0.01)


async def until_it(holds: Callable[[], Awaitable[bool]], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Return when awaiting *holds* gives True; fails with *what* after the deadline."""
    ends = time.monotonic() + deadline_s
    while not await holds():
        assert time.monotonic() < ends, f"still not: {what}"
        await asyncio.sleep(0.02)


def count_and_pass(outputs: str) -> Callable[[Stores, Event[Any]], Outcome]:
    """A step that counts each key and passes the record on to *outputs* with its count."""

    def step(read: Stores, event: Event[Any]) -> Outcome:
        count = (read.get(COUNTS, event.key) or 0) + 1
        passed = Emit(outputs, event.key, event.value, subject=f"{event.value.at}#{count}")
        return Outcome(writes=(Put(COUNTS, event.key, count),), emit=(passed,))

    return step


def topic(name: str, **changes: Any) -> Topic:
    """A public topic of `Tick`, whose ``at`` is whatever text a test wants to send."""
    fields: dict[str, Any] = {
        "description": name,
        "owner": "tests",
        "visibility": "public",
        "key": "text",
        "types": (TYPE,),
        "cleanup": ("delete",),
        "retention_ms": 86_400_000,
    }
    return Topic(name=name, **(fields | changes))


class World:
    """Topics ``<id>.in``, ``<id>.side``, ``<id>.out`` and what a stage *name* on them needs."""

    def __init__(self, kafka: str, folder: Path, *, name: str = "", **settings: Any) -> None:
        self.id = name or f"t{uuid.uuid4().hex[:8]}"
        self.name = f"{self.id}-count"
        self.input, self.side, self.output = (f"{self.id}.{name}" for name in ("in", "side", "out"))
        self.kafka = kafka
        self.folder = folder
        fast = {"session_timeout_ms": 6_000, "heartbeat_interval_ms": 500, "rebalance_timeout_ms": 6_000}
        self.settings = RuntimeSettings(state_dir=folder, **({**fast, **settings}))
        real = load()
        own = [topic(name) for name in (self.input, self.side, self.output)]
        own.append(topic(f"{self.name}.redrive", types=("raw",), partitioned_by="explicit"))
        dead = msgspec.structs.replace(real["dead-letters"], retention_ms=86_400_000)
        self.topics = Topics([*own, dead], real.profiles.values(), real.changelogs)
        self.codec = Codec(self.topics, PARTITIONS, self.id)

    def stage(self, step: Callable[..., Outcome] | None = None, **changes: Any) -> Stage:
        """The world's stage, by default one that counts and passes on."""
        fields: dict[str, Any] = {
            "name": self.name,
            "inputs": (self.input,),
            "outputs": (self.output,),
            "stores": (COUNTS,),
            "step": step or count_and_pass(self.output),
        }
        return Stage(**(fields | changes))

    async def prepare(self, stage: Stage, configs: dict[str, dict[str, str]] | None = None) -> None:
        """Make the topics, with extra *configs* by name."""
        profile = msgspec.structs.replace(self.topics.profile("dev"), partitions=PARTITIONS)
        made = [
            _with(each, (configs or {}).get(each.name, {}))
            for each in wanted(self.topics, profile, self.id, (stage,))
        ]
        await ensure({"bootstrap_servers": self.kafka}, made)

    def cluster(self, folder: Path | None = None, **settings_: Any) -> Cluster:
        """What a process of its own would have; *folder* is its disk, *settings_* are its own too."""
        settings = self.settings.model_copy(update={"state_dir": folder or self.folder, **settings_})
        connection = Connection(KafkaSettings(bootstrap_servers=self.kafka), settings, self.id)
        return Cluster(
            id="cluster",
            application_id=self.id,
            partitions=PARTITIONS,
            connection=connection,
            codec=self.codec,
            settings=settings,
            metrics=Metrics(),
            mask=mask,
        )

    async def send(self, *records: tuple[str, str], topic: str = "", at_ms: int | None = None) -> None:
        """Write (key, text) *records* to the input, or to *topic*."""
        ticks = [(key, msgspec.json.encode(Tick(Time(text)))) for key, text in records]
        await self.send_raw(*ticks, topic=topic or self.input, at_ms=at_ms)

    async def send_raw(self, *records: tuple[str, bytes], topic: str, at_ms: int | None = None) -> None:
        """Write (key, bytes) *records* to *topic*, as from a source."""
        at = at_ms or time.time_ns() // 1_000_000
        headers = [("ce_type", TYPE.encode()), ("traceparent", b"00-ab-cd-01")]
        producer = AIOKafkaProducer(bootstrap_servers=self.kafka, enable_idempotence=True)
        await producer.start()
        try:
            for key, value in records:
                (place,) = self.codec.placed(self.topics[topic], key)
                await producer.send(
                    topic, value, key.encode(), partition=place, timestamp_ms=at, headers=headers
                )
            await producer.flush()
        finally:
            await producer.stop()

    async def records(self, topic: str = "", at_least: int = 0) -> list[Record]:
        """Every committed record of the output, or of *topic*, once there are *at_least* so many."""
        name = topic or self.output
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.kafka, isolation_level="read_committed", auto_offset_reset="earliest"
        )
        await consumer.start()
        try:
            consumer.assign([TopicPartition(name, number) for number in range(PARTITIONS)])
            return await _read(consumer, at_least)
        finally:
            await consumer.stop()

    async def told(self, at_least: int = 0) -> list[str]:
        """``<text>#<count>`` of every output by partition, once there are *at_least* so many."""
        records = await self.records(at_least=at_least)
        return [text_headers(record.headers)["ce_subject"] for record in records]

    async def dead_letters(self, at_least: int = 0) -> list[dict[str, str]]:
        """The headers of the dead letters of this world's stage, with ``key`` and ``value``."""
        found: list[dict[str, str]] = []

        async def there() -> bool:
            found[:] = [_told(record) for record in await self.records("dead-letters")]
            found[:] = [each for each in found if each["dl_stage"] == self.name]
            return len(found) >= at_least

        await until_it(there, f"{at_least} dead letters")
        return found


def _told(record: Record) -> dict[str, str]:
    value = (record.value or b"").decode(errors="replace")
    return {**text_headers(record.headers), "key": (record.key or b"").decode(), "value": value}


def _with(topic: Wanted, configs: dict[str, str]) -> Wanted:
    return msgspec.structs.replace(topic, configs={**topic.configs, **configs})


async def _read(consumer: AIOKafkaConsumer, at_least: int) -> list[Record]:
    places = list(consumer.assignment())
    ends = await consumer.end_offsets(places)
    await consumer.seek_to_beginning(*places)
    found: list[Record] = []
    until_s = time.monotonic() + DEADLINE_S
    while len(found) < at_least or any([await consumer.position(p) < end for p, end in ends.items()]):
        assert time.monotonic() < until_s, f"only {len(found)} of {at_least} records in {places[0].topic}"
        for records in (await consumer.getmany(timeout_ms=50)).values():
            found += [Record(r.topic, r.partition, r.offset, *_rest(r)) for r in records]
    return sorted(found, key=lambda record: (record.partition, record.offset))


def _rest(record: Any) -> tuple[int, bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]:
    return record.timestamp, record.key, record.value, record.headers


class Running:
    """A worker that runs."""

    def __init__(self, worker: Worker, cluster: Cluster, job: asyncio.Task[None]) -> None:
        self.worker = worker
        self.cluster = cluster
        self.job = job

    def tasks(self) -> dict[int, Task]:
        """The tasks of its only stage, by partition."""
        (group,) = self.worker.groups.values()
        return group.tasks

    async def ready(self) -> None:
        """Return when it is."""
        await until(lambda: not self.worker.unready, "ready")

    async def until_committed(self, records: int) -> None:
        """Return when more than *records* input offsets are committed."""
        await until(
            lambda: sum(sum(task.next_offsets.values()) for task in self.tasks().values()) > records,
            f"{records} committed",
        )

    async def stop(self) -> None:
        """Stop in order, and raise what it ended with."""
        self.worker.stop()
        await self.job

    async def kill(self) -> None:
        """End at once, as a signal does the second time."""
        self.job.cancel()
        with suppress(asyncio.CancelledError):
            await self.job


@asynccontextmanager
async def running(
    world: World,
    unit: Unit | Stage,
    *,
    folder: Path | None = None,
    services: Iterable[Service] = (),
    cluster: Cluster | None = None,
) -> AsyncIterator[Running]:
    """A worker of *unit* in this process until the end of the block, which stops it in order."""
    made = cluster or world.cluster(folder)
    units = [unit if isinstance(unit, Unit) else Unit(stage=unit)]
    async with started(Worker(units, made, tuple(services)), made) as one:
        yield one


@asynccontextmanager
async def started(worker: Worker, cluster: Cluster) -> AsyncIterator[Running]:
    """*worker*, running until the end of the block."""
    async with asyncio.TaskGroup() as tasks:
        job = tasks.create_task(worker.run(), name="worker")
        try:
            yield Running(worker, cluster, job)
        finally:
            worker.stop()
            await asyncio.wait((job,))


async def topic_names(world: World) -> list[str]:
    """The cluster's topics of this world."""
    async with Admin({"bootstrap_servers": world.kafka}) as admin:
        return [name for name in await admin.names() if name.startswith(world.id)]
