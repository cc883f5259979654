"""
Brings a local store up to its changelogs: the tail where it was kept, everything where it was lost.

"Caught up" means a position at the end offset that was read at the start, never "the last record
seen": transactions end in control records, compaction makes holes, retention can empty a partition.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.codec import Fetched
from pipeline.errors import BrokerError
from pipeline.runtime.closing import stop_consumer
from pipeline.runtime.connection import Connection
from pipeline.runtime.store import LocalStore, StoreError, off_loop
from pipeline.runtime.transaction import broker_errors
from pipeline.runtime.unpacking import unpack_only

__all__ = ["Meter", "Progress", "apply_records", "check_range", "restore"]

_POLL_MS = 200

#: Seconds without any progress after which a restore gives up, to be begun anew.
STALLED_S = 30.0

#: Seconds between two lines in the log that tell of the progress.
TOLD_EVERY_S = 3.0

#: Records taken from the consumer at once.
_FETCH_RECORDS = 4_000

#: Records applied at once; the event loop runs in between.
_CHUNK = 1_000

#: Offsets from which on a restore loads: opening the store twice more costs less than it gains.
LOADED_FROM = 50_000

#: Seconds before another try where the disk does not keep up.
_STALL_PAUSE_S = 0.01

_log = structlog.get_logger(__name__)


class Progress(msgspec.Struct, frozen=True):
    """How far a restore is: records applied, offsets still to pass, and how fast it goes."""

    restored: int
    remaining: int
    per_s: float = 0.0  #: records
    eta_s: float | None = None  #: seconds to the end at this rate; None while nobody can tell


class Meter:
    """Turns what is done and what remains of *total* offsets into a rate and a remaining time."""

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._clock = clock
        self._begun = clock()

    def progress(self, restored: int, remaining: int) -> Progress:
        """The progress now; offsets without a record (compacted, control) count for the time only."""
        elapsed_s = self._clock() - self._begun
        passed = self._total - remaining
        if elapsed_s <= 0 or passed <= 0:
            return Progress(restored, remaining)
        return Progress(restored, remaining, restored / elapsed_s, remaining * elapsed_s / passed)


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
        BrokerError: the cluster did not answer, or the disk failed; call again.
    """
    if not changelogs:
        return 0
    consumer = connection.reader()
    with broker_errors("restoring a store"):
        try:
            async with asyncio.timeout(STALLED_S):
                await consumer.start()
            unpack_only(consumer)
            places = {TopicPartition(topic, partition): name for topic, name in changelogs.items()}
            ends = await _placed(consumer, store, list(places))
            return await _restore(consumer, store, places, ends, on_progress)
        finally:
            await stop_consumer(consumer)


async def _placed(
    consumer: AIOKafkaConsumer, store: LocalStore, places: list[TopicPartition]
) -> dict[TopicPartition, int]:
    """Let *consumer* go on where *store* ends; returns the end offsets."""
    consumer.assign(places)
    async with asyncio.timeout(STALLED_S):
        begins = await consumer.beginning_offsets(places)
        ends: dict[TopicPartition, int] = await consumer.end_offsets(places)
    for place in places:
        await check_range(store, place.topic, begins[place], ends[place])
    for place in places:
        consumer.seek(place, max(store.offsets.get(place.topic, 0), begins[place]))
    return ends


async def check_range(store: LocalStore, topic: str, begin: int, end: int) -> None:
    """Wipe *store* where it reaches to an offset of the changelog *topic* that is not there."""
    kept = store.offsets.get(topic, 0)
    if kept > end or 0 < kept < begin:
        await off_loop(partial(store.wipe, f"offset {kept} of {topic} is not in {begin}–{end}"))


async def _restore(
    consumer: AIOKafkaConsumer,
    store: LocalStore,
    places: Mapping[TopicPartition, str],
    ends: Mapping[TopicPartition, int],
    on_progress: Callable[[Progress], None],
) -> int:
    applied, remaining = 0, await _remaining(consumer, ends)
    meter, told_at, moved_at = Meter(remaining), time.monotonic(), time.monotonic()
    loading = remaining >= LOADED_FROM
    if loading:
        await off_loop(store.begin_loading)
    on_progress(meter.progress(0, remaining))
    while remaining:
        applied += await _apply_next(consumer, store, places, loading=loading)
        before, remaining = remaining, await _remaining(consumer, ends)
        progress, now = meter.progress(applied, remaining), time.monotonic()
        on_progress(progress)
        if remaining != before:
            moved_at = now
        elif now - moved_at > STALLED_S:
            raise BrokerError(f"restoring a store: nothing came for {STALLED_S:.0f} s, {remaining} to go")
        if now - told_at >= TOLD_EVERY_S:
            told_at = now
            _tell(store, progress)
    if loading:
        await off_loop(store.end_loading)
    store.apply((), {place.topic: end for place, end in ends.items()})
    on_progress(Progress(applied, 0))
    return applied


def _tell(store: LocalStore, progress: Progress) -> None:
    _log.info(
        "store.restoring",
        stage=store.origin.stage,
        partition=store.origin.partition,
        restored=progress.restored,
        remaining=progress.remaining,
        records_per_s=round(progress.per_s),
        eta_s=None if progress.eta_s is None else round(progress.eta_s, 1),
    )


async def _remaining(consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> int:
    async with asyncio.timeout(STALLED_S):
        positions = {place: await consumer.position(place) for place in ends}
    return sum(max(0, end - positions[place]) for place, end in ends.items())


async def _apply_next(
    consumer: AIOKafkaConsumer, store: LocalStore, places: Mapping[TopicPartition, str], *, loading: bool
) -> int:
    """Apply what has been fetched; how many records that were."""
    # never cancelled: it returns by itself
    fetched = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_FETCH_RECORDS)
    for place, records in fetched.items():
        for first in range(0, len(records), _CHUNK):
            chunk = records[first : first + _CHUNK]
            while not apply_records(store, places[place], place.topic, chunk, loading=loading):  # noqa: ASYNC110 - only the disk knows
                await asyncio.sleep(_STALL_PAUSE_S)
            await asyncio.sleep(0)
    return sum(len(records) for records in fetched.values())


def apply_records(
    store: LocalStore, name: str, topic: str, records: Sequence[Fetched], *, loading: bool = False
) -> bool:
    """
    Apply *records* of the changelog *topic* to what *store* has under the store's *name*.

    Returns:
        False if, *loading*, the disk does not keep up, and nothing was applied: try again.

    Raises:
        StoreError: the local copy is damaged, and condemned: its next opening discards it.
    """
    prefix = name.encode() + b"\0"
    entries = ((prefix + record.key, record.value) for record in records if record.key is not None)
    reached = {topic: records[-1].offset + 1}
    try:
        if loading:
            return store.load(entries, reached)
        store.apply(entries, reached)
    except StoreError as error:
        store.condemn(str(error))
        raise
    return True
