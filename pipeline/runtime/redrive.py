"""
Dead letters on their way back: a durable job that puts each of them back once, page by page.

One transaction writes a page to ``<stage>.redrive``, its ids to ``audit`` and the job's progress. So what
was put back is known wherever the process dies, and the same redrive begun again goes on behind it. Letters
that come later, such as those of records that fail again, are not of this redrive.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Any, final

import msgspec

from pipeline.codec import Codec, Places
from pipeline.errors import ConfigError
from pipeline.events.audit import AuditEntry
from pipeline.instants import Time, from_ms
from pipeline.runtime import audit
from pipeline.runtime.connection import Connection
from pipeline.runtime.dead_letters import Redrive, redriven
from pipeline.runtime.decisions import PAGE, obstacle
from pipeline.runtime.jobs import ENDED, Job, JobProducer, Jobs, job_producer, new_job
from pipeline.runtime.letters import REDRIVEN, Edit, Letter, Letters, Selection, add_edit, lock

__all__ = ["KIND", "Asked", "asked_of", "busy", "cancelled", "created", "is_alive", "redrive"]

KIND = "redrive"

#: Of so many bytes of values a page is full, whatever their number.
PAGE_BYTES = 4 * 2**20

#: A job of another process that said so long nothing, in seconds, is taken for dead.
SILENT_S = 60.0


@final
class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator asked for; kept with the job."""

    selection: Selection
    words: dict[str, Any]  #: the selection as it was asked for, to know the same redrive by
    limit: int
    by: str
    ends: dict[str, int]  #: partition of dead-letters -> what comes later is not of this redrive


def asked_of(job: Job) -> Asked:
    """What *job* was asked to do."""
    return msgspec.convert(job.spec, Asked)


async def created(jobs: Jobs, id_: str, asked: Asked, total: int) -> Job:
    """
    Keep a new redrive, under *id_* or an id of its own where that is empty.

    Raises:
        BrokerError: it may not be durable.
    """
    job = new_job(KIND, msgspec.to_builtins(asked), total=total)
    return await jobs.create(msgspec.structs.replace(job, id=id_) if id_ else job)


async def busy(jobs: Jobs, but: str = "") -> None:
    """
    Refuse to begin while another redrive than *but* runs.

    Raises:
        ConfigError: one does.
    """
    for job in await jobs.list():
        if job.kind == KIND and job.id != but and is_alive(job):
            raise ConfigError(
                f"redrive {job.id} is running; wait for it, or stop it: `pipeline dlq cancel {job.id}`"
            )


def is_alive(job: Job) -> bool:
    """Whether a process seems to run *job*."""
    since = from_ms(time.time_ns() // 1_000_000 - int(SILENT_S * 1000))
    return job.state == "running" and (job.updated_at or Time("")) > since


async def cancelled(connection: Connection, codec: Codec, job: Job) -> Job:
    """End *job*, which nobody runs, for good."""
    async with job_producer(connection, codec, job.id, lock=lock()) as runner:
        return runner.job if runner.job.state in ENDED else await runner.end("cancel")


async def redrive(
    connection: Connection,
    codec: Codec,
    id_: str,
    *,
    rate: int,
    stopping: asyncio.Event,
    told: Callable[[Job], None],
) -> Job:
    """
    Run the redrive *id_* until it is done, cancelled, or *stopping* is set; at most *rate* letters a second.

    Returns:
        The job as it stands then; *told* is called with it after each page.

    Raises:
        ConfigError: there is no such job.
        BrokerError: Kafka failed, or another process decides of dead letters; beginning again goes on.
    """
    async with job_producer(connection, codec, id_, lock=lock()) as runner:
        if runner.job.state in ENDED:
            return runner.job
        work = _Work(connection, codec, runner, rate)
        await work.prepare()
        async with aclosing(work.pages()) as pages:
            async for page in pages:
                wanted = await work.put_back(page)
                told(runner.job)
                if wanted == "run" and not await work.paced(stopping):
                    continue
                return await runner.end("pause" if wanted == "run" else wanted)
        runner.job = msgspec.structs.replace(runner.job, done=work.done)
        return await runner.end("done")


class _Work:
    """One run of a redrive."""

    def __init__(self, connection: Connection, codec: Codec, runner: JobProducer, rate: int) -> None:
        self._codec = codec
        self._runner = runner
        self._asked = asked_of(runner.job)
        self._rate = rate
        self._letters = Letters(connection, codec)
        self._decided: Mapping[str, AuditEntry] = {}
        self._edits: Mapping[str, Edit] = {}
        self.done = 0
        self._before = 0
        self._begun_s = 0.0

    async def prepare(self) -> None:
        """Read what was decided; nobody else decides from now on without fencing this run."""
        self._decided = await self._letters.decisions()
        self._edits = await self._letters.edits()
        mine = [entry for entry in self._decided.values() if entry.job == self._runner.job.id]
        self.done = self._before = len(mine)
        self._begun_s = time.monotonic()

    async def pages(self) -> AsyncGenerator[list[Letter], None]:
        """What is left of the redrive, in pages of about a second."""
        size = max(1, min(PAGE, self._rate))
        page: list[Letter] = []
        held = 0
        left = self._asked.limit - self.done
        async with aclosing(self._letters.matching(self._asked.selection, self._asked.ends)) as found:
            async for letter in found:
                if left <= 0:
                    break
                if letter.id in self._decided or obstacle(self._codec, letter, self._edits.get(letter.id)):
                    continue
                page.append(letter)
                held += len(letter.value or b"")
                left -= 1
                if len(page) == size or held >= PAGE_BYTES:
                    yield page
                    page, held = [], 0
        if page:
            yield page

    async def put_back(self, page: list[Letter]) -> str:
        """Commit *page*; returns what is wished of the job."""
        job = self._runner.job
        now_ms = time.time_ns() // 1_000_000
        redrive = Redrive(id=job.id, by=self._asked.by, at_ms=now_ms)
        places: Places = {}
        for letter in page:
            edited = self._edits.get(letter.id)
            place = (f"{letter.stage}.redrive", self._partition(letter))
            sent = redriven(letter, letter.id, redrive, edited.value if edited else None)
            places.setdefault(place, []).append(sent)
            if edited:
                add_edit(places, letter, None, self._asked.by)
        ids = tuple(letter.id for letter in page)
        audit.add(self._codec, places, audit.entry(REDRIVEN, self._asked.by, ids, job=job.id))
        self.done += len(page)
        speed = (self.done - self._before) / max(0.001, time.monotonic() - self._begun_s)
        job = msgspec.structs.replace(
            job, state="running", done=self.done, per_s=round(min(speed, self._rate), 1)
        )
        return await self._runner.commit(places, job)

    async def paced(self, stopping: asyncio.Event) -> bool:
        """Wait until the next page is due; whether *stopping* was set meanwhile."""
        due_s = self._begun_s + (self.done - self._before) / self._rate - time.monotonic()
        if due_s > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(due_s):
                    await stopping.wait()
        return stopping.is_set()

    def _partition(self, letter: Letter) -> int:
        """The task that refused *letter*."""
        if letter.origin_partition >= 0:
            return letter.origin_partition
        return self._codec.placed(self._codec.topics[letter.topic], letter.key_text)[0]
