"""
One consumer group per stage: follows the inputs, and runs a task for each partition number it owns.

aiokafka sends no heartbeat while its rebalance callbacks run, so they only note what happened: the
tasks are started and restored outside. Before partitions are given up, their tasks finish the
transaction in progress, within a bound. Fetched records go at once into the tasks' bounded inboxes;
a full one pauses its partitions.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition

from pipeline.codec import Record
from pipeline.effects import Unit
from pipeline.errors import BrokerError, PipelineError, StageFailed
from pipeline.runtime import names
from pipeline.runtime.guard import FailureGuard
from pipeline.runtime.task import Cluster, Task
from pipeline.runtime.transaction import broker_errors

__all__ = ["Group"]

#: How long one fetch waits for records, and so the delay of a stop, in ms.
_POLL_MS = 200

#: Seconds for tasks to finish their transaction before their partitions are given up.
_DRAIN_S = 5.0

#: Pause before joining again after the cluster failed us, in seconds.
_REJOIN_S = 1.0

_log = structlog.get_logger(__name__)


class Group(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka is untyped
    """Runs *unit* in this process; ``run`` returns after ``stop``."""

    def __init__(self, unit: Unit, cluster: Cluster) -> None:
        self.unit = unit
        self.tasks: dict[int, Task] = {}
        self.failed: str | None = None
        self._cluster = cluster
        self._topics = names.inputs_of(unit.stage, reads=unit.reads)
        self._guard = FailureGuard(unit.stage.name)
        self._log = _log.bind(stage=unit.stage.name)
        self._stopping = asyncio.Event()
        self._assigned = asyncio.Event()
        self._running: dict[int, asyncio.Task[None]] = {}
        self._wanted: set[int] = set()
        self._consumer: AIOKafkaConsumer | None = None

    @property
    def ready(self) -> bool:
        """Whether partitions were assigned and every task of them works."""
        works = all(task.state == "working" for task in self.tasks.values())
        return self.failed is None and self._assigned.is_set() and works and set(self.tasks) == self._wanted

    def stop(self) -> None:
        """Finish what is in progress and leave the group."""
        self._stopping.set()

    async def run(self) -> None:
        """Follow the inputs until ``stop``; a stage with a bug stays stopped and unready."""
        while not (self._stopping.is_set() or self.failed):
            try:
                await self._join()
            except* StageFailed as group:
                self.failed = _told(group)
                self._log.error("stage.stopped", error=self.failed)
            except* BrokerError as group:
                self._log.warning("group.left", error=_told(group))
                await self._stopped_within(_REJOIN_S)
        await self._stopping.wait()

    async def _join(self) -> None:
        consumer = self._cluster.connection.member(
            names.group_id(self._cluster.application_id, self.unit.stage.name), list(self._topics), self
        )
        self._consumer = consumer
        try:
            with broker_errors(f"joining the group of {self.unit.stage.name}"):
                await consumer.start()
            async with asyncio.TaskGroup() as tasks:
                await self._follow(consumer, tasks)
        finally:
            await self._give_up()
            self._assigned.clear()
            await consumer.stop()

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> Any:  # noqa: ARG002
        """Give up all tasks, their last transaction finished: a rebalance here revokes everything."""
        return self._give_up()

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Note what is owned now; nothing is fetched before its task asks for it."""
        assert self._consumer is not None
        places = list(assigned)
        self._consumer.pause(*places)
        self._wanted = {place.partition for place in places}
        self._cluster.metrics.rebalances.labels(self.unit.stage.name).inc()
        self._log.info("partitions.assigned", partitions=sorted(self._wanted))
        self._assigned.set()

    async def committed(self, partition: int) -> dict[str, int | None]:
        """See `pipeline.runtime.task.Follower`."""
        assert self._consumer is not None
        if not self.unit.reads:
            return {}
        with broker_errors("reading committed offsets"):
            async with asyncio.timeout(self._cluster.settings.request_timeout_ms / 1000):
                return {
                    topic: await self._consumer.committed(TopicPartition(topic, partition))
                    for topic in self._followed(partition)
                }

    async def seek(self, partition: int, offsets: dict[str, int | None]) -> dict[str, int]:
        """See `pipeline.runtime.task.Follower`."""
        assert self._consumer is not None
        places = [TopicPartition(topic, partition) for topic in offsets]
        if not places:
            return {}
        with broker_errors("seeking"):
            async with asyncio.timeout(self._cluster.settings.request_timeout_ms / 1000):
                begins = await self._consumer.beginning_offsets(places)
            known = {place.topic: max(offsets[place.topic] or 0, begins[place]) for place in places}
            for place in places:
                self._consumer.seek(place, known[place.topic])
            self._consumer.resume(*places)
        return known

    async def lag(self) -> dict[int, int]:
        """Records not yet fetched or processed, by partition; an estimate that is exact when idle."""
        if self._consumer is None or not self.unit.reads:
            return {}
        lags: dict[int, int] = {}
        for number, task in list(self.tasks.items()):
            places = [TopicPartition(topic, number) for topic in self._followed(number)]
            with broker_errors("reading positions"):
                ends = await self._consumer.end_offsets(places)
                positions = [await self._consumer.position(place) for place in places]
            behind = sum(max(0, ends[place] - at) for place, at in zip(places, positions, strict=True))
            lags[number] = behind + len(task.inbox)
            self._cluster.metrics.lag.labels(self.unit.stage.name, str(number)).set(lags[number])
        return lags

    def _followed(self, partition: int) -> list[str]:
        assert self._consumer is not None
        owned = self._consumer.assignment()
        return [topic for topic in self._topics if TopicPartition(topic, partition) in owned]

    async def _follow(self, consumer: AIOKafkaConsumer, tasks: asyncio.TaskGroup) -> None:
        paused: set[int] = set()
        while not self._stopping.is_set():
            self._start_missing(tasks)
            if not self.unit.reads:
                await self._stopped_within(_POLL_MS / 1000)
                continue
            with broker_errors("fetching"):
                fetched = await consumer.getmany(timeout_ms=_POLL_MS)
            for place, records in fetched.items():
                self._deliver(place, records)
            self._balance(consumer, paused)
        await self._give_up()

    async def _stopped_within(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    def _deliver(self, place: TopicPartition, records: list[Any]) -> None:
        task = self.tasks.get(place.partition)
        if task is not None:
            topic = place.topic
            task.inbox.put(
                topic,
                [
                    Record(topic, r.partition, r.offset, r.timestamp, r.key, r.value, r.headers)
                    for r in records
                ],
            )

    def _balance(self, consumer: AIOKafkaConsumer, paused: set[int]) -> None:
        """Pause the partitions of full inboxes, resume those of drained ones."""
        for number, task in self.tasks.items():
            if not task.inbox.accepting:
                paused.discard(number)
            elif task.inbox.full and number not in paused:
                consumer.pause(*(TopicPartition(topic, number) for topic in self._followed(number)))
                paused.add(number)
            elif task.inbox.drained and number in paused:
                consumer.resume(*(TopicPartition(topic, number) for topic in self._followed(number)))
                paused.discard(number)

    def _start_missing(self, tasks: asyncio.TaskGroup) -> None:
        for number in sorted(self._wanted - set(self.tasks)):
            task = Task(self.unit, number, self._cluster, self, self._guard)
            self.tasks[number] = task
            self._running[number] = tasks.create_task(task.run(), name=f"{self.unit.stage.name}.{number}")

    async def _give_up(self) -> None:
        """Stop every task: orderly within the bound, else at once."""
        self._wanted = set()
        for task in self.tasks.values():
            task.stop()
        running = list(self._running.values())
        if running:
            _, late = await asyncio.wait(running, timeout=_DRAIN_S)
            for job in late:
                job.cancel()
            if late:
                self._log.warning("task.cancelled", count=len(late))
                await asyncio.wait(late)
            self._log.info("partitions.revoked", partitions=sorted(self.tasks))
        self.tasks.clear()
        self._running.clear()


def _told(group: BaseExceptionGroup[PipelineError]) -> str:
    inner = group.exceptions[0]
    return _told(inner) if isinstance(inner, BaseExceptionGroup) else str(inner)
