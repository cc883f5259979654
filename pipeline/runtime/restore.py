"""
Brings a local store up to its changelogs: the tail where it was kept, everything where it was lost.

"Caught up" means a position at the end offset that was read at the start, never "the last record
seen": transactions end in control records, compaction makes holes, retention can empty a partition.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.errors import BrokerError
from pipeline.runtime.closing import stop_consumer
from pipeline.runtime.connection import Connection
from pipeline.runtime.store import LocalStore
from pipeline.runtime.transaction import broker_errors

__all__ = ["Progress", "restore"]

_POLL_MS = 200

#: Seconds without any progress after which a restore gives up, to be begun anew.
STALLED_S = 30.0

#: Records applied at once; the event loop runs in between.
_CHUNK = 1_000


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
        try:
            async with asyncio.timeout(STALLED_S):
                await consumer.start()
            return await _restore(consumer, store, changelogs, partition, on_progress)
        finally:
            await stop_consumer(consumer)


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
    applied, remaining = 0, await _remaining(consumer, ends)
    moved_at = time.monotonic()
    while remaining:
        on_progress(Progress(applied, remaining))
        # never cancelled: it returns by itself
        for place, records in (await consumer.getmany(timeout_ms=_POLL_MS, max_records=_CHUNK * 4)).items():
            await _apply(store, places[place], place.topic, records)
            applied += len(records)
        before, remaining = remaining, await _remaining(consumer, ends)
        if remaining != before:
            moved_at = time.monotonic()
        elif time.monotonic() - moved_at > STALLED_S:
            raise BrokerError(f"restoring a store: nothing came for {STALLED_S:.0f} s, {remaining} to go")
    store.apply((), {place.topic: end for place, end in ends.items()})
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
    async with asyncio.timeout(STALLED_S):
        positions = {place: await consumer.position(place) for place in ends}
    return sum(max(0, end - positions[place]) for place, end in ends.items())


async def _apply(store: LocalStore, name: str, topic: str, records: list[Any]) -> None:
    prefix = name.encode() + b"\0"
    rest = iter(records)
    while chunk := list(islice(rest, _CHUNK)):
        store.apply(_entries(prefix, chunk), {topic: chunk[-1].offset + 1})
        await asyncio.sleep(0)


def _entries(prefix: bytes, records: list[Any]) -> Iterator[tuple[bytes, bytes | None]]:
    return ((prefix + record.key, record.value) for record in records if record.key is not None)
