"""What a subscription takes its records from: a member of a consumer group, or a test's double."""

import asyncio
from typing import Protocol

from pipeline.subscribe.progress import Buffer, Progress
from pipeline.subscribe.transaction import Outgoing

__all__ = ["Arrivals", "Feed"]


class Arrivals:
    """The records that wait, and whoever waits for them."""

    def __init__(self) -> None:
        self.buffer = Buffer()
        self.failure: Exception | None = None
        self.ended = False  #: nothing will come any more
        self.most = 0  #: the largest batch that was asked for
        self.asked = asyncio.Event()  #: set whenever records are asked for; for whoever clears it
        self._changed = asyncio.Event()

    def tell(self) -> None:
        """Something has changed: a record, an offset, a failure, the end."""
        self._changed.set()

    async def wait(self, most: int, wait_s: float) -> bool:
        """
        Return when *most* records wait, or some have for *wait_s*, or offsets alone do.

        Nothing is taken out, so it may be cancelled.

        Returns:
            False at the end of all records.

        Raises:
            BrokerError: there will be none, and why.
        """
        until: float | None = None
        self.most = max(self.most, most)
        self.asked.set()
        while True:
            if self.failure is not None:
                raise self.failure
            if self.buffer.ready >= most or (self.buffer.holds() and (self.ended or not self.buffer.ready)):
                return True
            if self.ended:
                return False
            if self.buffer.ready:
                now = asyncio.get_running_loop().time()
                until = now + wait_s if until is None else until
                if now >= until:
                    return True
            self._changed.clear()
            try:
                async with asyncio.timeout_at(until):
                    await self._changed.wait()
            except TimeoutError:
                return True


class Feed(Protocol):
    """Where records come from, and where it is told what was processed."""

    @property
    def arrivals(self) -> Arrivals:
        """What has come."""
        ...

    @property
    def progress(self) -> Progress:
        """How far processing is."""
        ...

    async def open(self) -> None:
        """Begin to bring records."""
        ...

    async def close(self) -> None:
        """Commit what is done, then end; within a bound."""
        ...

    async def commit(self) -> None:
        """Make durable what is done."""
        ...

    async def write(self, outgoing: list[Outgoing]) -> bool:
        """See `pipeline.subscribe.transaction.Writer`."""
        ...
