"""The bounded buffer between a group's consumer and one task."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from itertools import islice, takewhile

from pipeline.codec import Fetched

__all__ = ["Inbox"]

#: Bytes of values at which an inbox is full, however few records they are.
HIGH_BYTES = 16 * 1024 * 1024


#: Longest wait for an input whose next record is known to be there but was not fetched yet, in seconds.
PATIENCE_S = 1.0


class Inbox:
    """
    Fetched records of one task, by input; of the heads that with the smallest timestamp is taken first.

    On a tie the *rank* of the input decides.

    Records below an input's expected next offset are dropped: a seek makes Kafka send them again. While
    another input is known to have more that was not fetched yet, nothing is taken: its next record may
    be the smallest. So whoever works off a backlog joins what belongs together in time.
    """

    def __init__(
        self,
        rank: Callable[[str], int],
        high: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rank = rank
        self._high = high
        self._clock = clock
        self._awaited: frozenset[str] = frozenset()
        self._awaited_since = 0.0
        self._queues: dict[str, deque[Fetched]] = {}
        self._expected: dict[str, int] = {}
        self._count = 0
        self._bytes = 0
        self.accepting = False
        self.wake = asyncio.Event()

    def __len__(self) -> int:
        """How many records wait."""
        return self._count

    @property
    def full(self) -> bool:
        """Whether the partitions should be paused."""
        return self._count >= self._high or self._bytes >= HIGH_BYTES

    @property
    def drained(self) -> bool:
        """Whether the partitions may be resumed."""
        return self._count < self._high // 2 and self._bytes < HIGH_BYTES // 2

    @property
    def oldest_ms(self) -> int | None:
        """The Kafka timestamp of the oldest head, None where nothing is buffered."""
        return min((queue[0].timestamp for queue in self._queues.values() if queue), default=None)

    @property
    def empty(self) -> frozenset[str]:
        """The inputs of which nothing is buffered, where of others something is."""
        if not self._count:
            return frozenset()
        return frozenset(topic for topic, queue in self._queues.items() if not queue)

    @property
    def ready(self) -> bool:
        """Whether a record can be taken now."""
        if not self._count:
            return False
        if not self._awaited or self.full or self._clock() - self._awaited_since > PATIENCE_S:
            return True
        return all(self._queues[topic] for topic in self._awaited)

    def await_(self, topics: Collection[str]) -> None:
        """Take nothing until there is something of each of *topics*, which are known to have more."""
        awaited = frozenset(topics)
        if awaited and not self._awaited:
            self._awaited_since = self._clock()
        self._awaited = awaited
        if self.ready:
            self.wake.set()

    def expect(self, offsets: dict[str, int]) -> None:
        """Begin anew: nothing is buffered, and each input goes on at its offset."""
        self._queues = {topic: deque() for topic in offsets}
        self._expected = dict(offsets)
        self._awaited = frozenset(offsets) if len(offsets) > 1 else frozenset()
        self._awaited_since = self._clock()
        self._count = 0
        self._bytes = 0
        self.accepting = True

    def close(self) -> None:
        """Take no more, and forget what is buffered."""
        self.accepting = False
        self._awaited = frozenset()
        self._queues = {}
        self._count = 0
        self._bytes = 0

    def put(self, topic: str, records: Sequence[Fetched]) -> None:
        """Buffer fetched *records* of one input, which are in the order of their offsets."""
        queue = self._queues.get(topic)
        if not self.accepting or queue is None or not records:
            return
        expected = self._expected[topic]
        if records[0].offset < expected:
            records = [record for record in records if record.offset >= expected]
            if not records:
                return
        queue.extend(records)
        self._expected[topic] = records[-1].offset + 1
        self._count += len(records)
        self._bytes += _size(records)
        self.wake.set()

    def take(self, most: int) -> tuple[str, list[Fetched], int] | None:
        """
        The input and records to process next, at most *most*, and their share of the bytes of all.

        None when nothing waits or another has to be awaited.
        """
        if not self.ready:
            return None
        filled = [topic for topic, queue in self._queues.items() if queue]
        first = min(filled, key=self._head) if len(filled) > 1 else filled[0]
        queue = self._queues[first]
        if len(filled) > 1:
            # up to where the head of another input has its turn
            bound = min(self._head(topic) for topic in filled if topic != first)
            most = sum(1 for _ in takewhile(self._before(first, bound), islice(queue, most)))
        run = [queue.popleft() for _ in range(min(most, len(queue)))]
        size = self._bytes * len(run) // self._count
        self._count -= len(run)
        self._bytes -= size
        return first, run, size

    def _head(self, topic: str) -> tuple[int, int]:
        return self._queues[topic][0].timestamp, self._rank(topic)

    def _before(self, topic: str, bound: tuple[int, int]) -> Callable[[Fetched], bool]:
        rank = self._rank(topic)
        return lambda record: (record.timestamp, rank) < bound


def _size(records: Sequence[Fetched]) -> int:
    return sum([len(record.value) for record in records if record.value])
