"""
What was fetched and not yet handed out, and how far processing has come: plain values without a broker.

`Buffer` holds records by partition, in order; what is not wanted takes no room. `Progress` knows what is in
the subscriber's hand and what is done: only that may be committed.
"""

import asyncio
import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping

from pipeline.subscribe.record import Fetched

__all__ = ["Buffer", "Ends", "Progress"]

#: Partition -> the offset to commit next.
Ends = dict[int, int]


class Buffer:
    """Records in order of their partition; partitions take turns."""

    def __init__(self) -> None:
        self.ready = 0  #: records that can be taken
        self.size = 0  #: bytes of their values
        self._queues: dict[int, deque[Fetched | int]] = {}  # an int: nothing wanted up to this offset
        self._turns: deque[int] = deque()

    def put(self, fetched: Fetched, *, wanted: bool) -> None:
        """Add the next record of its partition; one that is not *wanted* only moves the offset on."""
        queue = self._queues.get(fetched.partition)
        if queue is None:
            queue = self._queues[fetched.partition] = deque()
            self._turns.append(fetched.partition)
        if wanted:
            queue.append(fetched)
            self.ready += 1
            self.size += _size(fetched)
        elif queue and isinstance(queue[-1], int):
            queue[-1] = fetched.offset + 1
        else:
            queue.append(fetched.offset + 1)

    def take(self, most: int, *, of_one: bool = False) -> tuple[list[Fetched], Ends]:
        """
        Up to *most* records, *of_one* partition if asked, and how far each partition is passed with them.

        Offsets of records that are not wanted are passed as well.
        """
        records: list[Fetched] = []
        ends: Ends = {}
        for _ in range(len(self._turns)):
            if len(records) >= most or (of_one and records):
                break
            partition = self._turns[0]
            end = self._taken(self._queues[partition], most - len(records), records)
            if end is not None:
                ends[partition] = end
            self._turns.rotate(-1)
        self.ready -= len(records)
        self.size -= sum(map(_size, records))
        return records, ends

    def holds(self) -> bool:
        """Whether there is anything to take, offsets alone included."""
        return any(self._queues.values())

    def clear(self, partitions: Iterable[int] | None = None) -> None:
        """Forget what waits of *partitions*, by default of all."""
        for partition in list(self._queues) if partitions is None else partitions:
            queue = self._queues.pop(partition, None)
            if queue is not None:
                records = [each for each in queue if not isinstance(each, int)]
                self.ready -= len(records)
                self.size -= sum(map(_size, records))
                self._turns.remove(partition)

    @staticmethod
    def _taken(queue: deque[Fetched | int], most: int, records: list[Fetched]) -> int | None:
        end = None
        while queue and (most or isinstance(queue[0], int)):
            head = queue.popleft()
            if isinstance(head, int):
                end = head
            else:
                records.append(head)
                most -= 1
                end = head.offset + 1
        return end


def _size(fetched: Fetched) -> int:
    return len(fetched.value or b"")


class Progress:
    """What is in the subscriber's hand, and what is done and not yet committed."""

    def __init__(self) -> None:
        self.done: Ends = {}
        self.in_hand: Ends = {}
        self.handed_at = 0.0  #: by the monotonic clock
        self.idle = asyncio.Event()
        self.idle.set()

    def hand(self, ends: Mapping[int, int], partitions: Collection[int]) -> None:
        """The subscriber now has records of *partitions*, up to *ends*; elsewhere nothing was wanted."""
        for partition, end in ends.items():
            (self.in_hand if partition in partitions else self.done)[partition] = end
        self.handed_at = time.monotonic()
        if self.in_hand:
            self.idle.clear()

    def finish(self) -> None:
        """What was in hand is processed."""
        self.done.update(self.in_hand)
        self.in_hand.clear()
        self.idle.set()

    def committed(self, ends: Mapping[int, int]) -> None:
        """*ends* are durable."""
        for waiting in (self.done, self.in_hand):
            for partition in [each for each, end in waiting.items() if end <= ends.get(each, -1)]:
                del waiting[partition]
        if not self.in_hand:
            self.idle.set()

    def abandon(self) -> None:
        """What was in hand is not processed, and never will be here."""
        self.in_hand.clear()
        self.idle.set()

    def forget(self) -> None:
        """The partitions are somebody else's: nothing of them may be committed any more."""
        self.done.clear()
        self.in_hand.clear()
        self.idle.set()
