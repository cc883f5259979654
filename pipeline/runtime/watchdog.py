"""
Alive means progressing: looks at each stage's positions and lag, and does something where they stand.

A stage stands where a partition has work to do, or nobody can tell whether it has, and its position does
not move for ``runtime.watchdog_s``. Then a fresh client asks Kafka. If it does not answer it is away, which
nothing done here mends: clients come back by themselves, and the receiver puts senders off meanwhile. If
it answers, the stage's group joins anew with fresh clients; and where that has not helped after as long
again, this process is at fault, and ends with `Stuck` to be started anew.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import final

import msgspec
import structlog

from pipeline.errors import BrokerError, Stuck
from pipeline.runtime.cluster import Cluster
from pipeline.runtime.group import Group
from pipeline.runtime.reader import reading
from pipeline.runtime.task import Task

__all__ = ["Patience", "Place", "Seen", "Watchdog"]

#: How often each stage is looked at, in seconds.
LOOK_S = 1.0

#: A lag that was read longer ago, in seconds, is not known any more.
FRESH_S = 5.0

_log = structlog.get_logger(__name__)


@final
class Place(msgspec.Struct, frozen=True):
    """How far a partition is: sums of offsets, None where that is not known yet."""

    committed: int | None  #: of its inputs
    restored: int | None  #: of its changelogs


@final
class Seen(msgspec.Struct, frozen=True):
    """
    What one look at a stage shows.

    *places* are those of its partitions, None where its group is not assigned now. *waiting* are the
    partitions that have work to do, None where that is not known.
    """

    places: Mapping[int, Place] | None
    waiting: frozenset[int] | None


class _Standing:
    """One partition: where it is, and since when."""

    def __init__(self, place: Place, now: float) -> None:
        self.since = now
        self._place = place

    def look(self, place: Place, now: float, *, idle: bool) -> None:
        """Compare what is known of both places: a new task knows nothing at first, which is no move."""
        old = self._place
        committed = old.committed if place.committed is None else place.committed
        restored = old.restored if place.restored is None else place.restored
        self._place = Place(committed, restored)
        if idle or self._place != old:
            self.since = now


class Patience:
    """Judges one stage by what is seen of it; *limit_s* is how long it may stand."""

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.idle_s = 0.0  #: for how long it stands
        self._limit_s = limit_s
        self._clock = clock
        self._standing: dict[int, _Standing] = {}
        self._assigned_at = self._judged_at = clock()

    @property
    def spent(self) -> bool:
        """Whether it stands for longer than it may."""
        return self.idle_s > self._limit_s

    def look(self, seen: Seen) -> bool:
        """Take *seen* into account; whether something is to be done, which is then given as long to help."""
        now = self._clock()
        since = self._since(seen, now)
        self.idle_s = now - since
        due = now - max(since, self._judged_at) > self._limit_s
        if due:
            self._judged_at = now
        return due

    def _since(self, seen: Seen, now: float) -> float:
        """Since when the partition stands that stands longest, or nothing is assigned."""
        if seen.places is None:
            return min([self._assigned_at, *(one.since for one in self._standing.values())])
        self._assigned_at = now
        for number, place in seen.places.items():
            idle = seen.waiting is not None and number not in seen.waiting
            self._standing.setdefault(number, _Standing(place, now)).look(place, now, idle=idle)
        for number in self._standing.keys() - seen.places.keys():
            del self._standing[number]
        return min((one.since for one in self._standing.values()), default=now)


class Watchdog:
    """Watches *group*, and measures what its tasks tell of themselves."""

    def __init__(self, group: Group, cluster: Cluster) -> None:
        self.lag: int | None = None  #: records not yet processed, None where that is not known now
        self.stuck: str | None = None  #: why the process has to end
        self._group = group
        self._cluster = cluster
        self._stage = group.unit.stage.name
        self._patience = Patience(cluster.settings.watchdog_s)
        self._lags: dict[int, int] | None = None
        self._read_at = 0.0
        self._rejoined = False  # since it stands, though Kafka answered
        self._oldest_ms: dict[int, int] = {}

    @property
    def idle(self) -> str | None:
        """Says that the stage stands, where it does so for longer than it may."""
        if not self._patience.spent:
            return None
        return f"no progress for {self._patience.idle_s:.0f} s"

    async def run(self) -> None:
        """
        Watch until cancelled.

        Raises:
            Stuck: the stage makes no progress though Kafka answers.
        """
        while self._group.failed is None:
            await self._measure()
            if self._patience.look(self._seen()):
                await self._act()
            self._rejoined = self._rejoined and self._patience.spent
            self._cluster.metrics.idle.labels(self._stage).set(self._patience.idle_s)
            await asyncio.sleep(LOOK_S)

    async def _measure(self) -> None:
        try:
            self._lags = await self._group.lag()
        except BrokerError as error:
            _log.debug("lag.unknown", stage=self._stage, error=str(error))
            if time.monotonic() - self._read_at > FRESH_S:
                self._lags = self.lag = None
        else:
            self._read_at = time.monotonic()
            self.lag = sum(self._lags.values())
            self._cluster.metrics.lag_read.labels(self._stage).set_to_current_time()
        for number, task in self._group.tasks.items():
            self._gauge(number, task)

    def _gauge(self, number: int, task: Task) -> None:
        metrics, labels = self._cluster.metrics, (self._stage, str(number))
        metrics.inbox.labels(*labels).set(len(task.inbox))
        if self._lags is not None and number in self._lags:
            metrics.lag.labels(*labels).set(self._lags[number])
            metrics.lag_seconds.labels(*labels).set(self._behind_s(number, task, self._lags[number]))
        if task.unit.stage.stores:
            metrics.store_bytes.labels(*labels).set(task.store_bytes)

    def _behind_s(self, number: int, task: Task, lag: int) -> float:
        """The age of the oldest record that waits; of one that was not fetched yet, since it is known of."""
        if lag == 0:
            self._oldest_ms.pop(number, None)
            return 0.0
        now = time.time_ns() // 1_000_000
        oldest = task.inbox.oldest_ms
        if oldest is None:
            oldest = self._oldest_ms.get(number, now)
        self._oldest_ms[number] = oldest
        return max(0, now - oldest) / 1000

    def _seen(self) -> Seen:
        tasks = self._group.tasks
        if not self._group.assigned:
            return Seen(None, None)
        places = {number: _place(task) for number, task in tasks.items()}
        if self._lags is None:
            return Seen(places, None)
        waiting = (number for number, task in tasks.items() if self._lags.get(number) or _is_busy(task))
        return Seen(places, frozenset(waiting))

    async def _act(self) -> None:
        idle_s = round(self._patience.idle_s)
        if not await self._kafka_answers():
            self._rejoined = False  # whatever was tried before, Kafka's absence has undone it
            return
        if self._rejoined:
            self.stuck = (
                f"{self._stage} made no progress for {idle_s} s, with fresh clients neither, "
                "though Kafka answers: this process ends, to be started anew"
            )
            raise Stuck(self.stuck)
        _log.error("stage.stuck", stage=self._stage, idle_s=idle_s)
        self._cluster.metrics.rejoins.labels(self._stage).inc()
        self._rejoined = True
        self._group.rejoin()

    async def _kafka_answers(self) -> bool:
        """Whether a fresh client learns the ends of all that the stage reads."""
        cluster = self._cluster
        try:
            async with asyncio.timeout(2 * cluster.settings.request_timeout_ms / 1000):
                async with reading(cluster.connection, self._group.topics, cluster.partitions) as reader:
                    await reader.ends()
        except (BrokerError, TimeoutError) as error:
            idle_s = round(self._patience.idle_s)
            _log.warning("kafka.away", stage=self._stage, idle_s=idle_s, error=str(error))
            return False
        return True


def _place(task: Task) -> Place:
    committed = task.next_offsets
    return Place(sum(committed.values()) if committed else None, task.reached or None)


def _is_busy(task: Task) -> bool:
    """Whether it has something to finish; one that neither reads nor keeps anything shows no position."""
    shows = task.unit.reads or task.unit.stage.stores
    return task.state != "working" or bool(shows and not task.idle)
