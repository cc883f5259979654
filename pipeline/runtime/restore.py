"""
Brings a local store up to its changelogs: the tail where it was kept, everything where it was lost.

"Caught up" means a position at the end offset that was read at the start, never "the last record
seen": transactions end in control records, compaction makes holes, retention can empty a partition.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.runtime.connection import Connection
from pipeline.runtime.store import LocalStore
from pipeline.runtime.transaction import broker_errors

__all__ = ["Progress", "restore"]

_log = structlog.get_logger(__name__)

_POLL_MS = 200


class Progress(msgspec.Struct, frozen=True):
    """How far a restore is: records applied, and offsets still to pass."""

    restored: int
    remaining: int


async def restore(
    store: LocalStore,
    changelogs: Mapping[str, str],
    partition: int,
    connection: Connection,
    on_progress: Callable[[Progress], None],
) -> int:
    """
    Apply what *changelogs* (topic -> store name) hold beyond ``store.offsets``.

    Returns:
        How many records were applied.

    Raises:
        BrokerError: the cluster did not answer; call again.
    """
    if not changelogs:
        return 0
    consumer = connection.reader()
    with broker_errors("restoring a store"):
        await consumer.start()
        try:
            return await _restore(consumer, store, changelogs, partition, on_progress)
        finally:
            await consumer.stop()


async def _restore(
    consumer: AIOKafkaConsumer,
    store: LocalStore,
    changelogs: Mapping[str, str],
    partition: int,
    on_progress: Callable[[Progress], None],
) -> int:
    places = {TopicPartition(topic, partition): name for topic, name in changelogs.items()}
    consumer.assign(list(places))
    begins = await consumer.beginning_offsets(list(places))
    ends = await consumer.end_offsets(list(places))
    _check_range(store, begins, ends)
    for place in places:
        consumer.seek(place, max(store.offsets.get(place.topic, 0), begins[place]))
    applied = 0
    while remaining := await _remaining(consumer, ends):
        on_progress(Progress(applied, remaining))
        async with asyncio.timeout(60):
            fetched = await consumer.getmany(timeout_ms=_POLL_MS)
        for place, records in fetched.items():
            _apply(store, places[place], place.topic, records)
            applied += len(records)
    store.apply(iter(()), {place.topic: end for place, end in ends.items()})
    on_progress(Progress(applied, 0))
    return applied


def _check_range(
    store: LocalStore, begins: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> None:
    for place, begin in begins.items():
        kept = store.offsets.get(place.topic, 0)
        if kept > ends[place] or 0 < kept < begin:
            store.wipe(f"offset {kept} is out of the range {begin}–{ends[place]} of {place.topic}")
            return


async def _remaining(consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> int:
    positions = {place: await consumer.position(place) for place in ends}
    return sum(max(0, end - positions[place]) for place, end in ends.items())


def _apply(store: LocalStore, name: str, topic: str, records: list[Any]) -> None:
    prefix = name.encode() + b"\0"
    entries = ((prefix + record.key, record.value) for record in records)
    store.apply(entries, {topic: records[-1].offset + 1})
