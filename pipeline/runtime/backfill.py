"""
Assembles a backfill: settings in, a durable job that is planned, made and run.

It has clients of its own, which keep to a share of the APIs' limits. Tokens all processes have in common.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final

import msgspec

from pipeline import preflight
from pipeline.clients.opened import opened as clients_opened
from pipeline.clients.tokens import Sealer
from pipeline.codec import Codec, Places
from pipeline.errors import ConfigError, Throttled
from pipeline.events import Job, Token
from pipeline.runtime.admin import Admin
from pipeline.runtime.connection import Connection
from pipeline.runtime.erasure import redacted
from pipeline.runtime.jobs import JobProducer, Jobs, new_job
from pipeline.runtime.table import KafkaTable
from pipeline.settings import Settings
from pipeline.sources import left_out
from pipeline.sources.backfill import Backfill, Terms
from pipeline.sources.history import Account, Asked, Estimate, accounts, estimated
from pipeline.sources.resources import resources
from pipeline.sources.scan import Page, Resource
from pipeline.stage import Emit, Event
from pipeline.topics import load

__all__ = ["KIND", "Backfills", "opened"]

KIND: Final = "backfill"

#: Topics that a backfill writes or reads.
_TOPICS: Final = ("sources.received", "jobs", "jobs.wanted", "tokens", "redactions")

#: A plan waits so long at most for its turn with an API, in seconds.
_PATIENCE_S: Final = 60.0


class Backfills:
    """Plans, makes and runs backfills of what *found* lists."""

    def __init__(
        self, settings: Settings, connection: Connection, codec: Codec, jobs: Jobs, found: Sequence[Resource]
    ) -> None:
        self.connection = connection
        self.codec = codec
        self.jobs = jobs
        self._settings = settings
        self._found = found

    def accounts(self, asked: Asked) -> tuple[Account, ...]:
        """
        What *asked* means now, by account.

        Raises:
            ConfigError: nothing.
        """
        meant = accounts(self._found, asked)
        if not meant:
            raise ConfigError(f"--tenant: none of {', '.join(asked.tenants)} has anything of {asked.product}")
        return meant

    async def plan(self, asked: Asked) -> list[Estimate]:
        """
        What fetching each resource takes; asks the APIs, within the share that a backfill has.

        Raises:
            UpstreamError: an API does not answer, or has nothing left for a backfill for long.
        """
        size = self._settings.poll.page_size

        async def of(account: Account) -> list[Estimate]:
            return [await estimated(_patient(resource), size) for resource in account.resources]

        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(of(one), name=f"plan {one.key}") for one in self.accounts(asked)]
        return [estimate for task in running for estimate in task.result()]

    async def create(self, asked: Asked, calls: int | None) -> Job:
        """
        Keep a job that fetches what was *asked*.

        Raises:
            BrokerError: it may not be durable.
        """
        spec: dict[str, Any] = msgspec.to_builtins(asked)
        return await self.jobs.create(new_job(KIND, spec, total=calls))

    async def run(self, runner: JobProducer) -> Job:
        """
        Run *runner*'s job from where it stands; the job as it then is.

        Raises:
            ConfigError: it is no backfill, or the settings have nothing of what it fetches any more.
            BrokerError: nothing is known of the last commit.
        """
        if runner.job.kind != KIND:
            raise ConfigError(f"job {runner.job.id} is a {runner.job.kind}, no backfill")
        asked = msgspec.convert(runner.job.spec, Asked)
        terms = Terms(
            asked=asked, seen_days=self._settings.decode.seen_days, placed=self._placed, now=_now_ms
        )
        return await Backfill(self.accounts(asked), runner, terms).run()

    def _placed(self, emits: Sequence[Emit], cause: Event[Any]) -> Places:
        places: Places = {}
        made = [(emit, cause, index) for index, emit in enumerate(emits)]
        self.codec.writer("backfill").write(made, places)
        return places


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Backfills]:
    """
    Backfills by *settings*, until the end of the block.

    Raises:
        ConfigError: the settings are unsafe, a tenant's secrets cannot be read, or topics are missing.
        BrokerError: Kafka does not answer.
    """
    preflight.check(settings)
    identity = preflight.identity_of(settings)
    connection = Connection(settings.kafka, settings.runtime, "pipeline-backfill")
    codec = await _codec(settings, connection)
    async with AsyncExitStack() as stack:
        tokens = KafkaTable(connection, codec, "tokens", Token)
        stack.push_async_callback(tokens.close)
        jobs = Jobs(connection, codec)
        stack.push_async_callback(jobs.close)
        sealer = Sealer(identity.derived("tokens"))
        clients = await stack.enter_async_context(
            clients_opened(settings, tokens, sealer, sparing=settings.backfill)
        )
        if clients.disabled:
            raise ConfigError([f"tenants.{name}: {why}" for name, why in clients.disabled.items()])
        # Whatever the pollers leave out as too old is judged by the period instead.
        poll = settings.poll.model_copy(update={"reconcile_days": settings.decode.seen_days + 1})
        known = resources(settings.tenants, clients.sakari, clients.users, poll, _now_ms)
        found = [left_out.fetched(each, partial(redacted, connection)) for each in known]
        yield Backfills(settings, connection, codec, jobs, found)


async def _codec(settings: Settings, connection: Connection) -> Codec:
    topics = load()
    async with Admin(connection.common) as admin:
        there = await admin.found(_TOPICS)
    if missing := sorted(set(_TOPICS) - set(there)):
        raise ConfigError(f"topics are missing: {', '.join(missing)}; `pipeline topics apply` makes them")
    return Codec(topics, there["sources.received"].partitions, settings.application_id)


def _patient(resource: Resource) -> Resource:
    """*resource*, whose pages wait a while where others need the limits."""

    async def page(cursor: str) -> Page:
        while True:
            try:
                return await resource.page(cursor)
            except Throttled as error:
                wait_s = error.retry_after_s or 1.0
                if wait_s > _PATIENCE_S:
                    raise
                await asyncio.sleep(wait_s)

    return msgspec.structs.replace(resource, page=page)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
