"""
Assembles one process: settings in, running groups and services out.

`opened` connects everything and hands over a `Process`; whoever has it runs its worker. `pipeline run`
and `pipeline dev` are the same program, with other settings.
"""

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache, partial
from typing import Any, final

import msgspec
import structlog
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import NodeNotReadyError
from prometheus_client import Counter

from pipeline import preflight, topology
from pipeline.clients.opened import Clients
from pipeline.clients.opened import opened as clients_opened
from pipeline.clients.tokens import Sealer
from pipeline.codec import Codec
from pipeline.effects import Unit
from pipeline.errors import ConfigError
from pipeline.events import Fingerprint, Token
from pipeline.identity import Identity
from pipeline.logs import mask
from pipeline.runtime import names
from pipeline.runtime.batch import stores_of
from pipeline.runtime.cluster import Cluster
from pipeline.runtime.connection import Connection
from pipeline.runtime.erasure import redacted
from pipeline.runtime.health import AdminServer
from pipeline.runtime.metrics import Metrics
from pipeline.runtime.publisher import Publisher
from pipeline.runtime.table import KafkaTable
from pipeline.runtime.transaction import broker_errors
from pipeline.runtime.worker import Service, Worker
from pipeline.settings import Settings
from pipeline.sources import left_out
from pipeline.sources.receiver import Receiver
from pipeline.sources.resources import resources
from pipeline.topics import Topics, load

__all__ = ["Process", "allow_files", "check_identity", "cluster_of", "opened"]

#: Open files that are enough for any process.
_FILES = 65_536

_log = structlog.get_logger(__name__)

#: Pause before another broker is asked, in seconds.
_ASK_AGAIN_S = 0.5


@final
class Process(msgspec.Struct, frozen=True, kw_only=True):
    """One process, assembled; it works while ``worker.run()`` does."""

    worker: Worker
    cluster: Cluster
    clients: Clients
    units: tuple[Unit, ...]
    admin: AdminServer
    receiver: Receiver | None


@asynccontextmanager
async def opened(
    settings: Settings, only: frozenset[str] = frozenset(preflight.NAMES)
) -> AsyncIterator[Process]:
    """
    The process that *settings* describe, with the parts named by *only*.

    Raises:
        ConfigError: the settings are unsafe, topics are missing, or the cluster knows another identity.
        BrokerError: Kafka does not answer.
    """
    preflight.check(settings)
    allow_files()
    identity = preflight.identity_of(settings)
    connection = Connection(settings.kafka, settings.runtime)
    cluster = await cluster_of(settings, connection)
    async with AsyncExitStack() as stack:
        await check_identity(cluster, identity, stack)
        tokens = KafkaTable(connection, cluster.codec, "tokens", Token)
        stack.push_async_callback(tokens.close)
        clients = await stack.enter_async_context(
            clients_opened(settings, tokens, Sealer(identity.derived("tokens")))
        )
        made = _units(settings, identity, clients, connection)
        units = tuple(unit for unit in made if unit.stage.name in only)
        await _check_changelogs(cluster, units)
        receiver = _receiver(settings, cluster, stack) if "receiver" in only else None
        yield _process(settings, cluster, clients, units, receiver)


def allow_files() -> None:
    """Have as many files open as we may: hundreds of stores have six each, and every client its sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _process(
    settings: Settings, cluster: Cluster, clients: Clients, units: tuple[Unit, ...], receiver: Receiver | None
) -> Process:
    def unready() -> dict[str, str]:
        return {**worker.unready, **{f"tenant {name}": why for name, why in clients.disabled.items()}}

    admin = AdminServer(settings.admin, cluster.metrics, unready, lambda: worker.stuck)
    services: list[Service] = [admin] if receiver is None else [admin, receiver]
    worker = Worker(units, cluster, services)
    for name, why in clients.disabled.items():
        _log.error("tenant.disabled", tenant=name, reason=why)
    return Process(
        worker=worker, cluster=cluster, clients=clients, units=units, admin=admin, receiver=receiver
    )


def _units(
    settings: Settings, identity: Identity, clients: Clients, connection: Connection
) -> tuple[Unit, ...]:
    found = resources(settings.tenants, clients.sakari, clients.users, settings.poll, _now_ms)
    polled = [left_out.polled(each, partial(redacted, connection)) for each in found]
    return topology.units(settings, identity, polled, clients.users)


def _receiver(settings: Settings, cluster: Cluster, stack: AsyncExitStack) -> Receiver:
    publisher = Publisher(cluster.connection, settings.receiver.produce_timeout_s)
    stack.push_async_callback(publisher.close)

    @cache
    def counter(product: str, status: int) -> Counter:
        return cluster.metrics.webhooks.labels(product, str(status))

    def answered(product: str, status: int) -> None:
        counter(product, status).inc()

    return Receiver(settings, cluster.codec, publisher.publish, answered)


async def cluster_of(settings: Settings, connection: Connection) -> Cluster:
    """
    What tasks of *settings* share on the cluster that *connection* leads to.

    Raises:
        ConfigError: topics are missing.
        BrokerError: Kafka does not answer.
    """
    topics = load()
    cluster_id, partitions = await _described(connection, topics)
    return Cluster(
        id=cluster_id,
        application_id=settings.application_id,
        partitions=partitions,
        connection=connection,
        codec=Codec(topics, partitions, settings.application_id),
        settings=settings.runtime,
        metrics=Metrics(),
        mask=mask,
    )


async def _described(connection: Connection, topics: Topics) -> tuple[str, int]:
    """The cluster's id, and the one partition count that all inputs share."""
    with broker_errors("connecting to Kafka"):
        async with asyncio.timeout(30):
            cluster_id, found = await _asked(connection, list(topics))
    counts = {topic["topic"]: len(topic["partitions"]) for topic in found if not topic["error_code"]}
    _refuse_missing(topics, counts)
    return cluster_id, counts["sources.received"]


async def _asked(connection: Connection, topics: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """The cluster's id, and what it knows of *topics*, of whichever broker is there."""
    while True:
        try:
            return await _answered(connection, topics)
        except NodeNotReadyError:  # others are there, or it could not have been chosen
            await asyncio.sleep(_ASK_AGAIN_S)


async def _answered(connection: Connection, topics: list[str]) -> tuple[str, list[dict[str, Any]]]:
    admin = AIOKafkaAdminClient(**connection.common)
    try:
        await admin.start()
        cluster_id = str((await admin.describe_cluster())["cluster_id"])
        return cluster_id, await admin.describe_topics(topics)
    finally:
        await admin.close()


async def _check_changelogs(cluster: Cluster, units: Iterable[Unit]) -> None:
    """Every store needs its changelog, with as many partitions as its stage has tasks."""
    wanted = [
        names.changelog(cluster.application_id, unit.stage.name, store)
        for unit in units
        for store in stores_of(unit.stage)
    ]
    if not wanted:
        return
    with broker_errors("looking for changelogs"):
        async with asyncio.timeout(30):
            _, found = await _asked(cluster.connection, wanted)
    counts = {topic["topic"]: len(topic["partitions"]) for topic in found if not topic["error_code"]}
    _refuse_missing(wanted, counts)
    uneven = sorted(name for name, count in counts.items() if count != cluster.partitions)
    if uneven:
        told = ", ".join(f"{name} has {counts[name]}" for name in uneven)
        raise ConfigError(f"changelogs need {cluster.partitions} partitions, as the stages' inputs: {told}")


def _refuse_missing(wanted: Iterable[str], there: Iterable[str]) -> None:
    missing = sorted(set(wanted) - set(there))
    if missing:
        raise ConfigError(f"topics are missing: {', '.join(missing)}; `pipeline topics apply` makes them")


async def check_identity(cluster: Cluster, identity: Identity, stack: AsyncExitStack) -> None:
    """Refuse an identity secret that is not the cluster's; the first one to come is kept."""
    table = KafkaTable(cluster.connection, cluster.codec, "meta", Fingerprint)
    stack.push_async_callback(table.close)
    key = f"{cluster.application_id}.identity"
    known = await table.load(key)
    if known is None:
        await table.save(key, Fingerprint(identity.fingerprint()))
    elif known.sha256 != identity.fingerprint():
        raise ConfigError(
            "identity_secret: is not the one that this cluster's keys were made with; give that one back"
        )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
