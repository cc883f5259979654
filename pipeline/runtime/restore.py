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
from pipeline.runtime.transaction import BARRIER, broker_errors
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
    *,
    at_least: Mapping[str, int] = {},
) -> int:
    """
    Apply what *changelogs* (topic -> store name) hold beyond ``store.offsets``.

    It goes on to their ends, and to the offsets of *at_least* where a broker does not know of those yet: one
    that was away believes for a moment that it still leads, and tells an end that was left behind long ago.

    Returns:
        How many records were applied, `BARRIER` not counted.

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
            ends = await _placed(consumer, store, list(places), at_least)
            applied = await _Restore(consumer, store, places, ends, on_progress).run(connection.loads)
            store.apply((), {place.topic: end for place, end in ends.items()})
            on_progress(Progress(applied, 0))
            return applied
        finally:
            await stop_consumer(consumer)


async def _placed(
    consumer: AIOKafkaConsumer,
    store: LocalStore,
    places: list[TopicPartition],
    at_least: Mapping[str, int],
) -> dict[TopicPartition, int]:
    """Let *consumer* go on where *store* ends, but not yet begin; returns the end offsets."""
    consumer.assign(places)
    consumer.pause(*places)
    async with asyncio.timeout(STALLED_S):
        begins = await consumer.beginning_offsets(places)
        told: dict[TopicPartition, int] = await consumer.end_offsets(places)
    ends = {place: max(end, at_least.get(place.topic, 0)) for place, end in told.items()}
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


class _Restore:
    """Reads *places* (partition -> store name) up to *ends* into *store*."""

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        store: LocalStore,
        places: Mapping[TopicPartition, str],
        ends: Mapping[TopicPartition, int],
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._consumer = consumer
        self._store = store
        self._places = places
        self._ends = ends
        self._on_progress = on_progress

    async def run(self, loads: asyncio.Semaphore) -> int:
        """Do it, under one of *loads* where it is large; how many records were applied."""
        remaining = await self._remaining()
        self._on_progress(Progress(0, remaining))
        if remaining < LOADED_FROM:
            return await self._until_caught_up(remaining, loading=False)
        async with loads:
            await off_loop(self._store.begin_loading)
            applied = await self._until_caught_up(remaining, loading=True)
            await off_loop(self._store.end_loading)
        return applied

    async def _until_caught_up(self, remaining: int, *, loading: bool) -> int:
        self._consumer.resume(*self._places)
        applied, meter = 0, Meter(remaining)
        told_at = moved_at = time.monotonic()
        while remaining:
            applied += await self._apply_next(loading=loading)
            before, remaining = remaining, await self._remaining()
            progress, now = meter.progress(applied, remaining), time.monotonic()
            self._on_progress(progress)
            if remaining != before:
                moved_at = now
            elif now - moved_at > STALLED_S:
                raise BrokerError(f"restoring a store: nothing came for {STALLED_S:.0f} s, {remaining} to go")
            if now - told_at >= TOLD_EVERY_S:
                told_at = now
                self._tell(progress)
        return applied

    async def _apply_next(self, *, loading: bool) -> int:
        """Apply what has been fetched; how many records that were."""
        # never cancelled: it returns by itself
        fetched = await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=_FETCH_RECORDS)
        for place, records in fetched.items():
            name = self._places[place]
            for first in range(0, len(records), _CHUNK):
                chunk = records[first : first + _CHUNK]
                while not apply_records(  # noqa: ASYNC110 - only the disk knows when it has caught up
                    self._store, name, place.topic, chunk, loading=loading
                ):
                    await asyncio.sleep(_STALL_PAUSE_S)
                await asyncio.sleep(0)
        return sum(len(records) - _barriers(records) for records in fetched.values())

    async def _remaining(self) -> int:
        async with asyncio.timeout(STALLED_S):
            positions = {place: await self._consumer.position(place) for place in self._ends}
        return sum(max(0, end - positions[place]) for place, end in self._ends.items())

    def _tell(self, progress: Progress) -> None:
        _log.info(
            "store.restoring",
            stage=self._store.origin.stage,
            partition=self._store.origin.partition,
            restored=progress.restored,
            remaining=progress.remaining,
            records_per_s=round(progress.per_s),
            eta_s=None if progress.eta_s is None else round(progress.eta_s, 1),
        )


def _barriers(records: Sequence[Fetched]) -> int:
    return sum(record.key == BARRIER for record in records)


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
