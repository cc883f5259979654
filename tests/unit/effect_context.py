"""An `EffectContext` in memory: state as the runtime keeps it, outputs as records, time as a parameter."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from pipeline.codec import Codec, Output
from pipeline.effects import Change
from pipeline.errors import BrokerError
from pipeline.runtime.batch import stores_of
from pipeline.runtime.state import Layers, Memory
from pipeline.stage import Event, Outcome, Stage, Stores
from pipeline.topics import load as load_topics

START_MS = 1_893_456_000_000  # 2030-01-01T00:00:00Z


class MemoryContext:
    """The context of one task of *stage*; every commit stands at once, or fails by *failing*."""

    def __init__(self, stage: Stage, *, partition: int = 0, partitions: int = 1) -> None:
        self.partition = partition
        self.partitions = partitions
        self.now_ms = START_MS
        self.outputs: list[Output] = []
        self.commits: list[Outcome] = []
        self.failing = 0  #: how many of the next commits fail
        self._backend = Memory()
        self._layers = Layers(partition, stores_of(stage), self._backend)
        self._codec = Codec(load_topics(), partitions)
        self._stage = stage

    @property
    def read(self) -> Stores:
        """The committed state."""
        return Layers(self.partition, stores_of(self._stage), self._backend)

    async def commit(self, change: Change, *, cause: Event[Any] | None = None) -> None:
        """Commit *change* whole, or nothing of it."""
        await asyncio.sleep(0)
        if self.failing:
            self.failing -= 1
            raise BrokerError("committing a transaction: TimeoutError")
        outcome = change(self.read) if callable(change) else change
        begun: Event[Any] = Event(topic="", key="", value=None, id="begun", received_at=self.now_ms)
        outputs = [o for emit in outcome.emit for o in self._codec.encode(emit, cause or begun, "effect", 0)]
        self._layers.push()
        self._layers.write(outcome.writes)
        self._backend.apply(self._layers.changes())
        self._layers.committed()
        self.outputs += outputs
        self.commits.append(outcome)

    async def changed(self) -> None:
        """Nothing that is tested with it waits for changes."""
        raise NotImplementedError

    def now(self) -> int:
        """The time that the test has set."""
        return self.now_ms


class Sleeper:
    """
    Lets *context*'s time pass at once, and cancels whoever sleeps when *done* holds or time is up.

    ``slept`` is what was slept, in seconds.
    """

    def __init__(self, context: MemoryContext, done: Callable[[], bool], most: int = 10_000) -> None:
        self._context = context
        self._done = done
        self._most = most
        self.slept: list[float] = []

    async def __call__(self, seconds: float) -> None:
        """Sleep *seconds* of the context's time."""
        await asyncio.sleep(0)
        if self._done() or len(self.slept) >= self._most:
            raise asyncio.CancelledError
        self.slept.append(seconds)
        self._context.now_ms += round(seconds * 1000)


def values(outputs: Iterable[Output]) -> list[bytes | None]:
    """The values of *outputs*."""
    return [output.value for output in outputs]
