"""A job that writes numbers page by page, in this process or in one that dies in the middle."""

import asyncio
import ctypes
import os
import signal
import sys
import uuid
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer

from pipeline.codec import Codec, Places
from pipeline.errors import BrokerError
from pipeline.headers import NO_HEADERS
from pipeline.runtime.admin import ensure
from pipeline.runtime.connection import Connection
from pipeline.runtime.jobs import Job, JobProducer, Jobs, job_producer, new_job
from pipeline.runtime.reader import reading
from pipeline.runtime.topic_plan import Wanted, wanted
from pipeline.settings import KafkaSettings, RuntimeSettings
from pipeline.topics import load
from tests.broker.runtime_world import until_it

PAGE = 10
PR_SET_PDEATHSIG = 1


class JobsWorld:
    """The jobs of an application of its own, and a topic ``<id>.numbers`` for what they write."""

    def __init__(self, kafka: str, name: str = "") -> None:
        self.id = name or f"j{uuid.uuid4().hex[:8]}"
        self.kafka = kafka
        self.output = f"{self.id}.numbers"
        self.codec = Codec(load(), 1, self.id)
        self.connection = Connection(
            KafkaSettings(bootstrap_servers=kafka), RuntimeSettings(transaction_timeout_ms=5_000), self.id
        )
        self.jobs = Jobs(self.connection, self.codec)

    async def prepare(self) -> None:
        """Make the topics."""
        topics = load()
        all_ = wanted(topics, topics.profile("dev"), self.id)
        made = [each for each in all_ if each.name in ("jobs", "jobs.wanted")]
        numbers = Wanted(name=self.output, partitions=1, replication=1, configs={}, keyed=True)
        await ensure({"bootstrap_servers": self.kafka}, [*made, numbers])

    async def begun(self, total: int) -> Job:
        """A job to write the numbers below *total*."""
        return await self.jobs.create(new_job("redrive", {"what": "numbers"}, total=total))

    async def numbers(self, at_least: int) -> list[int]:
        """What was committed, in order, once there are *at_least* so many: readers are told later."""
        found: list[int] = []

        async def is_there() -> bool:
            async with reading(self.connection, (self.output,), 1) as reader:
                found[:] = [int(record.value or b"") async for record in reader.everything()]
            return len(found) >= at_least

        await until_it(is_there, f"{at_least} numbers")
        return found

    async def run(self, id_: str) -> Job:
        """Run job *id_* to its end or until something else is wished."""
        async with job_producer(self.connection, self.codec, id_) as runner:
            return await self.write(runner)

    async def write(self, runner: JobProducer) -> Job:
        """Write the numbers that are left."""
        while runner.job.done < (runner.job.total or 0):
            if (wished := await self.page(runner)) != "run":
                return await runner.end(wished)
        return await runner.end("done")

    async def page(self, runner: JobProducer) -> str:
        """Write the next numbers."""
        begin = runner.job.cursor.get("next", 0)
        end = begin + PAGE
        places: Places = {
            (self.output, 0): [(0, b"n", str(number).encode(), NO_HEADERS) for number in range(begin, end)]
        }
        job = msgspec.structs.replace(runner.job, state="running", done=end, cursor={"next": end})
        return await runner.commit(places, job)


async def killed_in(world: JobsWorld, id_: str, step: str, call: int) -> None:
    """Let another process run job *id_* and be killed with -9 at the *call*-th *step* of a producer."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, world.kafka, world.id, id_, step, str(call)
    )
    async with asyncio.timeout(60):
        assert await process.wait() == -signal.SIGKILL


def dying(step: str, call: int) -> None:
    """Let this process end at the *call*-th *step*: before it, or behind it where its name begins with +."""
    name = step.removeprefix("+")
    whole = getattr(AIOKafkaProducer, name)
    calls = 0

    async def dying(producer: AIOKafkaProducer, *arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and name == step:
            os.kill(os.getpid(), signal.SIGKILL)
        result = await whole(producer, *arguments, **named)
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(AIOKafkaProducer, name, dying)


async def _main(kafka: str, world: str, id_: str, step: str, call: str) -> None:
    dying(step, int(call))
    await JobsWorld(kafka, world).run(id_)
    raise BrokerError("it did not die")


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    asyncio.run(_main(*sys.argv[1:]))
