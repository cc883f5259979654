"""Topics with a past, and `pipeline replay` as its users start it."""

import asyncio
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from pipeline.codec import Codec, Record
from pipeline.runtime.admin import Admin, ensure
from pipeline.runtime.connection import Connection
from pipeline.runtime.jobs import Job, Jobs
from pipeline.runtime.reader import reading
from pipeline.runtime.topic_plan import Wanted, wanted
from pipeline.settings import KafkaSettings, RuntimeSettings
from pipeline.topics import load

PARTITIONS = 2
#: The time of record number 0; each is a second later than the one before.
FIRST_MS = 1_900_000_000_000 - 500_000_000_000
SECOND_MS = 1_000


class ReplayWorld:
    """An application of its own, with a topic ``<id>.past`` whose record n is of partition n % 2."""

    def __init__(self, kafka: str) -> None:
        self.id = f"p{uuid.uuid4().hex[:8]}"
        self.kafka = kafka
        self.past = f"{self.id}.past"
        self.connection = Connection(KafkaSettings(bootstrap_servers=kafka), RuntimeSettings(), self.id)
        self.codec = Codec(load(), 1, self.id)
        self.jobs = Jobs(self.connection, self.codec)

    async def prepare(self, records: int = 0) -> None:
        """Make the topics, and *records* of the past."""
        topics = load()
        all_ = wanted(topics, topics.profile("dev"), self.id)
        made = [each for each in all_ if each.name in ("jobs", "jobs.wanted")]
        configs = {"retention.ms": "-1"}
        past = Wanted(name=self.past, partitions=PARTITIONS, replication=1, configs=configs, keyed=True)
        await ensure({"bootstrap_servers": self.kafka}, [*made, past])
        await self.send(records)

    async def send(self, records: int) -> None:
        """Write *records*: number n has key ``t<n % 3>:<n>``, value n, and every fifth another type."""
        producer = AIOKafkaProducer(bootstrap_servers=self.kafka, linger_ms=5)
        await producer.start()
        for n in range(records):
            await producer.send(
                self.past,
                str(n).encode(),
                f"t{n % 3}:{n}".encode(),
                partition=n % PARTITIONS,
                timestamp_ms=FIRST_MS + n * SECOND_MS,
                headers=[("ce_type", b"a.v1" if n % 5 else b"b.v1"), ("traceparent", b"00-x")],
            )
        await producer.stop()

    async def forget(self, before: int) -> None:
        """Let retention have removed all before offset *before* from each partition."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka)
        await admin.start()
        places = [TopicPartition(self.past, number) for number in range(PARTITIONS)]
        await admin.delete_records({place: RecordsToDelete(before_offset=before) for place in places})
        await admin.close()

    async def records(self, topic: str) -> list[Record]:
        """All of *topic*, partition by partition."""
        async with reading(self.connection, (topic,), PARTITIONS) as reader:
            found = [record async for record in reader.everything()]
        return sorted(found, key=lambda record: (record.partition, record.offset))

    async def committed(self, group: str) -> dict[int, int]:
        """What *group* reads next of the past."""
        async with Admin({"bootstrap_servers": self.kafka}) as admin:
            return {number: at for (_, number), at in (await admin.committed(group)).items()}

    @asynccontextmanager
    async def member(self, group: str) -> AsyncIterator[AIOKafkaConsumer]:
        """A member of *group* that has read all of the past, and committed it."""
        consumer = AIOKafkaConsumer(
            self.past,
            bootstrap_servers=self.kafka,
            group_id=group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        await consumer.start()
        try:
            while not consumer.assignment():
                await consumer.getmany(timeout_ms=50)
            await consumer.seek_to_end()
            for place in consumer.assignment():
                await consumer.position(place)
            await consumer.commit()
            yield consumer
        finally:
            await consumer.stop()

    @asynccontextmanager
    async def begun(self, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """`pipeline replay WORDS` as a process, killed at the end if it still runs."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "pipeline", "replay", *words, "--bootstrap-servers", self.kafka, "--json"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PIPELINE_APPLICATION_ID": self.id, "PATH": "/usr/bin:/bin"},
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
                await process.wait()

    async def replay(self, *words: str) -> tuple[int, list[dict[str, Any]], str]:
        """Exit code, lines of standard output, and standard error of `pipeline replay WORDS`."""
        async with self.begun(*words) as process, asyncio.timeout(60):
            out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, [msgspec.json.decode(line) for line in out.splitlines()], err.decode()

    async def only_job(self) -> Job | None:
        """The job that there is about the past."""
        found: Sequence[Job] = await self.jobs.list()
        return next((job for job in found if self.id in str(job.spec)), None)
