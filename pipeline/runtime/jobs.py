"""
Durable jobs: what an operator began, where it stands, and what is wished of it.

A job has two records. Its own on ``jobs`` is written by its runner alone, each time in one transaction with
what the job did: a job that is killed goes on exactly where its last transaction stood. The wish on
``jobs.wanted`` is written by anybody, and the runner looks at it after every page.

::

    jobs = Jobs(connection, codec)
    job = await jobs.create(new_job("redrive", {"stage": "decode"}, total=120))
    async with job_producer(connection, codec, job.id) as runner:   # fences whoever ran it before
        job = runner.job                                            # as last committed
        while page := await next_page(job.cursor):
            wanted = await runner.commit(page.places, replace(job, cursor=page.next, done=…))
            job = runner.job
            if wanted != "run":
                await runner.end(wanted)                            # paused or cancelled
                break
        else:
            await runner.end("done")

Anybody: ``await jobs.want(job.id, "pause")``, ``jobs.list()``, ``jobs.get(id)``.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeAlias

import msgspec
from aiokafka import TopicPartition

from pipeline.codec import Codec, Places
from pipeline.errors import BrokerError, ConfigError
from pipeline.events.jobs import Job, JobWish
from pipeline.instants import Time, from_ms
from pipeline.runtime.closing import stop_consumer
from pipeline.runtime.connection import Connection
from pipeline.runtime.publisher import Publisher
from pipeline.runtime.reader import reading
from pipeline.runtime.transaction import TransactionalProducer, broker_errors
from pipeline.stage import Emit, Event

__all__ = ["ENDED", "Job", "JobProducer", "Jobs", "Wanted", "job_producer", "new_job"]

Wanted: TypeAlias = Literal["run", "pause", "cancel"]

JOBS, WISHES = "jobs", "jobs.wanted"

#: States in which there is nothing left to run.
ENDED = ("done", "cancelled")

#: Which state a wish leads to.
_BY_WISH = {"pause": "paused", "cancel": "cancelled"}

#: Bound of reading the topic, in seconds: an open transaction of another job may hold it up for 15 s.
TIMEOUT_S = 30.0

#: Longest wait for readers to be told of the end of a job, in seconds, and how often they are asked.
VISIBLE_S = 1.0
_POLL_S = 0.01


def new_job(kind: str, spec: dict[str, Any], *, total: int | None = None, **fields: Any) -> Job:
    """A job that was not begun, with an id of its own."""
    return Job(id=secrets.token_hex(4), kind=kind, spec=spec, total=total, **fields)


class Jobs:
    """All jobs of the cluster, as any process sees them."""

    def __init__(self, connection: Connection, codec: Codec) -> None:
        self._connection = connection
        self._codec = codec
        self._publisher = Publisher(connection, TIMEOUT_S)

    async def list(self) -> list[Job]:
        """
        Every job with what is wished of it, the one updated last first.

        Raises:
            BrokerError: Kafka does not answer.
        """
        with broker_errors("reading jobs"):
            async with asyncio.timeout(TIMEOUT_S), reading(self._connection, (JOBS, WISHES), 1) as reader:
                read = [record async for record in reader.everything()]
        wishes = [(each.key, each.value) for each in read if each.topic == WISHES]
        jobs = _joined([(each.key, each.value) for each in read if each.topic == JOBS], _wished(wishes))
        return sorted(jobs.values(), key=lambda job: job.updated_at or "", reverse=True)

    async def get(self, id_: str) -> Job:
        """
        The job *id_* with what is wished of it.

        Raises:
            ConfigError: there is none.
            BrokerError: Kafka does not answer.
        """
        found = {job.id: job for job in await self.list()}
        if id_ not in found:
            raise _unknown(id_, found)
        return found[id_]

    async def create(self, job: Job) -> Job:
        """
        Keep *job*, which is new; returns it as it was kept.

        Raises:
            BrokerError: it may not be durable.
        """
        kept = msgspec.structs.replace(job, updated_at=_now())
        await self._write(JOBS, kept.id, kept)
        return kept

    async def want(self, id_: str, wanted: Wanted) -> None:
        """
        Wish something of *id_*: its runner sees it at the end of its page.

        Raises:
            BrokerError: the wish may not be durable.
        """
        await self._write(WISHES, id_, JobWish(id=id_, wanted=wanted, wished_at=_now()))

    async def close(self) -> None:
        """Give the producer up."""
        await self._publisher.close()

    async def _write(self, topic: str, key: str, value: Job | JobWish) -> None:
        cause = Event(topic="", key=key, value=None, received_at=_now_ms())
        for output in self._codec.encode(Emit(topic, key, value), cause, "jobs", 0):
            await self._publisher.publish(output)


class JobProducer:
    """
    The one runner of a job: whatever it writes goes with the job's own record, all or nothing.

    ``job`` is what was last committed. Of the jobs that share a *lock*, one at a time has a runner.
    """

    job: Job

    def __init__(
        self, connection: Connection, codec: Codec, id_: str, timeout_s: float = TIMEOUT_S, lock: str = ""
    ) -> None:
        self._id = id_
        self._codec = codec
        self._connection = connection
        name = f"{codec.application_id}.job.{lock or id_}"
        self._producer = TransactionalProducer(connection, name, "", timeout_s)
        self._wishes = _Log(connection, WISHES)
        self._ends: Mapping[tuple[str, int], int] = {}

    async def start(self) -> Job:
        """
        Fence whoever ran the job, end what they left open, and read the job as last committed.

        Raises:
            ConfigError: there is no such job.
            BrokerError: Kafka does not answer.
        """
        await self._producer.start()
        # All that stands before a record of our own is decided, so nothing of the job is overlooked;
        # the end that readers are told may lie before it, where another job's transaction is open.
        ends = await self._producer.ends((JOBS,), 0, _now_ms())
        log = _Log(self._connection, JOBS)
        try:
            read = await log.until(ends[JOBS])
        finally:
            await log.close()
        found = _joined(read, _wished(await self._wishes.until(None)))
        if self._id not in found:
            raise _unknown(self._id, found)
        self.job = found[self._id]
        return self.job

    async def commit(self, places: Places, job: Job) -> Wanted:
        """
        Write *places* and *job* in one transaction; ``job`` is then as it was written.

        Returns:
            What is wished of the job by now: other than ``run``, `end` it.

        Raises:
            BrokerError: nothing is known of the outcome, or another runner has the job: start a new producer.
        """
        wanted = _wished(await self._wishes.new()).get(self._id, self.job.wanted)
        now = _now()
        kept = msgspec.structs.replace(job, wanted=wanted, updated_at=now, begun_at=job.begun_at or now)
        written: Places = dict(places)
        cause = Event(topic="", key=kept.id, value=None, received_at=_now_ms())
        self._codec.writer("jobs").write(((Emit(JOBS, kept.id, kept), cause, 0),), written)
        self._ends = await self._producer.commit(written, {})
        self.job = kept
        return wanted  # type: ignore[return-value] # nobody can wish anything else

    async def end(self, how: str, error: str | None = None) -> Job:
        """
        Commit that nothing more is done for now: ``done``, ``failed``, or what was wished.

        When this returns, `Jobs` tells of it, unless another job's open transaction hides it for a moment.

        Raises:
            BrokerError: nothing is known of the outcome, or another runner has the job.
        """
        state = _BY_WISH.get(how, how)
        await self.commit({}, msgspec.structs.replace(self.job, state=state, error=error))
        await self._wishes.visible(JOBS, self._ends.get((JOBS, 0), 0))
        return self.job

    async def drop(self) -> None:
        """Give the clients up, whatever state they are in."""
        await self._producer.drop()
        await self._wishes.close()


@asynccontextmanager
async def job_producer(
    connection: Connection, codec: Codec, id_: str, lock: str = ""
) -> AsyncIterator[JobProducer]:
    """
    The runner of job *id_*, until the end of the block or until another one comes, of it or of *lock*.

    Raises:
        ConfigError: there is no such job.
        BrokerError: Kafka does not answer.
    """
    runner = JobProducer(connection, codec, id_, lock=lock)
    try:
        await runner.start()
        yield runner
    finally:
        await runner.drop()


_Raw: TypeAlias = tuple[bytes | None, bytes | None]

_JOB = msgspec.json.Decoder(Job).decode
_WISH = msgspec.json.Decoder(JobWish).decode


class _Log:
    """Keys and values of a topic of one partition: first what is there, then what comes."""

    def __init__(self, connection: Connection, topic: str) -> None:
        self._place = TopicPartition(topic, 0)
        self._consumer = connection.reader()

    async def until(self, end: int | None) -> list[_Raw]:
        """All before offset *end*, by default as far as it is decided now."""
        read: list[_Raw] = []
        with broker_errors(f"reading {self._place.topic}"):
            async with asyncio.timeout(TIMEOUT_S):
                await self._consumer.start()
                self._consumer.assign([self._place])
                if end is None:
                    end = (await self._consumer.end_offsets([self._place]))[self._place]
                await self._consumer.seek_to_beginning(self._place)
            until_s = time.monotonic() + TIMEOUT_S
            while await self._consumer.position(self._place) < end:
                if time.monotonic() > until_s:
                    raise BrokerError(f"reading {self._place.topic}: its end was not reached in time")
                read += await self._fetched(200)
        return read

    async def new(self) -> list[_Raw]:
        """What has been fetched since the last call."""
        with broker_errors(f"reading {self._place.topic}"):
            return await self._fetched(0)

    async def visible(self, topic: str, end: int) -> None:
        """Return when readers of *topic* are told all before offset *end*, or after a moment without."""
        place = TopicPartition(topic, 0)
        until_s = time.monotonic() + VISIBLE_S
        with broker_errors(f"reading {topic}"):
            while (await self._consumer.end_offsets([place]))[place] < end:
                if time.monotonic() > until_s:
                    return
                await asyncio.sleep(_POLL_S)

    async def close(self) -> None:
        await stop_consumer(self._consumer)

    async def _fetched(self, wait_ms: int) -> list[_Raw]:
        fetched = await self._consumer.getmany(self._place, timeout_ms=wait_ms)
        return [(record.key, record.value) for records in fetched.values() for record in records]


def _joined(read: Iterable[_Raw], wishes: Mapping[str, str]) -> dict[str, Job]:
    """Id -> job with what is wished of it, of the records of ``jobs`` in their order."""
    latest = {key: value for key, value in read if key}
    jobs = {key.decode(): _JOB(value) for key, value in latest.items() if value}
    return {
        id_: msgspec.structs.replace(job, wanted=wishes.get(id_, job.wanted)) for id_, job in jobs.items()
    }


def _wished(read: Iterable[_Raw]) -> dict[str, str]:
    """Id -> what was last wished, of the records of ``jobs.wanted`` in their order."""
    return {key.decode(): _WISH(value).wanted for key, value in read if key and value}


def _unknown(id_: str, found: Iterable[str]) -> ConfigError:
    known = ", ".join(sorted(found))
    return ConfigError(f"unknown job {id_!r}; known: {known or 'none'}")


def _now() -> Time:
    return from_ms(_now_ms())


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
