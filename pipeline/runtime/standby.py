"""
The copies of a stage's state in one process: which there are, and the standby ones, which are kept warm.

A standby copy follows the changelogs of a partition that another process owns, as committed, into the
very store that a task would use here. When the partition comes to this process, the task takes over the
open store and restores what little is missing. Following is of low priority: little is read at once, and
for each moment of work the event loop has three for others.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.errors import BrokerError
from pipeline.runtime.closing import stop_consumer
from pipeline.runtime.cluster import Cluster
from pipeline.runtime.restore import apply_records, check_range
from pipeline.runtime.store import LocalStore, off_loop
from pipeline.runtime.transaction import broker_errors
from pipeline.stage import Stage

__all__ = ["Copies"]

_POLL_MS = 500

#: Records taken and applied at once: a few ms of work.
_RECORDS = 500

#: Rest after work, as a multiple of it.
_REST = 3.0

#: Bound of one question to the cluster, in seconds.
_ASK_S = 30.0

#: Pause after a failure, in seconds.
_RETRY_S = 5.0

#: How often the lag is measured, in seconds.
_MEASURE_S = 1.0

#: How often a copy is marked as being up to date, in seconds: one that seems old is wiped when opened.
_MARK_S = 60.0

_log = structlog.get_logger(__name__)


class Copies:
    """What this process has of the state of *stage*; ``run`` follows the standby copies."""

    def __init__(self, stage: Stage, cluster: Cluster) -> None:
        self._stage = stage
        self._cluster = cluster
        self._changelogs = cluster.changelogs(stage)
        self._log = _log.bind(stage=stage.name)
        self._reached: dict[int, int] = {}  # of copies that are not standby ones
        self._found = False
        self._wanted: frozenset[int] = frozenset()
        self._stores: dict[int, LocalStore] = {}
        self._moving = asyncio.Lock()  # held while a store is opened, closed or taken
        self._changed = asyncio.Event()
        self._fresh: set[int] = set()  # were up to date once
        self._measured_s = self._marked_s = 0.0

    @property
    def reached(self) -> dict[int, int]:
        """Partition -> how far its copy reaches: the next offsets of its changelogs, added up; never 0."""
        standby = {number: sum(store.offsets.values()) for number, store in self._stores.items()}
        return {number: reached for number, reached in (self._reached | standby).items() if reached}

    async def find(self) -> None:
        """Look at what this process's disk holds of former runs; does it once."""
        if self._found or not self._changelogs:
            return
        self._reached |= await off_loop(self._kept)
        self._found = True

    def note(self, partition: int, reached: int) -> None:
        """A task has ended that left a copy of *partition* which is so far."""
        self._reached[partition] = reached

    async def take(self, partition: int) -> LocalStore | None:
        """Give away the open standby copy of *partition*, if there is one; it is followed no longer."""
        async with self._moving:
            if partition in self._wanted:
                self._wanted -= {partition}
                self._changed.set()
            self._forget(partition)
            return self._stores.pop(partition, None)

    def give_back(self, partition: int, store: LocalStore | None) -> None:
        """Follow *store* again, which was taken in vain; the next assignment decides what becomes of it."""
        if store is not None:
            self._stores[partition] = store
            self._wanted |= {partition}
            self._changed.set()

    async def keep(self, partitions: frozenset[int]) -> None:
        """Follow just *partitions* from now on; the stores of others are closed when this returns."""
        if partitions == self._wanted or not self._changelogs:
            return
        async with self._moving:
            self._wanted = partitions
            await self._close(self._stores.keys() - partitions)
        self._changed.set()
        self._log.info("standby.assigned", partitions=sorted(partitions))

    async def run(self) -> None:
        """Follow until cancelled; what fails is begun anew after a while."""
        try:
            while True:
                try:
                    await self._follow()
                except Exception as error:  # noqa: BLE001 - a copy is dispensable, the tasks are not
                    self._log.warning("standby.interrupted", error=f"{type(error).__name__}: {error}")
                    await asyncio.sleep(_RETRY_S)
        finally:
            self._wanted = frozenset()
            await self._close(set(self._stores))

    def _kept(self) -> dict[int, int]:
        reached: dict[int, int] = {}
        for partition in range(self._cluster.partitions):
            store = self._cluster.local_store(self._stage, partition)
            if store.kept:
                try:
                    store.open()
                except BrokerError as error:
                    self._log.debug("store.passed_over", partition=partition, error=str(error))
                else:
                    reached[partition] = sum(store.offsets.values())
                    store.close()
        return reached

    async def _follow(self) -> None:
        self._changed.clear()
        if not self._wanted:
            await self._changed.wait()
            return
        consumer = self._cluster.connection.follower()
        try:
            with broker_errors("following a changelog"):
                async with asyncio.timeout(_ASK_S):
                    await consumer.start()
                await self._open()
                await self._begin(consumer)
                while not self._changed.is_set():
                    await self._step(consumer)
        finally:
            await stop_consumer(consumer)

    async def _open(self) -> None:
        for partition in sorted(self._wanted):
            async with self._moving:
                if partition in self._wanted:
                    if partition not in self._stores:
                        self._stores[partition] = self._cluster.local_store(self._stage, partition)
                    await off_loop(self._stores[partition].open)  # also mends one that failed

    async def _begin(self, consumer: AIOKafkaConsumer) -> None:
        places = [TopicPartition(topic, number) for number in self._stores for topic in self._changelogs]
        consumer.assign(places)
        async with asyncio.timeout(_ASK_S):
            begins = await consumer.beginning_offsets(places)
            ends = await consumer.end_offsets(places)
        for place in places:
            await self._check_range(place, begins[place], ends[place])
        for place in places:
            store = self._stores.get(place.partition)
            kept = store.offsets.get(place.topic, 0) if store is not None else 0
            consumer.seek(place, max(kept, begins[place]))

    async def _check_range(self, place: TopicPartition, begin: int, end: int) -> None:
        async with self._moving:
            store = self._stores.get(place.partition)
            if store is not None:
                await check_range(store, place.topic, begin, end)

    async def _step(self, consumer: AIOKafkaConsumer) -> None:
        # never cancelled but with its consumer: it returns by itself
        fetched = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_RECORDS)
        began = time.perf_counter()
        for place, records in fetched.items():
            self._apply(place, records)
        worked_s = time.perf_counter() - began
        if began - self._measured_s > _MEASURE_S:
            self._measured_s = began
            await self._measure(consumer)
        await asyncio.sleep(worked_s * _REST)

    def _apply(self, place: TopicPartition, records: list[Any]) -> None:
        store = self._stores.get(place.partition)
        if store is not None:  # or it has been taken
            apply_records(store, self._changelogs[place.topic], place.topic, records)

    async def _measure(self, consumer: AIOKafkaConsumer) -> None:
        """Show how far behind each copy is, and note from time to time that it is up to date."""
        marking = time.perf_counter() - self._marked_s > _MARK_S
        for partition, store in list(self._stores.items()):
            places = [TopicPartition(topic, partition) for topic in self._changelogs]
            ends = {place: consumer.last_stable_offset(place) for place in places}
            if None in ends.values():
                continue  # nothing has been fetched yet
            reached = {place: await consumer.position(place) for place in places}
            if self._stores.get(partition) is not store:
                continue  # it has been taken
            lag = sum(max(0, ends[place] - reached[place]) for place in places)
            self._show(partition, lag)
            if (marking or partition not in self._fresh) and not lag:
                store.apply((), {place.topic: at for place, at in reached.items()})
                self._freshened(partition, reached)
        if marking:
            self._marked_s = time.perf_counter()

    def _freshened(self, partition: int, reached: Mapping[TopicPartition, int]) -> None:
        if partition not in self._fresh:
            self._fresh.add(partition)
            self._log.info("standby.caught_up", partition=partition, offsets=sum(reached.values()))

    def _show(self, partition: int, lag: int) -> None:
        self._cluster.metrics.standby_lag.labels(self._stage.name, str(partition)).set(lag)

    def _forget(self, partition: int) -> None:
        self._fresh.discard(partition)
        try:
            self._cluster.metrics.standby_lag.remove(self._stage.name, str(partition))
        except KeyError:
            return  # there was nothing to show

    async def _close(self, partitions: set[int]) -> None:
        for partition in sorted(partitions):
            store = self._stores.pop(partition)
            self._forget(partition)
            self._reached[partition] = sum(store.offsets.values())
            await off_loop(store.close)
