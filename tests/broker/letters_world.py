"""A toy stage that refuses what is not mended, its dead letters, and decisions about them."""

import asyncio
import ctypes
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from pipeline.codec import Codec, Record
from pipeline.errors import BrokerError, RecordError
from pipeline.events import Tick
from pipeline.headers import decoded
from pipeline.partitioning import partition_of
from pipeline.runtime.dead_letters import Place, made
from pipeline.runtime.decisions import Plan, obstacle, planned
from pipeline.runtime.jobs import Job, Jobs
from pipeline.runtime.letters import Letter, Letters, Selection
from pipeline.runtime.redrive import Asked, created, redrive
from pipeline.stage import Event, Outcome, Reject, Stores
from pipeline.topics import Topics, load
from tests.broker.jobs_world import PR_SET_PDEATHSIG, dying
from tests.broker.runtime_world import PARTITIONS, World, count_and_pass, until_it

MANY = 1_000_000
PAGE = 20
NOW_MS = time.time_ns() // 1_000_000


class LettersWorld(World):
    """A world whose stage refuses the texts in ``bad``."""

    def __init__(self, kafka: str, folder: Path, **settings: Any) -> None:
        super().__init__(kafka, folder, **settings)
        real = load()
        kept = [real[name] for name in ("audit", "dead-letters.edits", "jobs", "jobs.wanted")]
        self.topics = Topics(
            [*self.topics.values(), *kept], self.topics.profiles.values(), self.topics.changelogs
        )
        self.codec = Codec(self.topics, PARTITIONS, self.id)
        self.bad: set[str] = set()
        self.connection = self.cluster().connection
        self.letters = Letters(self.connection, self.codec)
        self.mine = Selection(stage=self.name)

    def refusing(self, read: Stores, event: Event[Tick]) -> Outcome:
        """Count and pass on, but for what is bad."""
        if event.value.at in self.bad:
            raise RecordError("bad", f"at: {event.value.at} is bad")
        return count_and_pass(self.output)(read, event)

    async def open(self, at_least: int = 0) -> list[Letter]:
        """The open letters of this world, once there are *at_least* so many."""
        found: list[Letter] = []

        async def there() -> bool:
            decided = await self.letters.decisions()
            found[:] = [each async for each in self.letters.matching(self.mine) if each.id not in decided]
            return len(found) >= at_least

        await until_it(there, f"{at_least} open letters")
        return found

    async def plan(self, limit: int = MANY) -> Plan:
        """What redriving all of them would be about."""
        return await planned(self.letters, self.mine, limit, lambda *one: obstacle(self.codec, *one))

    async def begun(self, id_: str, limit: int = MANY) -> Job:
        """A redrive of all that is open, not run yet."""
        plan = await self.plan(limit)
        asked = Asked(selection=self.mine, words={}, limit=limit, by="ada", ends=plan.ends)
        return await self.kept(lambda jobs: created(jobs, id_, asked, plan.taken))

    async def kept(self, keep: Callable[[Jobs], Awaitable[Job]]) -> Job:
        """What *keep* does with the jobs."""
        jobs = Jobs(self.connection, self.codec)
        try:
            return await keep(jobs)
        finally:
            await jobs.close()

    async def run(self, id_: str, rate: int = MANY, stopping: asyncio.Event | None = None) -> Job:
        """Run redrive *id_* to its end."""
        stop = stopping or asyncio.Event()
        return await redrive(self.connection, self.codec, id_, rate=rate, stopping=stop, told=lambda _: None)

    async def put_back(self) -> list[Record]:
        """What stands on the stage's redrive topic."""
        return await self.records(f"{self.name}.redrive")

    async def dead(self, *keys: str) -> None:
        """Put a letter of each of *keys* there, as if the stage had refused records 0, 1, …."""
        await put_letters(self.kafka, PARTITIONS, self.name, self.input, keys)


async def put_letters(
    kafka: str,
    partitions: int,
    stage: str,
    topic: str,
    keys: Sequence[str],
    *,
    value: bytes = b"",
    reason: str = "bad",
    **headers: str,
) -> None:
    """Put a letter of each of *keys* on ``dead-letters``, as if *stage* had refused 0, 1, … of *topic*."""
    told = tuple((name, text.encode()) for name, text in headers.items())
    producer = AIOKafkaProducer(bootstrap_servers=kafka, enable_idempotence=True)
    await producer.start()
    try:
        for offset, key in enumerate(keys):
            place = partition_of(key.encode(), partitions)
            body = value or b'{"at":"r%d"}' % offset
            record = Record(topic, place, offset, NOW_MS, key.encode(), body, told)
            _, sent = made(Place(stage, topic, place), record, Reject(reason, "at: is bad"), 1)
            await producer.send(
                "dead-letters", sent[2], sent[1], place, timestamp_ms=sent[0], headers=decoded(sent[3])
            )
        await producer.flush()
    finally:
        await producer.stop()


async def killed_in(world: LettersWorld, id_: str, step: str, call: int) -> None:
    """Let another process run redrive *id_* and be killed with -9 at the *call*-th *step* of its producer."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, world.kafka, world.id, id_, step, str(call)
    )
    async with asyncio.timeout(60):
        assert await process.wait() == -signal.SIGKILL


async def _main(kafka: str, world: str, id_: str, step: str, call: str) -> None:
    dying(step, int(call))
    await LettersWorld(kafka, Path(), name=world).run(id_, rate=PAGE)
    raise BrokerError("it did not die")


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    asyncio.run(_main(*sys.argv[1:]))
