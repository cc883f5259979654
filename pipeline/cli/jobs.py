"""What all commands that run durable jobs share: a job in the foreground, its progress, and its table."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, TypeAlias

import msgspec

from pipeline.cli.output import print_json, print_table
from pipeline.codec import Codec
from pipeline.errors import BrokerError, ConfigError, PipelineError
from pipeline.instants import to_ms
from pipeline.logs import mask
from pipeline.runtime.connection import Connection
from pipeline.runtime.jobs import ENDED, Job, JobProducer, Jobs, Wanted, job_producer
from pipeline.runtime.transaction import FencedError
from pipeline.settings import Settings
from pipeline.topics import load

__all__ = ["Work", "agreed", "connected", "foreground", "show", "show_all", "wish"]

#: Does what is left of the runner's job, and returns it as it ended.
Work: TypeAlias = Callable[[JobProducer], Awaitable[Job]]

#: How often a job is begun again after Kafka failed it, and the pause before, in seconds.
_RETRIES = 5
_RETRY_S = 1.0

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

#: How often progress is told, and how long a wish waits for the job's runner, in seconds.
_TELL_S = 1.0
_PATIENCE_S = 5.0


@asynccontextmanager
async def connected(settings: Settings, name: str) -> AsyncIterator[tuple[Connection, Codec, Jobs]]:
    """The cluster of *settings* under client id *name*, and the jobs there."""
    connection = Connection(settings.kafka, settings.runtime, name)
    codec = Codec(load(), 1, settings.application_id)
    jobs = Jobs(connection, codec)
    try:
        yield connection, codec, jobs
    finally:
        await jobs.close()


async def foreground(
    connection: Connection, codec: Codec, id_: str, work: Work, *, json: bool = False
) -> Job:
    """
    Run job *id_* here until it ends; Ctrl-C pauses it, a second one ends the process at once.

    Raises:
        BrokerError: Kafka failed again and again, or another runner took the job over; it can be resumed.
        PipelineError: what was asked cannot be done; the job has failed.
    """
    jobs = Jobs(connection, codec)
    await jobs.want(id_, "run")
    runners: list[JobProducer] = []
    telling = asyncio.create_task(_told(runners, json=json), name="progress")
    try:
        with _paused_by_signals(jobs, id_):
            job = await _run((connection, codec, id_), work, runners)
    finally:
        telling.cancel()
        with suppress(asyncio.CancelledError):
            await telling
        await jobs.close()
    show(job, json=json)
    return job


async def wish(connection: Connection, codec: Codec, jobs: Jobs, id_: str, wanted: Wanted) -> Job:
    """
    Wish *wanted* of job *id_*, and return it as it then is; one that nobody runs is paused or cancelled here.

    Raises:
        ConfigError: there is no such job, or it has ended.
        BrokerError: Kafka does not answer.
    """
    job = await jobs.get(id_)
    if job.state in ENDED:
        raise ConfigError(f"job {id_}: is {job.state} already")
    await jobs.want(id_, wanted)
    until_s = time.monotonic() + _PATIENCE_S
    while job.state == "running" and time.monotonic() < until_s:
        await asyncio.sleep(0.2)
        job = await jobs.get(id_)
    if job.state in {*ENDED, "paused"} and (job.state, wanted) != ("paused", "cancel"):
        return job
    async with job_producer(connection, codec, id_) as runner:  # nobody runs it, or is fenced by this
        return await runner.end(wanted)


def show(job: Job, *, json: bool) -> None:
    """Print how *job* stands, on one line."""
    if json:
        print_json("job", **_plain(job))
        return
    print(_line(job), flush=True)
    if job.state == "paused":
        print(f"go on with: pipeline {_command(job)} resume {job.id}")


def show_all(jobs: Sequence[Job], *, json: bool) -> None:
    """Print how *jobs* stand."""
    if json:
        print_json("jobs", jobs=[_plain(job) for job in jobs])
        return
    columns = ("job", "kind", "what", "state", "wanted", "done", "of", "per s", "updated", "error")
    print_table("Jobs", columns, [_row(job) for job in jobs])


def agreed(question: str) -> bool:
    """Whether the operator says yes."""
    return input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}


async def _run(which: tuple[Connection, Codec, str], work: Work, runners: list[JobProducer]) -> Job:
    """Run the job, again where Kafka failed it; *runners* are those that have begun, the latest last."""
    id_ = which[2]
    for attempt in range(_RETRIES + 1):
        try:
            async with job_producer(*which) as runner:
                runners.append(runner)
                if runner.job.state in ENDED:
                    raise ConfigError(f"job {id_}: is {runner.job.state} already")
                return await _worked(runner, work)
        except FencedError as error:
            raise BrokerError(f"job {id_}: another runner has taken it over") from error
        except BrokerError:
            if attempt == _RETRIES:
                raise
            await asyncio.sleep(_RETRY_S)
    raise AssertionError


async def _worked(runner: JobProducer, work: Work) -> Job:
    try:
        return await work(runner)
    except BrokerError:
        raise
    except PipelineError as error:
        await runner.end("failed", mask(str(error)))
        raise


@contextmanager
def _paused_by_signals(jobs: Jobs, id_: str) -> Iterator[None]:
    """Within the block the first Ctrl-C or SIGTERM wishes a pause, the second ends the process."""
    loop = asyncio.get_running_loop()
    wishing: list[asyncio.Task[None]] = []

    def take() -> None:
        if wishing:
            raise KeyboardInterrupt
        print("pausing at the next page; again to end at once", file=sys.stderr, flush=True)
        wishing.append(loop.create_task(jobs.want(id_, "pause"), name="pause"))

    for number in _SIGNALS:
        loop.add_signal_handler(number, take)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


async def _told(runners: Sequence[JobProducer], *, json: bool) -> None:
    """Tell on standard error how the job of the latest of *runners* gets on, until cancelled."""
    last: Job | None = None
    while True:
        await asyncio.sleep(_TELL_S)
        job = runners[-1].job if runners else None
        if job is not None and job != last and job.state == "running":
            told = {"kind": "progress", **_plain(job)}
            print(msgspec.json.encode(told).decode() if json else _line(job), file=sys.stderr, flush=True)
        last = job


def _line(job: Job) -> str:
    parts = [f"{job.kind} {job.id}", job.state]
    if job.total:
        parts.append(f"{job.done:,} of {job.total:,} ({100 * job.done // job.total} %)")
    if job.per_s:
        parts.append(f"{job.per_s:,.0f}/s")
        if job.total and job.state == "running":
            parts.append(f"{max(0, job.total - job.done) / job.per_s:,.0f} s left")
    if job.wanted != "run" and job.state == "running":
        parts.append(f"{job.wanted} wanted")
    if job.error:
        parts.append(job.error)
    return ", ".join(parts)


def _plain(job: Job) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(job)
    return {"job": plain.pop("kind"), **plain, "spec": _masked(job.spec), "cursor": _masked(job.cursor)}


def _masked(asked: Any) -> Any:
    """*asked* without numbers and secrets in its texts."""
    match asked:
        case str():
            return mask(asked)
        case dict():
            return {name: _masked(each) for name, each in asked.items()}
        case list() | tuple():
            return [_masked(each) for each in asked]
        case _:
            return asked


def _row(job: Job) -> tuple[str, ...]:
    total = "" if job.total is None else str(job.total)
    rate = "" if job.per_s is None else f"{job.per_s:.0f}"
    stale = ""
    if job.state == "running" and job.updated_at:
        silent_s = time.time() - to_ms(job.updated_at) / 1000
        stale = f" ({silent_s:.0f} s ago)" if silent_s > _PATIENCE_S else ""
    what = str(job.spec.get("what", ""))
    updated = f"{job.updated_at or ''}{stale}"
    return (
        job.id,
        job.kind,
        what,
        job.state,
        job.wanted,
        str(job.done),
        total,
        rate,
        updated,
        job.error or "",
    )


def _command(job: Job) -> str:
    return {"redrive": "dlq"}.get(job.kind, job.kind)
