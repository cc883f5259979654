"""
One stage on one partition: what is computed, committed and restored, in which order.

A session of a task: start the producer (fences the former owner) → read the committed offsets →
restore the store's tail → seek → work. While batch N is committed, batch N+1 is computed on N's
uncommitted layer; it is sent only after N stands. Any failure ends the session, and the next one
begins anew from what is committed.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, final

import msgspec
import structlog
from aiokafka import TopicPartition

from pipeline.codec import Codec, Output, Record, new_traceparent
from pipeline.effects import Change, Unit
from pipeline.errors import PipelineError, RecordError, StageFailed
from pipeline.runtime import names
from pipeline.runtime.batch import Batch, Processor, stores_of
from pipeline.runtime.connection import Connection
from pipeline.runtime.guard import FailureGuard
from pipeline.runtime.inbox import Inbox
from pipeline.runtime.metrics import Metrics
from pipeline.runtime.restore import Progress, restore
from pipeline.runtime.state import Layers
from pipeline.runtime.store import LocalStore, Origin
from pipeline.runtime.transaction import RecordRefusedError, TransactionalProducer
from pipeline.settings import RuntimeSettings
from pipeline.stage import Event, Reject, Stores

__all__ = ["Cluster", "Follower", "Task"]

#: Longest time between two yields to the event loop while records are processed, in seconds.
_YIELD_S = 0.008

#: Pause before a session is begun anew, in seconds: first and longest; doubled at each failure in a row.
_BACKOFF_S = (0.1, 10.0)

#: Failed sessions in a row, none of which committed anything, after which the stage gives up.
_MAX_FAILURES = 30


@final
class Cluster(msgspec.Struct, frozen=True):
    """What all tasks of a process share."""

    id: str
    application_id: str
    partitions: int
    connection: Connection
    codec: Codec
    settings: RuntimeSettings
    metrics: Metrics
    mask: Callable[[str], str]


class Follower(Protocol):
    """What a task asks of its group's consumer."""

    async def committed(self, partition: int) -> dict[str, int | None]:
        """The group's committed offset of each input of *partition*, read afresh."""
        ...

    async def seek(self, partition: int, offsets: dict[str, int | None]) -> dict[str, int]:
        """Go on at *offsets* (None: the beginning); returns the offsets as numbers."""
        ...


class _Request(msgspec.Struct, frozen=True):
    change: Change
    cause: Event[Any]
    done: asyncio.Future[None]


class Task:
    """Runs *unit* on *partition* until stopped or cancelled; the context of its effect."""

    def __init__(
        self, unit: Unit, partition: int, cluster: Cluster, follower: Follower, guard: FailureGuard
    ) -> None:
        self.unit = unit
        self.partition = partition
        self.partitions = cluster.partitions
        self.state = "starting"
        self._cluster = cluster
        self._follower = follower
        self._guard = guard
        self._name = f"{unit.stage.name}.{partition}"
        self._log = structlog.get_logger(__name__).bind(stage=unit.stage.name, partition=partition)
        self._store = self._local_store()
        self._processor = Processor(unit.stage, partition, cluster.codec, self._store, cluster.mask)
        self._requests: deque[_Request] = deque()
        self._changed = asyncio.Event()
        self._stopping = False
        self._committing = False
        self._failures = 0
        self._limit = cluster.settings.batch_records
        self._last: Record | None = None
        self._refused: set[tuple[str, int]] = set()
        self.inbox = Inbox(self._processor.order, high=2 * cluster.settings.batch_records)
        self.read: Stores = Layers(partition, stores_of(unit.stage), self._store)

    @property
    def idle(self) -> bool:
        """Whether nothing is buffered, uncommitted or waiting to be resumed."""
        return self.state == "working" and not self._committing and not self._has_work()

    async def run(self) -> None:
        """
        Work, one session after another, until ``stop``.

        Raises:
            StageFailed: the stage has a bug, or nothing helps.
        """
        try:
            while not self._stopping:
                await self._session()
        finally:
            self.state = "stopped"
            self.inbox.close()
            self._store.close()

    def stop(self) -> None:
        """Finish the batch, commit it and return."""
        self._stopping = True
        self.inbox.wake.set()

    async def commit(self, change: Change, *, cause: Event[Any] | None = None) -> None:
        """See `pipeline.effects.EffectContext`."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests.append(_Request(change, cause or self._begun(), done))
        self.inbox.wake.set()
        await done

    async def changed(self) -> None:
        """See `pipeline.effects.EffectContext`."""
        await self._changed.wait()
        self._changed.clear()

    def now(self) -> int:
        """See `pipeline.effects.EffectContext`."""
        return time.time_ns() // 1_000_000

    async def _session(self) -> None:
        producer = self._producer()
        try:
            await self._open(producer)
            async with asyncio.TaskGroup() as tasks:
                effect = self.unit.effect and tasks.create_task(
                    self.unit.effect(self), name=f"effect {self._name}"
                )
                await self._work(producer, tasks)
                if effect:
                    effect.cancel()
        except* StageFailed as group:
            raise StageFailed(str(group.exceptions[0])) from group
        except* Exception as group:  # noqa: BLE001 - whatever it was, go on from what is committed
            self._failed(group)
        finally:
            self._abandon()
            await producer.drop()
        await self._back_off()

    async def _open(self, producer: TransactionalProducer) -> None:
        self.state = "starting"
        await producer.start()
        committed = await self._follower.committed(self.partition)
        self.state = "restoring"
        started = time.monotonic()
        restored = await restore(
            self._store, self._changelogs(), self.partition, self._cluster.connection, self._restoring
        )
        if restored:
            self._log.info("store.restored", records=restored, seconds=round(time.monotonic() - started, 3))
        self.inbox.expect(await self._follower.seek(self.partition, committed))
        self.state = "working"
        self._changed.set()

    async def _work(self, producer: TransactionalProducer, tasks: asyncio.TaskGroup) -> None:
        committing: asyncio.Task[None] | None = None
        while not self._stopping:
            await self._until_work()
            requests = await self._compute()
            batch = self._processor.close()
            if committing is not None:
                await committing
                committing = None
            if batch is not None:
                self._committing = True
                committing = tasks.create_task(
                    self._commit(producer, batch, requests), name=f"commit {self._name}"
                )
        if committing is not None:
            await committing

    async def _until_work(self) -> None:
        while not (self._stopping or self._has_work()):
            self.inbox.wake.clear()
            await self.inbox.wake.wait()

    def _has_work(self) -> bool:
        return bool(len(self.inbox) or self._requests or self._processor.resumable)

    async def _compute(self) -> list[_Request]:
        """Fill the batch: with what waits, and while the one before is committed with what comes."""
        requests: list[_Request] = []
        taken = 0
        while not self._stopping:
            self._apply_requests(requests)
            taken = await self._take_records(taken)
            if self._processor.resumable:
                self._processor.resume()
            if taken >= self._limit or not self._committing:
                break
            self.inbox.wake.clear()
            await self.inbox.wake.wait()
        return requests

    def _apply_requests(self, applied: list[_Request]) -> None:
        while self._requests:
            request = self._requests.popleft()
            try:
                change = request.change
                outcome = change(self._processor.layers) if callable(change) else change
                self._processor.apply(outcome, request.cause)
            except RecordError as error:
                if not request.done.done():
                    request.done.set_exception(error)
            else:
                applied.append(request)

    async def _take_records(self, taken: int) -> int:
        pause_at = time.perf_counter() + _YIELD_S
        while taken < self._limit and (record := self.inbox.take()) is not None:
            self._take(record)
            taken += 1
            if time.perf_counter() > pause_at:
                await asyncio.sleep(0)
                pause_at = time.perf_counter() + _YIELD_S
        return taken

    def _take(self, record: Record) -> None:
        self._last = record
        if (record.topic, record.offset) in self._refused:
            self._processor.refuse(record, Reject("refused-by-broker", "its outputs cannot be written"), 3)
        else:
            self._processor.take(record)

    async def _commit(self, producer: TransactionalProducer, batch: Batch, requests: list[_Request]) -> None:
        started = time.perf_counter()
        changelogs = self._changelog_outputs(batch)
        offsets = {TopicPartition(topic, self.partition): at for topic, at in batch.next_offsets.items()}
        ends = await producer.commit([*batch.outputs, *changelogs], offsets)
        names_of_logs = self._changelogs()
        reached = {topic: end for (topic, _), end in ends.items() if topic in names_of_logs}
        self._store.apply(iter(batch.changes), reached)
        self._processor.committed()
        for request in requests:
            if not request.done.done():
                request.done.set_result(None)
        self._committing = False
        self._changed.set()
        self.inbox.wake.set()
        self._succeeded(batch, time.perf_counter() - started)

    def _succeeded(self, batch: Batch, seconds: float) -> None:
        self._failures = 0
        self._limit = min(self._cluster.settings.batch_records, self._limit * 2)
        self._observe(batch, seconds)
        self._guard.count(batch.records, batch.failures)

    def _observe(self, batch: Batch, seconds: float) -> None:
        metrics, stage = self._cluster.metrics, self.unit.stage.name
        metrics.records.labels(stage).inc(batch.records)
        metrics.transactions.labels(stage).inc()
        metrics.transaction_seconds.labels(stage).observe(seconds)
        metrics.batch_records.labels(stage).observe(batch.records)
        if batch.dead_letters:
            metrics.dead_letters.labels(stage).inc(batch.dead_letters)
            self._log.warning("record.dead_lettered", count=batch.dead_letters)
        now = self.now()
        for topic in {output.topic for output in batch.outputs}:
            times = [output.timestamp for output in batch.outputs if output.topic == topic]
            metrics.outputs.labels(topic).inc(len(times))
            latency = metrics.output_latency.labels(topic)
            for timestamp in times:
                latency.observe((now - timestamp) / 1000)

    def _failed(self, group: BaseExceptionGroup[Exception]) -> None:
        """Note why the session ended, and narrow the batch down to what cannot be written."""
        first = _first(group)
        self._failures += 1
        self._cluster.metrics.rebuilds.labels(self.unit.stage.name).inc()
        known = isinstance(first, PipelineError)
        self._log.warning(
            "task.rebuilt",
            error=f"{type(first).__name__}: {first}",
            failures=self._failures,
            exc_info=None if known else first,
        )
        if self._limit == 1 and isinstance(first, RecordRefusedError) and self._last is not None:
            self._refused.add((self._last.topic, self._last.offset))
        if self._failures > 1:
            self._limit = max(1, self._limit // 2)
        if self._failures > _MAX_FAILURES:
            raise StageFailed(
                f"{self._name}: {self._failures} failures in a row, the last: {first}"
            ) from first

    def _abandon(self) -> None:
        """Drop everything uncommitted."""
        self.inbox.close()
        self._processor.discard()
        self._committing = False
        for request in self._requests:
            request.done.cancel()
        self._requests.clear()

    async def _back_off(self) -> None:
        if self._failures and not self._stopping:
            self.state = "backing off"
            first, longest = _BACKOFF_S
            await asyncio.sleep(min(longest, first * 2 ** min(self._failures - 1, 10)))

    def _producer(self) -> TransactionalProducer:
        application_id, stage = self._cluster.application_id, self.unit.stage.name
        return TransactionalProducer(
            self._cluster.connection,
            names.transactional_id(application_id, stage, self.partition),
            names.group_id(application_id, stage),
            self._cluster.settings.transaction_timeout_ms / 1000 * 2,
        )

    def _local_store(self) -> LocalStore:
        stage = self.unit.stage
        application_id = self._cluster.application_id
        origin = Origin(self._cluster.id, application_id, stage.name, self.partition, stage.state_version)
        folder = self._cluster.settings.state_dir / application_id / stage.name / str(self.partition)
        return LocalStore(folder, origin)

    def _changelogs(self) -> dict[str, str]:
        """Changelog topic -> store name."""
        stage = self.unit.stage
        return {
            names.changelog(self._cluster.application_id, stage.name, store): store.name
            for store in stores_of(stage)
        }

    def _changelog_outputs(self, batch: Batch) -> list[Output]:
        topics = {store: topic for topic, store in self._changelogs().items()}
        now = self.now()
        return [
            Output(topics[store], self.partition, now, key, value, [])
            for store, entries in batch.changes.by_store.items()
            for key, value in entries
        ]

    def _restoring(self, progress: Progress) -> None:
        labels = (self.unit.stage.name, str(self.partition))
        self._cluster.metrics.restore_remaining.labels(*labels).set(progress.remaining)

    def _begun(self) -> Event[Any]:
        """The cause of what an effect begins by itself."""
        now = self.now()
        seed = f"{self._name}|{time.time_ns()}"
        return Event(
            topic="", key="", value=None, id=seed, received_at=now, traceparent=new_traceparent(seed.encode())
        )


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
