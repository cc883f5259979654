"""
One consumer group per stage: follows the inputs, and runs a task for each partition number it owns.

aiokafka sends no heartbeat while its rebalance callbacks run, so they only note what happened: the
tasks are started and restored outside. Before partitions are given up, their tasks finish the
transaction in progress, within a bound. Fetched records go at once into the tasks' bounded inboxes;
a full one pauses its partitions.
"""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition

from pipeline.codec import Fetched
from pipeline.effects import Unit
from pipeline.errors import BrokerError, PipelineError, StageFailed
from pipeline.runtime import names
from pipeline.runtime.assignor import CopartitionAssignor
from pipeline.runtime.closing import coordination_ended, stop_consumer
from pipeline.runtime.cluster import Cluster
from pipeline.runtime.guard import FailureGuard
from pipeline.runtime.standby import Copies
from pipeline.runtime.task import Task
from pipeline.runtime.transaction import broker_errors
from pipeline.runtime.unpacking import RUN_RECORDS, unpack_runs

__all__ = ["Group"]

#: How long one fetch waits for records, and so the delay of a stop, in ms.
_POLL_MS = 200

#: Runs of records taken from the consumer at once, and so records at most: unpacking them holds up the loop.
_FETCH_RUNS = 40
_FETCH_RECORDS = _FETCH_RUNS * RUN_RECORDS

#: Seconds for tasks to finish their transaction before their partitions are given up.
_DRAIN_S = 5.0

#: Seconds for a fetch to return by itself when the group stops; it hangs while a rebalance is on.
_LAST_FETCH_S = 1.0

#: Bound of asking for positions and ends, in seconds.
_LAG_S = 2.0

#: Pause before joining again after the cluster failed us, in seconds.
_REJOIN_S = 1.0

#: States of a task that has nothing to finish.
_NOT_BEGUN = ("starting", "restoring", "backing off")

_log = structlog.get_logger(__name__)


class Group(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka is untyped
    """Runs *unit* in this process; ``run`` returns after ``stop``."""

    def __init__(self, unit: Unit, cluster: Cluster) -> None:
        self.unit = unit
        self.tasks: dict[int, Task] = {}
        self.failed: str | None = None
        self._cluster = cluster
        self.topics = names.inputs_of(unit.stage, reads=unit.reads)
        self._guard = FailureGuard(unit.stage.name)
        self._copies = Copies(unit.stage, cluster)
        self._assignor = CopartitionAssignor(keeps_standbys=cluster.settings.standby > 0)
        self._log = _log.bind(stage=unit.stage.name)
        self._stopping = asyncio.Event()
        self._rejoining = asyncio.Event()
        self._assigned = asyncio.Event()
        self._running: dict[int, asyncio.Task[None]] = {}
        self._wanted: set[int] = set()
        self._paused: set[int] = set()
        self._broken: Exception | None = None  # what a rebalance callback raised, which aiokafka swallows
        self._consumer: AIOKafkaConsumer | None = None

    @property
    def ready(self) -> bool:
        """Whether partitions were assigned and every task of them works."""
        works = all(task.state == "working" for task in self.tasks.values())
        return self.failed is None and self._assigned.is_set() and works and set(self.tasks) == self._wanted

    @property
    def assigned(self) -> bool:
        """Whether it is known which partitions are owned, if any."""
        return self._assigned.is_set()

    def stop(self) -> None:
        """Finish what is in progress and leave the group."""
        self._stopping.set()

    def rejoin(self) -> None:
        """Leave the group, drop all clients and join anew with fresh ones."""
        self._rejoining.set()

    async def run(self) -> None:
        """Follow the inputs until ``stop``; a stage with a bug stays stopped and unready."""
        while not (self._stopping.is_set() or self.failed):
            try:
                await self._join()
            except* StageFailed as group:
                self.failed = _told(group)
                self._log.error("stage.stopped", error=self.failed, exc_info=_leaf(group).__cause__)
            except* BrokerError as group:
                self._log.warning("group.left", error=_told(group))
                await self._stopped_within(_REJOIN_S)
        await self._stopping.wait()

    async def _join(self) -> None:
        consumer = self._cluster.connection.member(
            names.group_id(self._cluster.application_id, self.unit.stage.name),
            list(self.topics),
            self,
            self._assignor,
        )
        self._consumer, self._broken = consumer, None
        self._rejoining.clear()
        try:
            async with asyncio.TaskGroup() as tasks:
                following = tasks.create_task(self._copies.run(), name=f"standby {self.unit.stage.name}")
                await self._until_stopped(tasks, self._started(consumer), 0.0)
                await self._until_stopped(tasks, self._follow(consumer, tasks), _LAST_FETCH_S)
                await self._give_up()
                following.cancel()
        finally:
            await self._give_up()
            self._assigned.clear()
            self._consumer = None
            await stop_consumer(consumer)

    async def _until_stopped(
        self, tasks: asyncio.TaskGroup, work: Coroutine[Any, Any, None], patience_s: float
    ) -> None:
        """
        Do *work* to its end, or until ``stop`` and *patience_s* more; the consumer is of no use then.

        Raises:
            BrokerError: ``rejoin`` was called.
        """
        name = self.unit.stage.name
        working = tasks.create_task(work, name=f"member {name}")
        stopped = tasks.create_task(self._stopping.wait(), name=f"stop {name}")
        rejoining = tasks.create_task(self._rejoining.wait(), name=f"rejoin {name}")
        await asyncio.wait((working, stopped, rejoining), return_when=asyncio.FIRST_COMPLETED)
        if not (working.done() or self._rejoining.is_set()):
            await asyncio.wait((working,), timeout=patience_s)
        for each in (working, stopped, rejoining):
            each.cancel()
        await asyncio.wait((working, stopped, rejoining))
        if self._rejoining.is_set():
            raise BrokerError("no progress was made: its clients are made anew")

    async def _started(self, consumer: AIOKafkaConsumer) -> None:
        settings = self._cluster.settings
        await self._copies.find()
        with broker_errors(f"joining the group of {self.unit.stage.name}"):
            async with asyncio.timeout((settings.rebalance_timeout_ms + settings.request_timeout_ms) / 1000):
                await consumer.start()
        unpack_runs(consumer)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:  # noqa: ARG002
        """Give up all tasks, their last transaction finished: a rebalance here revokes everything."""
        self._assigned.clear()
        try:
            await self._give_up()
            self._assignor.copies = self._copies.reached
        except Exception as error:  # noqa: BLE001 - raised again where it is not swallowed
            self._broken = error

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Note what is owned now; nothing is fetched before its task asks for it."""
        try:
            places = list(assigned)
            assert self._consumer is not None
            self._consumer.pause(*places)
            if not self.unit.reads:
                # else aiokafka asks where it begins: one that leads no more, ten times a second for a minute
                for place in places:
                    self._consumer.seek(place, 0)
            self._paused = {place.partition for place in places}
            self._wanted = set(self._paused)
            self._cluster.metrics.rebalances.labels(self.unit.stage.name).inc()
            self._log.info("partitions.assigned", partitions=sorted(self._wanted))
            self._assigned.set()
        except Exception as error:  # noqa: BLE001 - raised again where it is not swallowed
            self._broken = error

    async def committed(self, partition: int) -> dict[str, int | None]:
        """See `pipeline.runtime.task.Follower`."""
        consumer = self._consumer
        assert consumer is not None
        if not self.unit.reads:
            return {}
        with broker_errors("reading committed offsets"):
            async with asyncio.timeout(self._cluster.settings.request_timeout_ms / 1000):
                return {
                    topic: await consumer.committed(TopicPartition(topic, partition))
                    for topic in self._followed(partition)
                }

    async def seek(self, partition: int, offsets: dict[str, int | None]) -> dict[str, int]:
        """See `pipeline.runtime.task.Follower`."""
        consumer = self._consumer
        assert consumer is not None
        places = [TopicPartition(topic, partition) for topic in offsets]
        if not places:
            return {}
        with broker_errors("seeking"):
            async with asyncio.timeout(self._cluster.settings.request_timeout_ms / 1000):
                begins = await consumer.beginning_offsets(places)
                ends = await consumer.end_offsets(places)
            known = {
                place.topic: self._within(place, offsets[place.topic], begins[place], ends[place])
                for place in places
            }
            for place in places:
                consumer.seek(place, known[place.topic])
            consumer.resume(*places)
        self._paused.discard(partition)
        return known

    def pause(self, partition: int) -> None:
        """See `pipeline.runtime.task.Follower`."""
        if self._consumer is not None:
            self._consumer.pause(*(TopicPartition(topic, partition) for topic in self._followed(partition)))
            self._paused.add(partition)

    async def lag(self) -> dict[int, int]:
        """
        Records not yet fetched or processed, by partition; an estimate that is exact when idle.

        Raises:
            BrokerError: it is not known now, as in a rebalance.
        """
        if not self.unit.reads:
            return {}
        consumer = self._consumer
        if consumer is None or not self._assigned.is_set():
            raise BrokerError(f"{self.unit.stage.name} has no partitions now")
        tasks = dict(self.tasks)
        places = [TopicPartition(topic, number) for number in tasks for topic in self._followed(number)]
        with broker_errors(f"reading the lag of {self.unit.stage.name}"):
            async with asyncio.timeout(_LAG_S):
                ends = await consumer.end_offsets(places)
                reached = {place: await consumer.position(place) for place in places}
        lags = dict.fromkeys(tasks, 0)
        for place in places:
            task = tasks[place.partition]
            if task.state != "working":  # it will go back to what is committed
                reached[place] = min(reached[place], task.next_offsets.get(place.topic, 0))
            lags[place.partition] += max(0, ends[place] - reached[place])
        for number, task in tasks.items():
            lags[number] += len(task.inbox)
        return lags

    def _within(self, place: TopicPartition, committed: int | None, begin: int, end: int) -> int:
        """Where to go on: at *committed*, where the partition still has it, else at its beginning."""
        if committed is None or begin <= committed <= end:
            return begin if committed is None else committed
        self._log.error(
            "offset.out_of_range",
            topic=place.topic,
            partition=place.partition,
            committed=committed,
            begin=begin,
            end=end,
        )
        return begin

    def _followed(self, partition: int) -> list[str]:
        assert self._consumer is not None
        owned = self._consumer.assignment()
        return [topic for topic in self.topics if TopicPartition(topic, partition) in owned]

    async def _follow(self, consumer: AIOKafkaConsumer, tasks: asyncio.TaskGroup) -> None:
        while not self._stopping.is_set():
            if self._broken is not None:
                raise self._broken
            if coordination_ended(consumer):
                raise BrokerError("the consumer follows its group no longer")
            await self._start_missing(tasks)
            # Also where nothing is read: who does not fetch is taken for stuck, and leaves the group.
            with broker_errors("fetching"):
                fetched = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_FETCH_RUNS)
            for place, runs in fetched.items():
                self._deliver(place, runs)
            for number, task in list(self.tasks.items()):
                task.inbox.await_(await self._unfetched(consumer, number, task.inbox.empty))
            self._balance(consumer)
            await asyncio.sleep(0)  # fetching does not yield while there are records

    async def _stopped_within(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    def _deliver(self, place: TopicPartition, runs: list[list[Fetched]]) -> None:
        task = self.tasks.get(place.partition)
        if task is not None:
            for records in runs:
                task.inbox.put(place.topic, records)

    async def _unfetched(
        self, consumer: AIOKafkaConsumer, number: int, topics: frozenset[str]
    ) -> frozenset[str]:
        """Those of *topics* of which the broker is known to have more for partition *number*."""
        if not topics:
            return topics
        owned = consumer.assignment()
        places = [TopicPartition(topic, number) for topic in topics]
        with broker_errors("reading positions"):
            async with asyncio.timeout(_LAG_S):  # a position is known at once, unless it is being reset
                return frozenset(
                    [place.topic for place in places if place in owned and await _is_behind(consumer, place)]
                )

    def _balance(self, consumer: AIOKafkaConsumer) -> None:
        """Pause the partitions of full inboxes, resume those of drained ones."""
        if not self.unit.reads:
            return
        for number, task in self.tasks.items():
            if task.inbox.accepting and task.inbox.full and number not in self._paused:
                self.pause(number)
            elif task.inbox.accepting and task.inbox.drained and number in self._paused:
                consumer.resume(*(TopicPartition(topic, number) for topic in self._followed(number)))
                self._paused.discard(number)

    async def _start_missing(self, tasks: asyncio.TaskGroup) -> None:
        for number in sorted(self._wanted - set(self.tasks)):
            store = await self._copies.take(number)
            if number not in self._wanted:  # a rebalance came in between
                self._copies.give_back(number, store)
                continue
            task = Task(self.unit, number, self._cluster, self, self._guard, store=store)
            self.tasks[number] = task
            self._running[number] = tasks.create_task(task.run(), name=f"{self.unit.stage.name}.{number}")
        if self._assigned.is_set():
            await self._copies.keep(self._assignor.standbys - self._wanted)

    async def _give_up(self) -> None:
        """Stop every task: what works orderly within the bound, the rest at once."""
        self._wanted = set()
        running, tasks = dict(self._running), dict(self.tasks)
        for number, task in tasks.items():
            task.stop()
            if task.state in _NOT_BEGUN:
                running[number].cancel()
        if running:
            _, late = await asyncio.wait(running.values(), timeout=_DRAIN_S)
            for job in late:
                job.cancel()
            if late:
                self._log.warning("task.cancelled", count=len(late))
                await asyncio.wait(late)
        for number, job in running.items():
            await tasks[number].close()
            # another call may have done it, and a later assignment begun it again
            if self._running.get(number) is job:
                self._copies.note(number, tasks[number].reached)
                del self._running[number], self.tasks[number]
                self._cluster.metrics.forget(self.unit.stage.name, number)
        if running:
            self._log.info("partitions.revoked", partitions=sorted(running))


async def _is_behind(consumer: AIOKafkaConsumer, place: TopicPartition) -> bool:
    stable = consumer.last_stable_offset(place)
    return stable is None or bool(await consumer.position(place) < stable)


def _told(group: BaseExceptionGroup[PipelineError]) -> str:
    return str(_leaf(group))


def _leaf(group: BaseExceptionGroup[PipelineError]) -> PipelineError:
    inner = group.exceptions[0]
    return _leaf(inner) if isinstance(inner, BaseExceptionGroup) else inner
