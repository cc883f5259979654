"""
How far consumer groups are behind, by partition: in records, and in seconds.

Seconds are the age of the oldest record that waits: now less its timestamp, which is when its source record
was received. It is found by reading one record where the group reads on. That also tells where nothing
waits although offsets do: transactions end in control records, which no offset of a group passes.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias, final

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.checked_yaml import did_you_mean
from pipeline.errors import ConfigError
from pipeline.runtime.admin import Admin
from pipeline.runtime.closing import stop_consumer
from pipeline.runtime.connection import Connection
from pipeline.runtime.transaction import broker_errors

__all__ = ["GroupLag", "lags"]

#: Seconds for all that is asked of a cluster once.
_TIMEOUT_S: Final = 30.0

#: Partitions whose waiting records are fetched at a time: each answer holds up to a batch of each.
_AT_ONCE: Final = 50

_POLL_MS: Final = 100

_Committed: TypeAlias = Mapping[str, Mapping[tuple[str, int], int]]


@final
class GroupLag(msgspec.Struct, frozen=True, kw_only=True):
    """
    How far *group* is behind on one partition.

    *records* counts offsets, so where compaction or an aborted transaction left holes there are fewer.
    *seconds* is None where the oldest record that waits could not be read in time.
    """

    group: str
    topic: str
    partition: int
    next_offset: int
    end: int
    records: int
    seconds: float | None


async def lags(connection: Connection, groups: Sequence[str] = ()) -> list[GroupLag]:
    """
    Where each of *groups*, by default all of the cluster, stands on each partition it has committed.

    Raises:
        BrokerError: Kafka does not answer.
        ConfigError: there is no such group.
    """
    committed = await _committed(connection, groups)
    consumer = connection.reader()
    try:
        with broker_errors("asking for offsets"):
            async with asyncio.timeout(_TIMEOUT_S):
                await consumer.start()
                places = {place for offsets in committed.values() for place in offsets}
                ends, begins = await _edges(consumer, [TopicPartition(*place) for place in sorted(places)])
                waiting = _waiting(committed, ends, begins)
        oldest = await _oldest(consumer, waiting, ends)
        return [
            _lag(group, place, offset, ends[place], oldest.get((place, max(offset, begins[place]))))
            for group, offsets in sorted(committed.items())
            for place, offset in sorted(offsets.items())
            if place in ends
        ]
    finally:
        await stop_consumer(consumer)


#: Partition and offset -> the timestamp of the first record there or behind; -1 where there is none.
_Oldest: TypeAlias = dict[tuple[tuple[str, int], int], int]


def _lag(group: str, place: tuple[str, int], offset: int, end: int, oldest_ms: int | None) -> GroupLag:
    behind = max(0, end - offset)
    nothing = not behind or oldest_ms == -1
    age = None if oldest_ms is None else round(max(0.0, time.time() - oldest_ms / 1_000), 3)
    return GroupLag(
        group=group,
        topic=place[0],
        partition=place[1],
        next_offset=offset,
        end=end,
        records=0 if nothing else behind,
        seconds=0.0 if nothing else age,
    )


async def _committed(connection: Connection, groups: Sequence[str]) -> _Committed:
    async with Admin(connection.common) as admin:
        known = await admin.groups()
        problems = [
            f"--group: no group {name!r} in {connection.bootstrap_servers}"
            + did_you_mean(name, dict.fromkeys(known))
            for name in groups
            if name not in known
        ]
        if problems:
            raise ConfigError(problems)
        return {name: await admin.committed(name) for name in groups or known}


async def _edges(
    consumer: AIOKafkaConsumer, places: list[TopicPartition]
) -> tuple[dict[tuple[str, int], int], dict[tuple[str, int], int]]:
    """The ends and the beginnings of *places*; those of topics that are gone are left out."""
    there = await consumer.topics()
    known = [place for place in places if place.topic in there]
    if not known:
        return {}, {}
    ends, begins = await consumer.end_offsets(known), await consumer.beginning_offsets(known)
    return _plain(ends), _plain(begins)


def _plain(offsets: Mapping[TopicPartition, int]) -> dict[tuple[str, int], int]:
    return {(place.topic, place.partition): offset for place, offset in offsets.items()}


def _waiting(
    committed: _Committed, ends: Mapping[tuple[str, int], int], begins: Mapping[tuple[str, int], int]
) -> list[dict[tuple[str, int], int]]:
    """Where somebody is behind, in rounds in which no partition is there twice, nor too many."""
    rounds: list[dict[tuple[str, int], int]] = []
    wanted = {
        (place, max(offset, begins[place]))
        for offsets in committed.values()
        for place, offset in offsets.items()
        if place in ends and offset < ends[place]
    }
    for place, offset in sorted(wanted):
        for each in rounds:
            if place not in each and len(each) < _AT_ONCE:
                each[place] = offset
                break
        else:
            rounds.append({place: offset})
    return rounds


async def _oldest(
    consumer: AIOKafkaConsumer,
    rounds: Iterable[Mapping[tuple[str, int], int]],
    ends: Mapping[tuple[str, int], int],
) -> _Oldest:
    """What waits at the places of *rounds*, as far as it can be read in time."""
    found: _Oldest = {}
    deadline_s = time.monotonic() + _TIMEOUT_S
    for offsets in rounds:
        with broker_errors("reading what waits"):
            consumer.assign([TopicPartition(*place) for place in offsets])
            for place, offset in offsets.items():
                consumer.seek(TopicPartition(*place), offset)
            open_ = dict(offsets)
            while open_ and time.monotonic() < deadline_s:
                fetched = await consumer.getmany(timeout_ms=_POLL_MS)
                for at, records in fetched.items():
                    place = (at.topic, at.partition)
                    if records and place in open_:
                        found[place, open_.pop(place)] = records[0].timestamp
                        consumer.pause(at)
                await _close_ended(consumer, open_, ends, found)
    return found


async def _close_ended(
    consumer: AIOKafkaConsumer,
    open_: dict[tuple[str, int], int],
    ends: Mapping[tuple[str, int], int],
    found: _Oldest,
) -> None:
    """Those that came to the end without a record have none waiting."""
    for place in list(open_):
        if await consumer.position(TopicPartition(*place)) >= ends[place]:
            found[place, open_.pop(place)] = -1
