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
from collections.abc import Mapping
from logging import DEBUG, WARNING
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import structlog
from aiokafka import TopicPartition

from pipeline.codec import Fetched, Places, Record, new_traceparent
from pipeline.effects import Change, Unit
from pipeline.errors import PipelineError, RecordError, StageFailed
from pipeline.headers import NO_HEADERS
from pipeline.runtime import names
from pipeline.runtime.batch import Batch, Processor, stores_of
from pipeline.runtime.cluster import Cluster
from pipeline.runtime.flight import Flight, Request
from pipeline.runtime.guard import FailureGuard
from pipeline.runtime.inbox import Inbox
from pipeline.runtime.narrowing import Narrowing
from pipeline.runtime.pace import Pace, Stride
from pipeline.runtime.recovery import Recovery, cause_of
from pipeline.runtime.restore import Progress, restore
from pipeline.runtime.state import Layers
from pipeline.runtime.store import LocalStore, StoreError, off_loop
from pipeline.runtime.transaction import RecordRefusedError, TransactionalProducer
from pipeline.stage import Event, Reject, Stores

__all__ = ["Follower", "Task"]

#: Bytes of input values after which a batch is closed, however few records they are.
_MAX_BATCH_BYTES = 8 * 1024 * 1024

#: Records at most that are taken between two looks at the clock.
_STRIDE = 50

#: Attempts that a dead letter tells of whose outputs the broker refused: in the batch, halved, alone.
_REFUSED_ATTEMPTS = 3


#: Reasons of dead letters that a healthy pipeline has as well.
_EXPECTED_REASONS = frozenset({"late"})


class Follower(Protocol):
    """What a task asks of its group's consumer."""

    async def committed(self, partition: int) -> dict[str, int | None]:
        """The group's committed offset of each input of *partition*, read afresh."""
        ...

    async def seek(self, partition: int, offsets: dict[str, int | None]) -> dict[str, int]:
        """Go on at *offsets* (None: the beginning); returns the offsets as numbers."""
        ...

    def pause(self, partition: int) -> None:
        """Fetch nothing for *partition* until the next ``seek``."""
        ...


class Task:
    """Runs *unit* on *partition* until stopped or cancelled; the context of its effect."""

    def __init__(
        self,
        unit: Unit,
        partition: int,
        cluster: Cluster,
        follower: Follower,
        guard: FailureGuard,
        *,
        store: LocalStore | None = None,
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
        self._store = store or cluster.local_store(unit.stage, partition)
        self._changelogs = cluster.changelogs(unit.stage)
        stops = cluster.settings.on_error.get(unit.stage.name) == "stop"
        self._processor = Processor(
            unit.stage,
            partition,
            cluster.codec,
            self._store,
            cluster.mask,
            stops=stops,
            cached=cluster.cached_values(unit.stage),
        )
        self._halted: StageFailed | None = None  # the record or cursor that nothing goes beyond
        self._requests: deque[Request] = deque()
        self._commits = 0
        self._seen: WeakKeyDictionary[asyncio.Task[Any], int] = WeakKeyDictionary()
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._committing = False
        self._gathering = False
        self._resting = False
        self._narrowing = Narrowing(cluster.settings.batch_records)
        self._recovery = Recovery(cluster.settings.heartbeat_interval_ms / 1000)
        self._stride = Stride(_STRIDE)
        self._flight: Flight | None = None
        self._refused: set[tuple[str, int]] = set()
        self._refuse_resume = False
        self.restore = Progress(0, 0)  #: of the state from its changelogs
        self.inbox = Inbox(self._processor.order, high=2 * cluster.settings.batch_records)
        self.next_offsets: dict[str, int] = {}  #: of each input, as committed
        self._stood: dict[str, int] = {}  # of those, what this very task has committed
        self.read: Stores = Layers(partition, stores_of(unit.stage), self._store)

    @property
    def idle(self) -> bool:
        """Whether nothing is buffered, uncommitted or waiting to be resumed."""
        waiting = self._committing or self._has_work() or len(self.inbox)
        return self.state == "working" and self._resting and not waiting

    @property
    def reached(self) -> int:
        """How far the local copy of its state reaches: the next offsets of its changelogs, added up."""
        return sum(self._store.offsets.values())

    @property
    def store_bytes(self) -> int:
        """How large the local copy of its state is."""
        return self._store.size_bytes

    async def run(self) -> None:
        """
        Work, one session after another, until ``stop``.

        Raises:
            StageFailed: the stage has a bug.
        """
        try:
            while not self._stopping.is_set():
                await self._session()
        finally:
            self.state = "stopped"
            await off_loop(self._store.close)

    def stop(self) -> None:
        """Finish the batch, commit it and return."""
        self._stopping.set()
        self.inbox.wake.set()

    async def close(self) -> None:
        """Release the store, also of a task that was cancelled before it ran."""
        await off_loop(self._store.close)

    async def commit(self, change: Change, *, cause: Event[Any] | None = None) -> None:
        """See `pipeline.effects.EffectContext`."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests.append(Request(change, cause or self._begun(), done))
        self.inbox.wake.set()
        await done

    async def changed(self) -> None:
        """See `pipeline.effects.EffectContext`."""
        caller = asyncio.current_task()
        assert caller is not None
        while self._seen.get(caller) == self._commits:
            self._changed.clear()
            await self._changed.wait()
        self._seen[caller] = self._commits

    def now(self) -> int:
        """See `pipeline.effects.EffectContext`."""
        return time.time_ns() // 1_000_000

    async def _session(self) -> None:
        producer = self._producer()
        wait_s = 0.0
        try:
            await self._open(producer)
            await self._work_beside_effect(producer)
        except Exception as error:  # noqa: BLE001 - whatever it was, go on from what is committed
            wait_s = self._failed(cause_of(error))
        finally:
            self._abandon()
            await producer.drop()
        await self._back_off(wait_s)

    async def _open(self, producer: TransactionalProducer) -> None:
        self.state = "starting"
        await off_loop(self._store.open)
        await producer.start()
        committed = await self._follower.committed(self.partition)
        self._compare(committed)
        self.state = "restoring"
        started = time.monotonic()
        ends = await producer.ends(self._changelogs, self.partition, self.now())
        place = (self._store, self._changelogs, self.partition)
        restored = await restore(*place, self._cluster.connection, self._restoring, at_least=ends)
        if restored:
            self._log.info("store.restored", records=restored, seconds=round(time.monotonic() - started, 3))
        self.next_offsets = await self._follower.seek(self.partition, committed)
        self.inbox.expect(self.next_offsets)
        self.state = "working"

    def _compare(self, committed: Mapping[str, int | None]) -> None:
        """Say so where the cluster has forgotten a commit that it acknowledged: it will be done twice."""
        for topic in self._stood.keys() & committed.keys():
            if (committed[topic] or 0) < self._stood[topic]:
                self._log.error(
                    "offset.lost", topic=topic, committed=committed[topic], acknowledged=self._stood[topic]
                )

    async def _work_beside_effect(self, producer: TransactionalProducer) -> None:
        async with asyncio.TaskGroup() as tasks:
            effect: asyncio.Task[None] | None = None
            if self.unit.effect is not None:
                effect = tasks.create_task(self._effect(), name=f"effect {self._name}")
            await self._work(producer, tasks)
            if effect is not None:
                effect.cancel()

    async def _effect(self) -> None:
        assert self.unit.effect is not None
        await self.unit.effect(self)

    async def _work(self, producer: TransactionalProducer, tasks: asyncio.TaskGroup) -> None:
        committing: asyncio.Task[None] | None = None
        while not (self._stopping.is_set() or self._halted):
            await self._until_work()
            flight = await self._compute()
            if committing is not None:
                await committing
                committing = None
            if flight.batch is None:
                flight.settle()
            else:
                self._committing = True
                self._gather()
                committing = tasks.create_task(
                    self._commit(producer, flight, flight.batch), name=f"commit {self._name}"
                )
            if committing is not None and self._narrowing.narrowed:
                await committing
        if committing is not None:
            await committing
        if self._halted:
            raise self._halted

    async def _until_work(self) -> None:
        while not (self._stopping.is_set() or self._has_work()):
            self._resting = True
            self.inbox.wake.clear()
            await self.inbox.wake.wait()
        self._resting = False

    @property
    def _waits(self) -> bool:
        """Whether a batch that is not full waits: for the commit of the one before, or to gather more."""
        gathers = self._gathering and not (self._requests or self._processor.resumable)
        return self._committing or gathers

    def _gather(self) -> None:
        """Let the next batch wait for what makes it worth a transaction."""
        if self.unit.stage.gather_s:
            self._gathering = True
            asyncio.get_running_loop().call_later(self.unit.stage.gather_s, self._gathered)

    def _gathered(self) -> None:
        self._gathering = False
        self.inbox.wake.set()

    def _has_work(self) -> bool:
        return bool(self.inbox.ready or self._requests or self._processor.resumable)

    async def _compute(self) -> Flight:
        """Fill the batch: with what waits, and while the one before is committed with what comes."""
        requests: list[Request] = []
        resumed, records, size = False, 0, 0
        while not self._stopping.is_set():
            self._apply_requests(requests)
            if not (self._narrowing.narrowed and requests):
                records, size = await self._take_records(records, size)
                alone = self._narrowing.narrowed and records
                if self._processor.resumable and not (alone or self._halted):
                    self._resume()
                    resumed = True
            full = records >= self._narrowing.limit or size >= _MAX_BATCH_BYTES
            if full or self._halted or not self._waits:
                break
            self.inbox.wake.clear()
            await self.inbox.wake.wait()
        return Flight(self._processor.close(), requests, resumed)

    def _apply_requests(self, applied: list[Request]) -> None:
        while self._requests and not (self._narrowing.narrowed and applied):
            request = self._requests.popleft()
            if request.done.cancelled():
                continue  # whoever asked has gone
            try:
                self._processor.apply(request.change, request.cause)
            except RecordError as error:
                request.done.set_exception(error)
            else:
                applied.append(request)

    async def _take_records(self, records: int, size: int) -> tuple[int, int]:
        """Take what waits, up to the bounds; *records* of *size* bytes were taken before."""
        pace = Pace()
        while records < self._narrowing.limit and size < _MAX_BATCH_BYTES and not self._halted:
            run = self.inbox.take(min(self._stride.records, self._narrowing.limit - records))
            if run is None:
                break
            topic, taken, taken_size = run
            begun = time.perf_counter()
            self._take(topic, taken)
            self._stride.took(time.perf_counter() - begun)
            records += len(taken)
            size += taken_size
            await pace.breathe()
        return records, size

    def _take(self, topic: str, records: list[Fetched]) -> None:
        try:
            if self._refused:
                for record in records:
                    self._take_or_refuse(topic, record)
            else:
                self._processor.take(topic, records)
        except StageFailed as error:
            self._halted = error

    def _take_or_refuse(self, topic: str, record: Fetched) -> None:
        if (topic, record.offset) not in self._refused:
            self._processor.take(topic, (record,))
            return
        # by its own timestamp even the dead letter might be refused
        sound = Record(
            topic,
            self.partition,
            record.offset,
            min(record.timestamp, self.now()),
            record.key,
            record.value,
            tuple(record.headers),
        )
        reason = Reject("refused-by-broker", "its outputs cannot be written")
        self._processor.refuse(topic, sound, reason, _REFUSED_ATTEMPTS)

    def _resume(self) -> None:
        if self._refuse_resume:
            self._refuse_resume = False
            self._processor.refuse_resume(Reject("refused-by-broker", "its outputs cannot be written"))
            return
        try:
            self._processor.resume()
        except StageFailed as error:
            self._halted = error

    async def _commit(self, producer: TransactionalProducer, flight: Flight, batch: Batch) -> None:
        started = time.perf_counter()
        self._flight = flight
        offsets = {TopicPartition(topic, self.partition): at for topic, at in batch.next_offsets.items()}
        ends = await producer.commit(batch.places | self._changelog_places(batch), offsets)
        reached = {topic: end for (topic, _), end in ends.items() if topic in self._changelogs}
        self._store.apply(batch.changes, reached)
        self._processor.committed()
        self.next_offsets |= batch.next_offsets
        self._stood |= batch.next_offsets
        flight.settle()
        self._committing = False
        self._commits += 1
        self._changed.set()
        self.inbox.wake.set()
        self._succeeded(batch, time.perf_counter() - started)

    def _succeeded(self, batch: Batch, seconds: float) -> None:
        self._flight = None
        self._recovery.committed()
        self._narrowing.committed(batch.records)
        self._refused = {
            (topic, offset) for topic, offset in self._refused if offset >= self.next_offsets.get(topic, 0)
        }
        self._observe(batch, seconds)
        self._guard.count(batch.records, batch.failures)

    def _observe(self, batch: Batch, seconds: float) -> None:
        metrics, stage = self._cluster.metrics, self.unit.stage.name
        metrics.records.labels(stage).inc(batch.records)
        metrics.transactions.labels(stage).inc()
        metrics.transaction_seconds.labels(stage).observe(seconds)
        metrics.batch_records.labels(stage).observe(batch.records)
        if batch.dead_letters:
            for reason, count in batch.reasons.items():
                metrics.dead_letters.labels(stage, reason).inc(count)
            expected = batch.reasons.keys() <= _EXPECTED_REASONS
            self._log.log(DEBUG if expected else WARNING, "record.dead_lettered", reasons=batch.reasons)
        metrics.written(stage, batch.places, self.now())

    def _failed(self, error: Exception) -> float:
        """Note why the session ended, and narrow down what cannot be written; seconds to wait."""
        if isinstance(error, StageFailed):
            raise error
        self._cluster.metrics.rebuilds.labels(self.unit.stage.name).inc()
        wait_s = self._recovery.wait_s(error)
        told = {"error": f"{type(error).__name__}: {error}", "failures": self._recovery.failures}
        if isinstance(error, PipelineError):
            self._log.warning("task.rebuilt", wait_s=round(wait_s, 1), **told)
        else:
            self._log.error("task.rebuilt", wait_s=round(wait_s, 1), exc_info=error, **told)
        if isinstance(error, StoreError):
            self._store.condemn(str(error))
        if isinstance(error, RecordRefusedError) and self._flight is not None:
            self._narrow(self._flight)
        elif self._recovery.failures > 1:
            self._narrowing.failed()
        return wait_s

    def _narrow(self, flight: Flight) -> None:
        if flight.culprit is not None:
            self._refused.add(flight.culprit)
        elif flight.resumed and not (flight.records or flight.requests):
            self._refuse_resume = True
        self._narrowing.refused(flight.records)

    def _abandon(self) -> None:
        """Drop everything uncommitted."""
        self._follower.pause(self.partition)
        self.inbox.close()
        self._processor.discard()
        self._flight = None
        self._committing = False
        self._resting = False
        for request in self._requests:
            request.done.cancel()
        self._requests.clear()

    async def _back_off(self, wait_s: float) -> None:
        if wait_s:
            self.state = "backing off"
            try:
                async with asyncio.timeout(wait_s):
                    await self._stopping.wait()
            except TimeoutError:
                return

    def _producer(self) -> TransactionalProducer:
        application_id, stage = self._cluster.application_id, self.unit.stage.name
        return TransactionalProducer(
            self._cluster.connection,
            names.transactional_id(application_id, stage, self.partition),
            names.group_id(application_id, stage),
            self._cluster.settings.transaction_timeout_ms / 1000 * 2,
        )

    def _changelog_places(self, batch: Batch) -> Places:
        topics = {store: topic for topic, store in self._changelogs.items()}
        now = self.now()
        return {
            (topics[store], self.partition): [(now, key, value, NO_HEADERS) for key, value in entries]
            for store, entries in batch.changes.by_store.items()
        }

    def _restoring(self, progress: Progress) -> None:
        labels = (self.unit.stage.name, str(self.partition))
        metrics = self._cluster.metrics
        metrics.restore_records.labels(*labels).set(progress.restored)
        metrics.restore_remaining.labels(*labels).set(progress.remaining)
        metrics.restore_rate.labels(*labels).set(progress.per_s)
        self.restore = progress

    def _begun(self) -> Event[Any]:
        """The cause of what an effect begins by itself."""
        now = self.now()
        seed = f"{self._name}|{time.time_ns()}"
        return Event(
            topic="", key="", value=None, id=seed, received_at=now, traceparent=new_traceparent(seed.encode())
        )
