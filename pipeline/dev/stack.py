"""Starts all of `pipeline dev`: Kafka, the sandbox, topics, the pipeline itself."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import msgspec

from pipeline import topology
from pipeline.dev import child
from pipeline.dev.folder import claimed
from pipeline.errors import ConfigError
from pipeline.identity import Identity
from pipeline.preflight import DEV_IDENTITY_SECRET
from pipeline.runtime import admin, topic_plan
from pipeline.runtime.broker import EmbeddedBroker
from pipeline.runtime.connection import Connection
from pipeline.runtime.reader import warmed
from pipeline.runtime.run import Process, opened
from pipeline.settings import KafkaSettings, Settings, load
from pipeline.topics import load as load_topics

__all__ = ["Options", "Stack", "Tell", "started"]

#: As the sandbox writes it into its settings.
APPLICATION_ID = "dev"

#: Told each event of the life cycle: its kind and its fields.
Tell = Callable[..., None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """
    What `pipeline dev` is told.

    Parameters
    ----------
    rate
        Webhooks per second.
    seed
        Of the traffic; the same seed tells the same story.
    tenants
        Names of the customers.
    faults
        Let a few webhooks be lost, doubled, delayed and overtaken.
    folder
        Where the run keeps its data; what a former run left there is removed.
    ephemeral
        Keep Kafka's data nowhere.
    bootstrap_servers
        An empty Kafka to use instead of the embedded one.
    """

    rate: float = 20.0
    seed: int = 7
    tenants: tuple[str, ...] = ("acme", "bolt", "cedar")
    faults: bool = True
    folder: Path = Path(".pipeline/dev")
    ephemeral: bool = False
    bootstrap_servers: str = ""

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ConfigError(f"--rate: {self.rate} webhooks a second; it must be more than 0")


@final
class Stack(msgspec.Struct, frozen=True, kw_only=True):
    """All that runs."""

    options: Options
    settings: Settings
    sandbox: child.Sandbox
    process: Process
    broker: EmbeddedBroker | None

    @property
    def bootstrap_servers(self) -> str:
        """Where Kafka is."""
        return self.settings.kafka.bootstrap_servers


@asynccontextmanager
async def started(options: Options, tell: Tell, on_progress: Callable[[Any], None]) -> AsyncIterator[Stack]:
    """
    Everything, started but for the worker, which the caller runs.

    What a former run left in the folder is removed: a sandbox begins its story anew, and facts of the
    last one would be its duplicates.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(claimed(options.folder))
        broker, sandbox = await _outside(options, stack, tell, on_progress)
        servers = broker.bootstrap_servers if broker else options.bootstrap_servers
        settings = _settings(sandbox.settings, servers)
        process = await stack.enter_async_context(opened(settings))
        yield Stack(options=options, settings=settings, sandbox=sandbox, process=process, broker=broker)


async def _outside(
    options: Options, stack: AsyncExitStack, tell: Tell, on_progress: Callable[[Any], None]
) -> tuple[EmbeddedBroker | None, child.Sandbox]:
    """Kafka and the sandbox, started side by side."""
    sandbox_options = child.SandboxOptions(
        folder=options.folder / "sandbox",
        seed=options.seed,
        rate=options.rate,
        tenants=options.tenants,
        faults=options.faults,
    )
    broker: EmbeddedBroker | None = None
    if not options.bootstrap_servers:
        data_dir = None if options.ephemeral else options.folder / "kafka"
        broker = EmbeddedBroker(data_dir, on_progress=on_progress)
    async with asyncio.TaskGroup() as tasks:
        if broker is not None:
            stack.push_async_callback(broker.stop)
        tasks.create_task(_kafka(broker, options, tell), name="start kafka")
        sandbox = await stack.enter_async_context(child.opened(sandbox_options))
    tell("sandbox", sakari=sandbox.sakari_url, users=sandbox.users_url, control=sandbox.control_url)
    return broker, sandbox


async def _kafka(broker: EmbeddedBroker | None, options: Options, tell: Tell) -> None:
    """Start Kafka where it is ours, make the topics, and let it set up its coordinators meanwhile."""
    servers = options.bootstrap_servers
    if broker is not None:
        await broker.start()
        servers = broker.bootstrap_servers
        tell("kafka", bootstrap_servers=servers, version=broker.version, pid=broker.pid)
    settings = Settings(
        application_id=APPLICATION_ID, profile="dev", kafka=KafkaSettings(bootstrap_servers=servers)
    )
    connection = Connection(settings.kafka, settings.runtime)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_topics(settings, connection), name="make topics")
        tasks.create_task(warmed(connection), name="warm coordinators")
    tell("topics", application_id=settings.application_id)


def _settings(file: Path, bootstrap_servers: str) -> Settings:
    settings = load(file)
    kafka = settings.kafka.model_copy(update={"bootstrap_servers": bootstrap_servers})
    return settings.model_copy(update={"kafka": kafka})


async def _topics(settings: Settings, connection: Connection) -> None:
    """Make every topic, changelogs included; what is there already stays."""
    topics = load_topics()
    units = topology.units(settings, Identity(DEV_IDENTITY_SECRET.encode()))
    profile = topics.profile(settings.profile)
    stages = [unit.stage for unit in units]
    await admin.ensure(connection.common, topic_plan.wanted(topics, profile, settings.application_id, stages))
