"""
Moves a consumer group back to a time or an offset, while nobody is a member of it.

Kafka takes a commit from outside a group only while the group is empty: a member that came meanwhile is not
overrun, the move is refused. A job that was killed between the move and its own record is told apart by where
the group stands: there it was to go, where it was, or somewhere else, since when somebody has worked with it.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import final

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)

from pipeline.errors import BrokerError, ConfigError
from pipeline.runtime.admin import Admin
from pipeline.runtime.closing import stop_consumer
from pipeline.runtime.connection import Connection
from pipeline.runtime.jobs import Job, JobProducer
from pipeline.runtime.replay_points import Point, held, offset_of
from pipeline.runtime.transaction import broker_errors

__all__ = ["GroupMove", "Move", "move", "place_group", "planned", "refuse_members"]

#: What Kafka answers to a commit from outside of a group that has members.
_HAS_MEMBERS = (UnknownMemberIdError, IllegalGenerationError, RebalanceInProgressError, CommitFailedError)

TIMEOUT_S = 30.0


@final
class Move(msgspec.Struct, frozen=True, kw_only=True):
    """One partition: which offset the group reads next now, and which it is to read next."""

    topic: str
    partition: int
    at: int
    to: int

    @property
    def records(self) -> int:
        """How many it reads again, at most."""
        return max(0, self.at - self.to)


@final
class GroupMove(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked of a group; *consent* says who of its owners agreed, empty for our own."""

    group: str
    moves: tuple[Move, ...]
    consent: str = ""
    what: str = "group"

    @property
    def records(self) -> int:
        """How many records are read again, at most."""
        return sum(each.records for each in self.moves)


async def planned(
    connection: Connection,
    group: str,
    to: Point,
    *,
    topics: Iterable[str],
    retention_ms: Mapping[str, int | None],
    consent: str = "",
) -> GroupMove:
    """
    How *group* goes back to *to* on *topics*, by default all that it reads; nothing goes forward.

    Raises:
        ConfigError: it reads none of that, has nothing behind it, or retention has removed it.
        BrokerError: Kafka does not answer.
    """
    async with Admin(connection.common) as admin:
        committed = await admin.committed(group)
    only = set(topics)
    stands = {TopicPartition(*place): at for place, at in committed.items() if not only or place[0] in only}
    if not stands:
        read = ", ".join(sorted({topic for topic, _ in committed})) or "nothing"
        raise ConfigError(f"group {group}: has committed nothing there; it reads {read}")
    consumer = connection.reader()
    try:
        with broker_errors("connecting"):
            async with asyncio.timeout(TIMEOUT_S):
                await consumer.start()
        found = await held(consumer, stands)
        to_be = await offset_of(consumer, found, to, retention_ms)
    finally:
        await stop_consumer(consumer)
    moves = [
        Move(topic=place.topic, partition=place.partition, at=at, to=to_be[place])
        for place, at in sorted(stands.items())
        if to_be[place] < at
    ]
    if not moves:
        raise ConfigError(f"group {group}: has read nothing behind that place, so there is no way back")
    return GroupMove(group=group, moves=tuple(moves), consent=consent)


async def refuse_members(connection: Connection, group: str) -> None:
    """
    Refuse a group that somebody is a member of.

    Raises:
        ConfigError: says who, and what to do.
        BrokerError: Kafka does not answer.
    """
    async with Admin(connection.common) as admin:
        members = await admin.members(group)
    if members:
        raise _occupied(group, members)


async def move(connection: Connection, runner: JobProducer) -> Job:
    """
    Move the group of the job of *runner*, and end the job.

    Raises:
        ConfigError: it has members, or has gone on since it was planned.
        BrokerError: Kafka failed us; the job can be run again.
    """
    asked = msgspec.convert(runner.job.spec, GroupMove)
    if await runner.commit({}, msgspec.structs.replace(runner.job, state="running")) == "cancel":
        return await runner.end("cancel")
    async with Admin(connection.common) as admin:
        committed = await admin.committed(asked.group)
    stands = {each: committed.get((each.topic, each.partition)) for each in asked.moves}
    if any(at != each.to for each, at in stands.items()):
        moved_on = [each for each, at in stands.items() if at != each.at]
        if moved_on:
            told = ", ".join(f"{each.topic}/{each.partition} at {stands[each]}" for each in moved_on)
            raise ConfigError(f"group {asked.group}: has gone on since this was planned ({told}); plan again")
        await refuse_members(connection, asked.group)
        offsets = {TopicPartition(each.topic, each.partition): each.to for each in asked.moves}
        await place_group(connection.placer(asked.group), asked.group, offsets)
    done = msgspec.structs.replace(runner.job, done=asked.records)
    await runner.commit({}, done)
    return await runner.end("done")


async def place_group(consumer: AIOKafkaConsumer, group: str, offsets: Mapping[TopicPartition, int]) -> None:
    """
    Let *group* read on at *offsets*, by way of its *consumer* (`Connection.placer`).

    Raises:
        ConfigError: it has members.
        BrokerError: Kafka does not answer.
    """
    try:
        with broker_errors("committing for a group"):
            async with asyncio.timeout(TIMEOUT_S):
                await consumer.start()
                consumer.assign(list(offsets))
                await consumer.commit(dict(offsets))
    except BrokerError as error:
        if isinstance(error.__cause__, _HAS_MEMBERS):
            raise _occupied(group, []) from error
        raise
    finally:
        await stop_consumer(consumer)


def _occupied(group: str, members: list[str]) -> ConfigError:
    who = f" ({', '.join(members)})" if members else ""
    return ConfigError(
        f"group {group}: has members{who}; stop them, wait until they have left (a killed one leaves"
        " after its session timeout), and ask again"
    )
