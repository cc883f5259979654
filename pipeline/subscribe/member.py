"""
A member of a consumer group: brings records, commits what was processed, gives partitions up in order.

One task follows the group, so that nobody else's cancellation meets aiokafka. aiokafka sends no heartbeat
while partitions are assigned: its callback only notes them, and the task then finds where to begin. Before
partitions are given up, what the subscriber has in hand may be finished and committed, within a bound. When
the cluster fails, or a transaction's outcome is unknown, the member leaves and joins anew from what is
committed.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
    UnsupportedVersionError,
)

from pipeline.errors import BrokerError, PipelineError
from pipeline.subscribe.closing import coordination_ended, stop_consumer
from pipeline.subscribe.cluster import Cluster, broker_errors
from pipeline.subscribe.feed import Arrivals
from pipeline.subscribe.progress import Ends, Progress
from pipeline.subscribe.record import Fetched
from pipeline.subscribe.start import Start, positions
from pipeline.subscribe.transaction import Outgoing, PartitionProducer

__all__ = ["Member", "Plan"]

#: How long one fetch waits for records, and so the delay of a stop, in ms.
_POLL_MS = 200

#: Records taken from the consumer at once, and how many, or bytes of them, may wait until it pauses.
_FETCH_RECORDS = 1_000
_MOST_WAITING = 2_000
_MOST_BYTES = 64 * 2**20

#: Bound of joining, of a commit, and of a fetch to return by itself at the end, in seconds.
_JOIN_S = 120.0
_COMMIT_S = 10.0
_LAST_FETCH_S = 1.0

#: Pause before joining again after the cluster failed us, in seconds.
_REJOIN_S = 0.5

#: Transactions that may fail one after another before the subscriber is told.
_MOST_FAILED = 3

#: What trying again cannot help.
_FINAL = (GroupAuthorizationFailedError, TopicAuthorizationFailedError, UnsupportedVersionError)

_log = logging.getLogger(__name__)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How a member works; times in seconds."""

    topic: str
    group: str
    start: Start
    exactly_once: bool
    commit_every_s: float  #: what is done is committed so often, and whenever nothing waits
    drain_s: float  #: how long what is in hand may take when partitions are given up
    stuck_s: float  #: how long it may take otherwise; then others get the partitions
    session_s: float  #: how long a member that died keeps its partitions


class Member(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka is untyped
    """One member of the group that *plan* names; *wanted* says which records are worth keeping."""

    def __init__(self, cluster: Cluster, plan: Plan, wanted: Callable[[Fetched], bool]) -> None:
        self.arrivals = Arrivals()
        self.progress = Progress()
        self._cluster = cluster
        self._plan = plan
        self._wanted = wanted
        self._consumer: AIOKafkaConsumer | None = None
        self._following: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._rejoining = False
        self._assigned: set[TopicPartition] = set()
        self._open: set[int] = set()  # partitions whose records are taken
        self._producers: dict[int, PartitionProducer] = {}
        self._committing = asyncio.Lock()
        self._committed_at = 0.0
        self._failed_writes = 0
        self._generation = 0
        self._not_before: dict[int, float] = {}  # partition -> time in ms that a record has to reach first

    # ------------------------------------------------------------ what a subscription asks for

    async def open(self) -> None:
        """
        Join the group.

        Raises:
            BrokerError: no cluster answers, or it has no such topic.
        """
        await self._join()
        self._following = asyncio.create_task(self._follow(), name=f"subscriber {self._plan.group}")

    async def close(self) -> None:
        """Commit what is done and leave the group."""
        self._stopping.set()
        self.arrivals.asked.set()
        following = self._following
        if following is not None and not following.done():
            await asyncio.wait((following,), timeout=_LAST_FETCH_S)
        try:
            await self.commit()
        finally:
            if following is not None:
                following.cancel()
                await asyncio.wait((following,))
            await self._leave()

    async def commit(self) -> None:
        """Make durable what is done; if that fails it is done again, here or by another member."""
        async with self._committing:
            done = dict(self.progress.done)
            self._committed_at = time.monotonic()
            if done and await self._commit(done):
                self.progress.committed(done)

    async def write(self, outgoing: list[Outgoing]) -> bool:
        """
        See `pipeline.subscribe.transaction.Writer`; what is in hand is of one partition.

        Raises:
            BrokerError: several transactions failed in a row.
        """
        async with self._committing:
            ends = dict(self.progress.in_hand)
            if not ends:
                self._warn("transaction.dropped", "the partition was given to another member")
                return False
            ((partition, end),) = ends.items()
            try:
                await self._producers[partition].commit(outgoing, end)
            except BrokerError as error:
                self._write_failed(error)
                return False
            self._failed_writes = 0
            self.progress.committed(ends)
            return True

    # ------------------------------------------------------------ rebalance callbacks

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Let what is in hand be finished, commit it, and give all partitions up."""
        if not revoked:
            return
        try:
            self._generation += 1
            self._open.clear()
            self.arrivals.buffer.clear()
            if not self._rejoining:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._plan.drain_s):
                        await self.progress.idle.wait()
                await self.commit()
        except Exception as error:  # noqa: BLE001 - aiokafka would swallow it
            self._warn("commit.failed", error)
        finally:
            await self._give_up()

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Note what is owned now; nothing is taken of it before it is known where to begin."""
        self._assigned = set(assigned)
        if self._consumer is not None:
            self._consumer.pause(*self._assigned)
        numbers = sorted(place.partition for place in self._assigned)
        _log.info(
            "partitions.assigned topic=%s group=%s partitions=%s", self._plan.topic, self._plan.group, numbers
        )

    # ------------------------------------------------------------ following the group

    async def _follow(self) -> None:
        while not self._stopping.is_set():
            try:
                if self._is_stuck():
                    await self._stand_back()
                elif self._consumer is None:
                    await self._join()
                else:
                    await self._step(self._consumer)
            except (BrokerError, KafkaError) as error:
                cause = error.__cause__ if isinstance(error, BrokerError) else error
                if isinstance(cause, _FINAL):
                    self._fail(BrokerError(f"reading {self._plan.topic} as {self._plan.group}: {cause!r}"))
                    return
                self._warn("group.left", error)
                await self._leave()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_REJOIN_S):
                        await self._stopping.wait()
            except PipelineError as error:
                self._fail(error)
                return
            except Exception as error:  # noqa: BLE001 - whoever waits for records has to be told
                self._fail(error)
                return

    async def _step(self, consumer: AIOKafkaConsumer) -> None:
        """Open what was assigned, fetch once, commit what is due."""
        if self._rejoining or coordination_ended(consumer):
            raise BrokerError("the group is joined anew")
        if not self._assigned <= {TopicPartition(self._plan.topic, number) for number in self._open}:
            await self._begin(consumer, frozenset(self._assigned))
        self._throttle(consumer)
        self._keep(await consumer.getmany(timeout_ms=_POLL_MS, max_records=_FETCH_RECORDS))
        due = time.monotonic() - self._committed_at > self._plan.commit_every_s
        if self.progress.done and (due or not self.arrivals.buffer.holds()):
            await self.commit()

    async def _begin(self, consumer: AIOKafkaConsumer, places: frozenset[TopicPartition]) -> None:
        generation = self._generation
        if self._plan.exactly_once:
            await self._start_producers(places, generation)
        with broker_errors("finding where to begin"):
            async with asyncio.timeout(_JOIN_S):
                found, new = await positions(consumer, places, self._plan.start)
                if generation != self._generation:
                    return  # they are assigned anew
                for place, offset in found.items():
                    consumer.seek(place, offset)
                await self._begun(new)
        if generation == self._generation:
            self._open = {place.partition for place in places}
            consumer.resume(*places)

    async def _begun(self, new: Mapping[TopicPartition, int]) -> None:
        """Keep to the start of what begins anew: what is latest now is not later on."""
        numbers = {place.partition: offset for place, offset in new.items()}
        if self._plan.start == "latest" and numbers:
            await self._commit(numbers)
        if isinstance(self._plan.start, datetime):
            self._not_before = dict.fromkeys(numbers, self._plan.start.timestamp() * 1000)

    async def _start_producers(self, places: Iterable[TopicPartition], generation: int) -> None:
        for place in places:
            if generation != self._generation:
                return  # they may be others' by now, who would be fenced
            if place.partition not in self._producers:
                producer = PartitionProducer(self._cluster, self._plan.group, place)
                self._producers[place.partition] = producer
                await producer.start()

    def _keep(self, fetched: Mapping[TopicPartition, list[Any]]) -> None:
        for place, records in fetched.items():
            if place.partition not in self._open:
                continue  # of an assignment that is no more, or not yet begun
            for each in records:
                self._put(
                    Fetched(place.partition, each.offset, each.timestamp, each.key, each.value, each.headers)
                )
        if fetched:
            self.arrivals.tell()

    def _put(self, one: Fetched) -> None:
        if one.timestamp < self._not_before.get(one.partition, 0):
            return  # not even its offset is done: a next start would then take the ones after it
        self._not_before.pop(one.partition, None)
        self.arrivals.buffer.put(one, wanted=self._wanted(one))

    def _throttle(self, consumer: AIOKafkaConsumer) -> None:
        places = [place for place in self._assigned if place.partition in self._open]
        buffer = self.arrivals.buffer
        filled = max(buffer.ready / max(_MOST_WAITING, 2 * self.arrivals.most), buffer.size / _MOST_BYTES)
        if filled >= 1 and not consumer.paused():
            consumer.pause(*places)
        elif filled < 0.5 and consumer.paused():
            consumer.resume(*places)

    async def _stand_back(self) -> None:
        """Let others have the partitions until records are asked for again."""
        self._warn("member.stuck", f"a record is in hand for more than {self._plan.stuck_s} s")
        self.arrivals.asked.clear()
        await self.commit()
        await self._leave()
        await self.arrivals.asked.wait()

    def _is_stuck(self) -> bool:
        held_s = time.monotonic() - self.progress.handed_at
        return not self.progress.idle.is_set() and held_s > self._plan.stuck_s

    # ------------------------------------------------------------ joining, committing, leaving

    async def _join(self) -> None:
        plan = self._plan
        consumer = self._cluster.member(plan.group, plan.topic, self, plan.session_s)
        self._rejoining = False
        self._consumer = consumer
        try:
            with broker_errors(f"joining the group {plan.group} at {self._cluster.servers}"):
                async with asyncio.timeout(_JOIN_S):
                    await self._cluster.partitions(plan.topic)
                    await consumer.start()
        except BaseException:
            await self._leave()
            raise

    async def _commit(self, ends: Ends) -> bool:
        try:
            if self._plan.exactly_once:
                for partition, end in ends.items():
                    await self._producers[partition].commit([], end)
            else:
                assert self._consumer is not None
                with broker_errors("committing offsets"):
                    async with asyncio.timeout(_COMMIT_S):
                        places = {TopicPartition(self._plan.topic, p): end for p, end in ends.items()}
                        await self._consumer.commit(places)
        except (BrokerError, KeyError, AssertionError) as error:
            self._warn("commit.failed", error)
            if isinstance(error.__cause__, _FINAL):
                self._fail(error)
            self._rejoining = self._rejoining or self._plan.exactly_once
            return False
        return True

    def _write_failed(self, error: BrokerError) -> None:
        """Told; its outcome is not known, and only joining anew, fencing what is open, tells it."""
        self._warn("transaction.dropped", error)
        self._failed_writes += 1
        self._rejoining = True
        self._open.clear()
        self.arrivals.buffer.clear()
        self.progress.forget()
        if self._failed_writes >= _MOST_FAILED:
            raise error

    async def _give_up(self) -> None:
        self._open.clear()
        self._assigned = set()
        self.arrivals.buffer.clear()
        self.progress.forget()
        producers, self._producers = self._producers, {}
        await asyncio.gather(*(producer.drop() for producer in producers.values()))

    async def _leave(self) -> None:
        consumer, self._consumer = self._consumer, None
        await self._give_up()
        if consumer is not None:
            await stop_consumer(consumer)

    def _warn(self, event: str, error: object) -> None:
        _log.warning("%s topic=%s group=%s: %s", event, self._plan.topic, self._plan.group, error)

    def _fail(self, error: Exception) -> None:
        self.arrivals.failure = error
        self.arrivals.tell()
