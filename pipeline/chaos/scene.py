"""
All that a run of chaos plays with: three brokers behind proxies, the sandbox, the topics, three processes.

The processes are as in production: one takes in, two share all stages and sinks. Their time-outs are shorter,
so that a few minutes hold many failures and recoveries.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import msgspec

from pipeline import preflight, topology
from pipeline.chaos import proxy
from pipeline.chaos.proxy import Proxy
from pipeline.chaos.schedule import BROKERS, PROCESSES
from pipeline.chaos.supervised import Supervised
from pipeline.dev import child
from pipeline.dev.folder import claimed
from pipeline.errors import ConfigError
from pipeline.identity import Identity
from pipeline.runtime import admin, topic_plan
from pipeline.runtime.broker_cluster import EmbeddedCluster, Node, kept_ports
from pipeline.runtime.connection import Connection
from pipeline.runtime.reader import warmed
from pipeline.settings import Settings, load
from pipeline.topics import load as load_topics

__all__ = ["Options", "Scene", "make_topics", "opened"]

#: What takes in; the rest of `pipeline run` is shared by the workers.
_INGEST: Final = frozenset({"receiver", "poller", "clock"})

#: What the processes are told beside the sandbox's settings: to miss sooner what is away or late.
_TOLD: Final = {
    "PIPELINE_RUNTIME__SESSION_TIMEOUT_MS": "6000",
    "PIPELINE_RUNTIME__HEARTBEAT_INTERVAL_MS": "1000",
    "PIPELINE_RUNTIME__REBALANCE_TIMEOUT_MS": "10000",
    "PIPELINE_RUNTIME__REQUEST_TIMEOUT_MS": "8000",
    "PIPELINE_RUNTIME__TRANSACTION_TIMEOUT_MS": "8000",
    "PIPELINE_RUNTIME__STOP_TIMEOUT_S": "15",
    "PIPELINE_SAKARI__TIMEOUT_S": "4",
    "PIPELINE_USERS__TIMEOUT_S": "4",
    "PIPELINE_BREAKER__BACKOFF_MAX_S": "4",
    "PIPELINE_BREAKER__OPEN_S": "4",
}


#: The windows that close during a run do so later than in `pipeline dev`: three processes start slowly.
_CLOSE_LATER_S: Final = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """
    What `pipeline chaos` is told.

    Parameters
    ----------
    minutes
        How long faults are made; starting before and draining after come on top.
    seed
        Of traffic and faults; the same seed plans the same ones.
    rate
        Webhooks per second.
    tenants
        Names of the customers.
    folder
        Where the run keeps its data and logs; what a former run left there is removed.
    """

    minutes: float = 4.0
    seed: int = 1
    rate: float = 40.0
    tenants: tuple[str, ...] = ("acme", "bolt", "cedar")
    folder: Path = Path(".pipeline/chaos")

    def __post_init__(self) -> None:
        if not 0 < self.minutes <= 24 * 60:
            raise ConfigError(f"--minutes: {self.minutes:g}; it must be more than 0, and a day at most")
        if self.rate <= 0:
            raise ConfigError(f"--rate: {self.rate:g} webhooks a second; it must be more than 0")


@final
class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """What runs, by name."""

    options: Options
    settings: Settings  #: with which all topics can be read
    receiver: str  #: base URL of the pipeline's receiver
    sandbox: child.Sandbox
    nodes: Mapping[str, Node]
    proxies: Mapping[str, Proxy]
    processes: Mapping[str, Supervised]
    away: asyncio.Lock  #: held by whoever takes a broker away: the next one waits until it is back

    @property
    def connection(self) -> Connection:
        """To the cluster, through the proxies."""
        return Connection(self.settings.kafka, self.settings.runtime, "pipeline-chaos")


@asynccontextmanager
async def opened(
    options: Options, tell: Callable[..., None], on_progress: Callable[[Any], None]
) -> AsyncIterator[Scene]:
    """
    Everything, started but for the processes, which the caller runs.

    Raises:
        ConfigError, PipelineError: something cannot be started; says why.
    """
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(claimed(options.folder)).absolute()
        ports = kept_ports(len(BROKERS) + 1)
        cluster = EmbeddedCluster(folder / "kafka", advertised_ports=ports[1:], on_progress=on_progress)
        nodes = dict(zip(BROKERS, cluster.nodes, strict=True))
        proxies = {
            name: await stack.enter_async_context(proxy.opened(node.advertised_port, node.port))
            for name, node in nodes.items()
        }
        await stack.enter_async_context(cluster)
        tell("kafka", bootstrap_servers=cluster.bootstrap_servers)
        sandbox = await stack.enter_async_context(child.opened(_sandbox_options(options, folder)))
        tell("sandbox", control=sandbox.control_url)
        settings = _settings(sandbox.settings, cluster.bootstrap_servers)
        yield Scene(
            options=options,
            settings=settings,
            receiver=f"http://127.0.0.1:{ports[0]}",
            sandbox=sandbox,
            nodes=nodes,
            proxies=proxies,
            processes=_processes(folder, sandbox.settings, settings, ports[0]),
            away=asyncio.Lock(),
        )


async def make_topics(scene: Scene) -> None:
    """Make every topic, on all brokers, and let Kafka make those of its coordinators."""
    topics, settings = load_topics(), scene.settings
    profile = msgspec.structs.replace(
        topics.profile(settings.profile), replication=len(BROKERS), min_insync_replicas=len(BROKERS) // 2 + 1
    )
    stages = [unit.stage for unit in topology.units(settings, Identity(b""))]
    wanted = topic_plan.wanted(topics, profile, settings.application_id, stages)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(admin.ensure(scene.connection.common, wanted), name="make topics")
        tasks.create_task(warmed(scene.connection), name="warm coordinators")


def _sandbox_options(options: Options, folder: Path) -> child.SandboxOptions:
    return child.SandboxOptions(
        folder=folder / "sandbox", seed=options.seed, rate=options.rate, tenants=options.tenants
    )


def _settings(file: Path, bootstrap_servers: str) -> Settings:
    settings = load(file)
    kafka = settings.kafka.model_copy(update={"bootstrap_servers": bootstrap_servers})
    grace_s = settings.engagement.grace_s + _CLOSE_LATER_S
    engagement = settings.engagement.model_copy(update={"grace_s": grace_s})
    return settings.model_copy(update={"kafka": kafka, "engagement": engagement})


def _processes(folder: Path, file: Path, settings: Settings, receiver_port: int) -> dict[str, Supervised]:
    shared = ",".join(name for name in preflight.NAMES if name not in _INGEST)
    told = {
        **_TOLD,
        "PIPELINE_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        "PIPELINE_ENGAGEMENT__GRACE_S": str(settings.engagement.grace_s),
    }
    ingest, *workers = PROCESSES
    command = (sys.executable, "-m", "pipeline", "run", "--json", "--settings", str(file), "--only")
    return {
        ingest: Supervised(
            ingest,
            folder,
            (*command, ",".join(sorted(_INGEST))),
            {**told, "PIPELINE_RECEIVER__PORT": str(receiver_port)},
        ),
        **{name: Supervised(name, folder, (*command, shared), told) for name in workers},
    }
