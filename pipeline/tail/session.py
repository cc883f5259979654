"""Reads a topic from where it is asked to, keeps what is wanted, and hands it on until it is enough."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Final, final

import msgspec

from pipeline.codec import Record
from pipeline.errors import ConfigError
from pipeline.runtime.following import Follower
from pipeline.tail.condition import Condition

__all__ = ["MAX_NEWEST", "Session", "Span"]

#: Records that ``-n`` may ask for: so many are held in memory for each partition.
MAX_NEWEST: Final = 10_000


@final
class Span(msgspec.Struct, frozen=True, kw_only=True):
    """What of a topic is read: from *newest*, *since_ms* or *offsets*, if one is given, else from its end."""

    newest: int | None = None
    since_ms: int | None = None
    offsets: Mapping[int, int] = {}  #: partitions that are not here are not read, where any is
    until_ms: int | None = None
    follow: bool = True  #: go on with what comes


@final
class Session:
    """
    One reading of a topic; *condition* None keeps everything.

    ``read`` and ``kept`` are counts of records, ``notes`` what else is to be told of it.
    """

    def __init__(self, follower: Follower, span: Span, condition: Condition | None) -> None:
        self._follower = follower
        self._span = span
        self._condition = condition
        self.read = self.kept = 0
        self.notes: list[str] = []

    async def records(self) -> AsyncGenerator[list[Record], None]:
        """What is wanted, in pieces, some of them empty so that the caller can do something meanwhile."""
        begins = await self._begins()
        if self._span.newest is not None:
            async for records in self._follower.newest(self._span.newest, self._kept, begins):
                self.kept = len(records)  # of all that were kept on the way
                yield records
        async for records in self._followed(begins) if self._follows else self._bounded(begins):
            yield await self._kept(records)

    @property
    def _follows(self) -> bool:
        until_ms = self._span.until_ms
        return self._span.follow and (until_ms is None or until_ms > _now_ms())

    async def _followed(self, begins: Mapping[int, int]) -> AsyncIterator[list[Record]]:
        """Everything from *begins* on; when the span's time has come, up to what there is then."""
        self._follower.seek(begins)
        at = dict(begins)
        while self._follows:
            records = await self._follower.poll()
            at |= {record.partition: record.offset + 1 for record in records}
            yield records
        async for records in self._bounded(at):
            yield records

    async def _bounded(self, begins: Mapping[int, int]) -> AsyncIterator[list[Record]]:
        """Everything from *begins* up to the ends as they are now."""
        async for records in self._follower.until(begins, await self._follower.ends()):
            yield records

    async def _begins(self) -> Mapping[int, int]:
        if self._span.since_ms is not None:
            return await self._follower.at(self._span.since_ms)
        return await self._places() if self._span.offsets else await self._follower.ends()

    async def _places(self) -> Mapping[int, int]:
        """
        The offsets that were asked for; of what retention has removed the first that is there.

        Raises:
            ConfigError: there is no such partition, or it does not reach so far.
        """
        first, last = await self._follower.begins(), await self._follower.ends()
        problems, found = [], {}
        for number, offset in self._span.offsets.items():
            if number not in last:
                problems.append(f"--from: no partition {number}; there are 0 to {len(last) - 1}")
            elif offset > last[number]:
                problems.append(f"--from: partition {number} ends at {last[number]}, before {offset}")
            else:
                found[number] = max(offset, first[number])
                if offset < first[number]:
                    self.notes.append(f"partition {number} begins at {first[number]}: nothing before is kept")
        if problems:
            raise ConfigError(problems)
        return found

    async def _kept(self, records: Sequence[Record]) -> list[Record]:
        self.read += len(records)
        span = self._span
        timely = [
            record
            for record in records
            if (span.since_ms is None or record.timestamp >= span.since_ms)
            and (span.until_ms is None or record.timestamp < span.until_ms)
        ]
        found = timely
        if self._condition is not None and timely:
            found = await self._condition.matching(timely)
        self.kept += len(found)
        return found


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
