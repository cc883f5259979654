"""Runs the tally on a topic, through the runtime as production has it, and measures it."""

import asyncio
import os
import resource
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import final

import msgspec
from prometheus_client import Counter

from pipeline.bench.tally import COUNTED, COUNTS, EVENT, TYPES, tally
from pipeline.codec import Codec
from pipeline.effects import Unit
from pipeline.errors import BrokerError, ConfigError, StageFailed
from pipeline.logs import mask
from pipeline.runtime import names
from pipeline.runtime.admin import Admin
from pipeline.runtime.cluster import Cluster
from pipeline.runtime.connection import Connection
from pipeline.runtime.metrics import Metrics
from pipeline.runtime.reader import reading, warmed
from pipeline.runtime.topic_plan import Found, wanted
from pipeline.runtime.worker import Worker
from pipeline.settings import KafkaSettings, RuntimeSettings
from pipeline.stage import Stage
from pipeline.topics import Topic, Topics, load

__all__ = ["Figures", "measured"]

#: How often it is looked at whether work has begun or ended, in seconds: the error of a measurement.
_LOOK_S = 0.005

_DEAD_LETTERS = "dead-letters"


@final
class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What a run amounted to; seconds from the first partition's being ready to the last commit."""

    records: int  #: committed: at least as many as asked for, the last transaction being whole
    seconds: float
    records_per_s: int
    transactions: int
    cpu_seconds: float  #: of this process in the same time, all threads
    max_rss_mb: int
    topic: str  #: where the result stands
    changelog: str  #: where the counts stand


async def measured(bootstrap_servers: str, topic: str, records: int) -> Figures:
    """
    Tally the first *records* records of *topic* to ``<topic>.out`` under a fresh application id.

    The clock runs from the moment the first partition can be read (it is assigned, its producer is
    started, its position set, nothing fetched) until *records* input records are committed; each of
    the two is seen at most 5 ms late. Starting, joining the group and stopping are not measured.

    Raises:
        ConfigError: there is no such topic, or it holds fewer records, or some are no events.
        BrokerError: Kafka does not answer.
    """
    run = os.urandom(4).hex()
    application_id = f"bench-{run}"
    with tempfile.TemporaryDirectory(prefix="pipeline-bench-") as folder:
        settings = RuntimeSettings(state_dir=Path(folder))
        connection = Connection(KafkaSettings(bootstrap_servers=bootstrap_servers), settings, application_id)
        stage = tally(f"tally-{run}", topic, f"{topic}.out")
        try:
            topics, partitions = await _prepared(connection, application_id, stage)
            await warmed(connection)
        except BrokerError as error:
            raise BrokerError(f"--bootstrap: {error}") from error
        await _refuse_few(connection, topic, partitions, records)
        cluster = Cluster(
            id=application_id,
            application_id=application_id,
            partitions=partitions,
            connection=connection,
            codec=Codec(topics, partitions, application_id, TYPES),
            settings=settings,
            metrics=Metrics(),
            mask=mask,
        )
        return await _run(Worker([Unit(stage=stage)], cluster), cluster, stage, records)


async def _prepared(connection: Connection, application_id: str, stage: Stage) -> tuple[Topics, int]:
    """The topics of the work, all of them there; and how many partitions each has."""
    (source,), (target,) = stage.inputs, stage.outputs
    async with Admin(connection.common) as admin:
        found = await admin.found((source, target, _DEAD_LETTERS))
        topics = _topics(stage, found)
        profile = load().profile("dev")
        sized = msgspec.structs.replace(profile, partitions=found[source].partitions)
        missing = [each for each in wanted(topics, sized, application_id, (stage,)) if each.name not in found]
        await admin.apply(await admin.plan(missing))
    return topics, found[source].partitions


def _topics(stage: Stage, found: Mapping[str, Found]) -> Topics:
    """
    The topics of *stage* as the codec wants them; what was *found* is taken as it is.

    Raises:
        ConfigError: the topic to be read is missing, or the one to be written is of another size.
    """
    (source,), (target,) = stage.inputs, stage.outputs
    if source not in found:
        raise ConfigError(f"--topic: there is no topic {source!r} at this cluster")
    count = found[source].partitions
    if target in found and found[target].partitions != count:
        raise ConfigError(
            f"--topic: {target} has {found[target].partitions} partitions, {source} has {count};"
            f" delete {target} or take another topic"
        )
    real = load()
    there = found[_DEAD_LETTERS].partitions if _DEAD_LETTERS in found else real.profile("dev").partitions
    dead = msgspec.structs.replace(real[_DEAD_LETTERS], partitions=there)
    redrive = _topic(f"{stage.name}.redrive", "raw", "internal", partitioned_by="explicit")
    made = [_topic(source, EVENT, "internal"), _topic(target, COUNTED, "public"), redrive, dead]
    return Topics(made, real.profiles.values(), real.changelogs)


def _topic(name: str, type_: str, visibility: str, **changes: str) -> Topic:
    fields = {
        "name": name,
        "description": "a topic of a benchmark",
        "owner": "bench",
        "visibility": visibility,
        "key": "whatever is counted",
        "types": (type_,),
        "cleanup": ("delete",),
        "retention_ms": 86_400_000,
    }
    return msgspec.convert(fields | changes, Topic)


async def _refuse_few(connection: Connection, topic: str, partitions: int, records: int) -> None:
    """
    Refuse a topic that cannot hold *records*.

    Raises:
        ConfigError: it has fewer offsets; whether each is a record shows only when they are read.
    """
    async with reading(connection, (topic,), partitions) as reader:
        there = (await reader.ends())[topic]
    if there < records:
        raise ConfigError(f"--records: {records}, but {topic} holds {there}")


async def _run(worker: Worker, cluster: Cluster, stage: Stage, records: int) -> Figures:
    """
    Run *worker* until *records* are committed.

    Raises:
        ConfigError: the topic ended before, or some of its records are no events.
        StageFailed: nearly all are none.
    """
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(worker.run(), name="worker")
        try:
            figures = await _measured(worker, cluster, stage, records)
        finally:
            worker.stop()
    refused = _count(cluster.metrics.dead_letters)
    if refused:
        raise ConfigError(
            f"--topic: {refused} records of {stage.inputs[0]} have no key, or are no JSON objects with"
            f" eventId, type, accountId, occurredAt and payload; {_DEAD_LETTERS} has them, and why"
        )
    return figures


async def _measured(worker: Worker, cluster: Cluster, stage: Stage, records: int) -> Figures:
    (group,) = worker.groups.values()
    while not any(task.state == "working" for task in group.tasks.values()):
        _raise_if_failed(worker)
        await asyncio.sleep(_LOOK_S)
    began, cpu_began = time.perf_counter(), time.process_time()
    committed, looked = 0, began
    while committed < records:
        _raise_if_failed(worker)
        await asyncio.sleep(_LOOK_S)
        committed = _count(cluster.metrics.records)
        if time.perf_counter() - looked > 1:
            looked = time.perf_counter()
            await _refuse_ended(worker, cluster, records)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    return Figures(
        records=committed,
        seconds=round(seconds, 3),
        records_per_s=round(committed / seconds),
        transactions=_count(cluster.metrics.transactions),
        cpu_seconds=round(cpu_seconds, 3),
        max_rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        topic=stage.outputs[0],
        changelog=names.changelog(cluster.application_id, stage.name, COUNTS),
    )


def _raise_if_failed(worker: Worker) -> None:
    for group in worker.groups.values():
        if group.failed is not None:
            raise StageFailed(group.failed)


async def _refuse_ended(worker: Worker, cluster: Cluster, records: int) -> None:
    """
    Refuse to wait on when everything is read and committed.

    Raises:
        ConfigError: the topic held too few.
    """
    (group,) = worker.groups.values()
    if not (group.ready and all(task.idle for task in group.tasks.values())):
        return
    try:
        lag = sum((await group.lag()).values())
    except BrokerError:
        return  # not known now
    committed = _count(cluster.metrics.records)
    if not lag and committed < records and all(task.idle for task in group.tasks.values()):
        raise ConfigError(f"--records: {records}, but {group.unit.stage.inputs[0]} holds {committed}")


def _count(counter: Counter) -> int:
    """The sum of *counter* over its labels."""
    (family,) = counter.collect()
    return sum(int(sample.value) for sample in family.samples if sample.name.endswith("_total"))
