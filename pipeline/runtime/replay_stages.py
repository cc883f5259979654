"""
Runs stages again beside the live ones, from a place that retention still holds, until they have caught up.

The stages, their groups, state and topics are those of a `Shadow`; sources and sinks are none of them. What
the stages do is exactly once by the tasks' own transactions; the job tells how far they are. Where a group
begins is committed before its first member comes; tables are read whole, as they are now.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from shutil import rmtree
from typing import Final, final

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.effects import Unit
from pipeline.errors import BrokerError, ConfigError, StageFailed
from pipeline.runtime import names
from pipeline.runtime.admin import Admin, ensure
from pipeline.runtime.closing import stop_consumer
from pipeline.runtime.cluster import Cluster
from pipeline.runtime.jobs import Job, JobProducer
from pipeline.runtime.lags import lags
from pipeline.runtime.replay_group import place_group
from pipeline.runtime.replay_points import TIMEOUT_S, Point, ends_at, held, offset_of
from pipeline.runtime.shadow import Shadow, ShadowCodec
from pipeline.runtime.topic_plan import Wanted, wanted
from pipeline.runtime.transaction import broker_errors
from pipeline.runtime.worker import Worker
from pipeline.stage import Stage

__all__ = [
    "Rerun",
    "behind",
    "caught_up",
    "chosen",
    "drop",
    "leftovers",
    "planned",
    "prepare",
    "rerun",
    "shadow_of",
    "topics_of",
]

#: How often it is looked how far the stages are, in seconds, and how many looks in a row must find nothing
#: to do: a record may be between two topics at one of them.
_LOOK_S: Final = 0.5
_QUIET_LOOKS: Final = 3

#: Topics that are read from the time asked for as far as there are records: what they lack is no data.
_CLOCK: Final = "clock.ticks"

_NUMBERED: Final = re.compile(r"r(\d+)\.")


@final
class Rerun(msgspec.Struct, frozen=True, kw_only=True):
    """What is run again: *stages*, from *begins* (group -> topic -> partition, as text -> offset)."""

    number: int
    stages: tuple[str, ...]
    since: str
    begins: dict[str, dict[str, dict[str, int]]]
    records: int  #: that stand on the replay's inputs, at most
    what: str = "stages"


def chosen(stages: Iterable[Stage], names_: Sequence[str]) -> tuple[Stage, ...]:
    """
    Those of *stages* that are called for, all of them where none is.

    Raises:
        ConfigError: one is unknown; says which are known.
    """
    made = {stage.name: stage for stage in stages}
    unknown = [name for name in names_ if name not in made]
    if unknown:
        raise ConfigError(f"stage {unknown[0]!r} is unknown; allowed: {', '.join(made)}")
    return tuple(stage for name, stage in made.items() if not names_ or name in names_)


def shadow_of(job: Job, stages: Iterable[Stage], cluster: Cluster) -> Shadow:
    """The shadow that *job* runs, made of today's *stages*."""
    asked = msgspec.convert(job.spec, Rerun)
    return Shadow(asked.number, chosen(stages, asked.stages), cluster.codec.topics)


async def planned(
    cluster: Cluster, stages: Sequence[Stage], since: Point, *, told: str, taken: Iterable[int] = ()
) -> Rerun:
    """
    How *stages* run again from *since*, which the operator *told*, under the next number not *taken*.

    Raises:
        ConfigError: retention has removed some of what would be read; says the earliest that exists.
        BrokerError: Kafka does not answer.
    """
    shadow = Shadow(await _free_number(cluster, taken), stages, cluster.codec.topics)
    begins: dict[str, dict[str, dict[str, int]]] = {}
    records = 0
    consumer = cluster.connection.reader()
    try:
        with broker_errors("connecting"):
            async with asyncio.timeout(TIMEOUT_S):
                await consumer.start()
        for stage in shadow.stages:
            group = names.group_id(cluster.application_id, stage.name)
            for topic in shadow.outside(stage):
                at, waiting = await _begin(consumer, cluster, topic, since)
                records += waiting
                if at:
                    begins.setdefault(group, {})[topic] = at
    finally:
        await stop_consumer(consumer)
    return Rerun(
        number=shadow.number,
        stages=tuple(stage.name for stage in stages),
        since=told,
        begins=begins,
        records=records,
    )


async def _free_number(cluster: Cluster, taken: Iterable[int]) -> int:
    """One more than the largest of *taken*, and than the largest that any topic of the cluster has."""
    async with Admin(cluster.connection.common) as admin:
        numbered = [_NUMBERED.match(name) for name in await admin.names()]
    return max(*taken, *(int(each.group(1)) for each in numbered if each), 0, 0) + 1


async def _begin(
    consumer: AIOKafkaConsumer, cluster: Cluster, topic: str, since: Point
) -> tuple[dict[str, int], int]:
    """
    Where *topic* is begun, by partition, and how many records are there from then on.

    A table is read whole, without a place. Ticks are read from the time asked for as far as there are some.
    """
    found = await held(consumer, [TopicPartition(topic, number) for number in range(cluster.partitions)])
    if cluster.codec.topics[topic].is_table:
        return {}, sum(each.end - each.begin for each in found.values())
    if topic == _CLOCK and since.time_ms is not None:
        at = await ends_at(consumer, found, since.time_ms)
    else:
        retention = {name: each.retention_ms for name, each in cluster.codec.topics.items()}
        at = await offset_of(consumer, found, since, retention)
    waiting = sum(each.end - at[place] for place, each in found.items())
    return {str(place.partition): at[place] for place in sorted(at)}, waiting


async def topics_of(cluster: Cluster, shadow: Shadow) -> tuple[Wanted, ...]:
    """The topics of *shadow*: as the live ones are on this cluster, and changelogs of its own."""
    async with Admin(cluster.connection.common) as admin:
        found = await admin.found(shadow.shadows)
    missing = sorted(shadow.shadows.keys() - found.keys())
    if missing:
        raise ConfigError(f"topics are missing: {', '.join(missing)}; `pipeline topics apply` makes them")
    copies = [
        Wanted(
            name=name,
            partitions=found[live].partitions,
            replication=found[live].replication,
            configs=found[live].own,
            keyed=True,
        )
        for live, name in shadow.shadows.items()
    ]
    profile = msgspec.structs.replace(
        next(iter(shadow.topics.profiles.values())),
        partitions=cluster.partitions,
        replication=min(each.replication for each in copies),
    )
    declared = {*shadow.topics}
    logs = wanted(shadow.topics, profile, cluster.application_id, shadow.stages)
    return (*copies, *(log for log in logs if log.name not in declared))


async def prepare(cluster: Cluster, shadow: Shadow, asked: Rerun) -> Cluster:
    """
    Make the topics of *shadow*, let its groups begin where *asked*, and return what its tasks work with.

    Raises:
        BrokerError: Kafka failed us; it can be done again.
    """
    connection = cluster.connection
    await ensure(connection.common, await topics_of(cluster, shadow))
    async with Admin(connection.common) as admin:
        begun = {group for group in asked.begins if await admin.committed(group)}
    for group, topics in asked.begins.items():
        if group not in begun:
            offsets = {
                TopicPartition(topic, int(number)): at
                for topic, partitions in topics.items()
                for number, at in partitions.items()
            }
            await place_group(connection.placer(group), group, offsets)
    codec = ShadowCodec(shadow, cluster.partitions, cluster.application_id)
    return msgspec.structs.replace(cluster, codec=codec)


async def rerun(cluster: Cluster, shadow: Shadow, runner: JobProducer) -> Job:
    """
    Run the stages of *shadow* until they have caught up, or until something else is wished.

    The job is then paused, so that they can go on later; ``caught_up`` tells which it was.

    Raises:
        StageFailed: a stage has a bug.
        BrokerError: Kafka failed us, or another runner has the job; it can be run again.
    """
    asked = msgspec.convert(runner.job.spec, Rerun)
    own = await prepare(cluster, shadow, asked)
    worker = Worker([Unit(stage=stage) for stage in shadow.stages], own)
    try:
        wished = await _worked(worker, runner, asked)
    except ExceptionGroup as group:
        raise _leaf(group) from group
    return await runner.end("pause" if wished == "run" else wished)


async def _worked(worker: Worker, runner: JobProducer, asked: Rerun) -> str:
    """Let *worker* work until it has caught up, or something else is wished, which is returned."""
    async with asyncio.TaskGroup() as tasks:
        working = tasks.create_task(worker.run(), name=f"replay r{asked.number}")
        try:
            return await _watched(worker, runner, asked)
        finally:
            worker.stop()
            await asyncio.wait((working,))


def _leaf(error: Exception) -> Exception:
    return _leaf(error.exceptions[0]) if isinstance(error, ExceptionGroup) else error


def caught_up(job: Job) -> bool:
    """Whether the stages of *job* had read all there was when they last ran."""
    return bool(job.cursor.get("caught_up"))


async def behind(cluster: Cluster, shadow: Shadow) -> dict[str, int]:
    """
    Topic -> how many of its records the stages of *shadow* have not read; the clock does not count.

    Raises:
        ConfigError: the stages never ran.
        BrokerError: Kafka does not answer.
    """
    groups = [names.group_id(cluster.application_id, stage.name) for stage in shadow.stages]
    found: Counter[str] = Counter()
    for lag in await lags(cluster.connection, groups):
        if lag.topic != _CLOCK and lag.records:
            found[lag.topic] += lag.records
    return dict(found)


async def _watched(worker: Worker, runner: JobProducer, asked: Rerun) -> str:
    """Tell how far the stages are until they have caught up; returns what is wished."""
    quiet = 0
    while True:
        left = await _left(worker)
        quiet = quiet + 1 if left == 0 else 0
        is_done = quiet >= _QUIET_LOOKS
        done = runner.job.done if left is None else max(0, asked.records - left)
        cursor = {"caught_up": is_done}
        job = msgspec.structs.replace(runner.job, state="running", done=done, cursor=cursor)
        wished = await runner.commit({}, job)
        if is_done or wished != "run":
            return wished
        await asyncio.sleep(_LOOK_S)


async def _left(worker: Worker) -> int | None:
    """Records that are still to be processed; None where that is not known now."""
    for name, group in worker.groups.items():
        if group.failed:
            raise StageFailed(f"{name} has stopped: {group.failed}")
    if worker.unready:
        return None
    try:
        left = sum((await worker.lags()).values())
    except BrokerError:
        return None
    at_work = any(not task.idle for group in worker.groups.values() for task in group.tasks.values())
    return left or int(at_work)


async def leftovers(cluster: Cluster, shadow: Shadow) -> tuple[list[str], list[str]]:
    """
    What there is of *shadow* on the cluster: topics, changelogs included, and groups.

    Raises:
        BrokerError: Kafka does not answer.
    """
    wanted_ = {each.name for each in await topics_of(cluster, shadow)}
    groups = [names.group_id(cluster.application_id, stage.name) for stage in shadow.stages]
    async with Admin(cluster.connection.common) as admin:
        there = [name for name in await admin.names() if name in wanted_]
        kept = [group for group in groups if await admin.committed(group)]
    return there, kept


async def drop(cluster: Cluster, shadow: Shadow, topics: Iterable[str], groups: Iterable[str]) -> None:
    """
    Delete *topics* and *groups* of *shadow*, and its state on this machine.

    Raises:
        BrokerError: Kafka refused, as it does of a group with members; it can be done again.
    """
    async with Admin(cluster.connection.common) as admin:
        await admin.delete_groups(groups)
        await admin.delete_topics(topics)
    for stage in shadow.stages:
        folder = cluster.settings.state_dir / cluster.application_id / stage.name
        await asyncio.to_thread(rmtree, folder, ignore_errors=True)
