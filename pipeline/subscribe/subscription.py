"""Typed records of one topic, each alone or in batches; the one before is done when the next is asked for."""

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Generic, Literal, Self, TypeAlias, TypeVar, final

from pipeline.codec import Codec
from pipeline.codec import Record as Encoded
from pipeline.errors import ConfigError, RecordError
from pipeline.subscribe.feed import Feed
from pipeline.subscribe.progress import Ends
from pipeline.subscribe.record import Fetched, Record, Unreadable
from pipeline.subscribe.selection import Selection
from pipeline.subscribe.transaction import Outgoing, Transaction

__all__ = ["Errors", "Subscription"]

T = TypeVar("T")

_log = logging.getLogger(__name__)

#: What is done about a record that cannot be read: ``raise``, or skip it once the function was told.
Errors: TypeAlias = Literal["raise"] | Callable[[Unreadable], None]


@final
class Subscription(Generic[T]):
    """
    The records of a topic that one member of a group gets; use it with ``async with``, in one task at a time.

    A record is done when the next is asked for, or when the block ends without an exception. Only what is
    done is committed: whatever happens, the next start begins with a record that was not done.
    """

    def __init__(
        self,
        feed: Feed,
        codec: Codec,
        topic: str,
        selection: Selection,
        errors: Errors,
        *,
        exactly_once: bool,
    ) -> None:
        self.topic = topic
        self._feed = feed
        self._codec = codec
        self._selection = selection
        self._errors = errors
        self._exactly_once = exactly_once
        self._held: list[Record[T]] = []
        self._written = False
        self._failure: Exception | None = None
        self._end_told = False

    async def __aenter__(self) -> Self:
        await self._feed.open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._feed.progress.finish()
        else:
            self._feed.progress.abandon()
        await self._feed.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Record[T]:
        (record,) = await self._next(1, 0.0)
        return record

    async def batches(
        self, max_records: int = 500, max_wait_s: float = 1.0
    ) -> AsyncIterator[list[Record[T]]]:
        """
        Lists of up to *max_records*; a shorter one when its first record has waited for *max_wait_s*.

        All of a list is done when the next is asked for. With ``exactly_once`` each is of one partition.
        """
        while True:
            try:
                batch = await self._next(max_records, max_wait_s)
            except StopAsyncIteration:
                return
            yield batch

    async def commit(self) -> None:
        """Make durable at once that what was handed out so far is done, the record in hand included."""
        self._feed.progress.finish()
        self._written = True
        await self._feed.commit()

    def transaction(self) -> Transaction:
        """
        What is written in its block and the offsets of what is in hand become durable together, or not at
        all.

        Raises:
            ConfigError: the subscription is not ``exactly_once``, or nothing is in hand.
        """
        if not self._exactly_once:
            raise ConfigError("transaction: subscribe with exactly_once=True")
        if not self._held or self._written:
            raise ConfigError("transaction: there is one for each record or batch, while it is in hand")
        return Transaction(self._write, self._held[0].trace if len(self._held) == 1 else "")

    async def _write(self, outgoing: list[Outgoing]) -> bool:
        self._written = True
        return await self._feed.write(outgoing)

    async def _next(self, most: int, wait_s: float) -> list[Record[T]]:
        feed = self._feed
        feed.progress.finish()
        self._held, self._written = [], False
        while not self._held:
            if self._failure is not None:
                raise self._failure
            if not await feed.arrivals.wait(most, wait_s):
                raise StopAsyncIteration
            # From here to the return nothing is awaited: a cancellation finds records waiting, or handed out.
            taken, ends = feed.arrivals.buffer.take(most, of_one=self._exactly_once)
            self._held = self._readable(taken, ends)
            feed.progress.hand(ends, {fetched.partition for fetched in taken})
            if not self._held:
                feed.progress.finish()
        return self._held

    def _readable(self, taken: list[Fetched], ends: Ends) -> list[Record[T]]:
        """The wanted records of *taken*; where one cannot be read, those before it, and *ends* likewise."""
        held: list[Record[T]] = []
        for place, fetched in enumerate(taken):
            try:
                record = self._read(fetched)
            except Exception as error:  # noqa: BLE001 - raised when the next is asked for
                self._failure = error
                for later in taken[place:]:
                    ends.pop(later.partition, None)
                ends[fetched.partition] = fetched.offset
                break
            if record is not None:
                held.append(record)
        return held

    def _read(self, fetched: Fetched) -> Record[T] | None:
        """The record that *fetched* holds, None if it is not wanted."""
        try:
            event = self._codec.decode(Encoded(self.topic, *fetched))
            if event.headers and not self._end_told:
                self._tell_end(event.headers)
            if not self._selection.holds(event):
                return None
        except RecordError as error:
            told = Unreadable(self.topic, fetched, error)
            if self._errors == "raise":
                raise told from error
            self._errors(told)
            return None
        return Record(
            topic=self.topic,
            partition=fetched.partition,
            offset=fetched.offset,
            timestamp_ms=fetched.timestamp,
            decoded=event,
            raw_headers=tuple(fetched.headers),
        )

    def _tell_end(self, headers: Mapping[str, str]) -> None:
        """Warn once of a topic that will end; its records say when, and what to read instead."""
        if "ce_sunset" in headers:
            self._end_told = True
            end, instead = headers["ce_sunset"], headers.get("ce_successor", "")
            _log.warning("topic.ends topic=%s at=%s successor=%s", self.topic, end, instead)
