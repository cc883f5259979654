"""The rows of a table: key -> value, and what changes of them; plain values without a broker."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Generic, Self, TypeVar, final
from weakref import WeakSet

import msgspec

from pipeline.codec import Codec
from pipeline.codec import Record as Encoded
from pipeline.errors import BrokerError, RecordError
from pipeline.subscribe.record import Fetched, Unreadable
from pipeline.subscribe.selection import Selection
from pipeline.subscribe.subscription import Errors

__all__ = ["Change", "Changes", "Read", "Rows", "reader"]

T = TypeVar("T")

#: Key and value of a record, None as the value of a tombstone; None if the record is not wanted.
Read = Callable[[Fetched], tuple[str, Any] | None]


@final
class Change(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """What became of *key*: None stands for no row."""

    key: str
    before: T | None
    after: T | None


def reader(codec: Codec, topic: str, selection: Selection, errors: Errors) -> Read:
    """What reads a record of *topic*; it raises `Unreadable` unless *errors* says otherwise."""

    def read(fetched: Fetched) -> tuple[str, Any] | None:
        if not selection.may_hold(fetched):
            return None
        try:
            event = codec.decode(Encoded(topic, *fetched))
        except RecordError as error:
            told = Unreadable(topic, fetched, error)
            if errors == "raise":
                raise told from error
            errors(told)
            return None
        return (event.key, event.value)

    return read


class Rows:
    """The rows; whoever follows them is told of each change, once for each key that they have not taken."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.ready = asyncio.Event()
        self._failure: Exception | None = None
        self._values: dict[str, Any] = {}
        self._followers: WeakSet[Changes[Any]] = WeakSet()

    @property
    def values(self) -> Mapping[str, Any]:
        """
        The rows as they are.

        Raises:
            BrokerError: the snapshot is not complete, or they are kept current no more.
        """
        self.check()
        if not self.ready.is_set():
            raise BrokerError(f"{self.topic}: the snapshot is not complete; await ready() first")
        return self._values

    def check(self) -> None:
        """Raise what ended the reading, if anything did."""
        if self._failure is not None:
            raise self._failure

    def put(self, key: str, value: Any) -> None:
        """The row of *key* is *value* now; None removes it."""
        before = self._values.get(key)
        if value is None:
            self._values.pop(key, None)
        else:
            self._values[key] = value
        for follower in self._followers:
            follower.note(key, before)

    def replace(self, values: dict[str, Any]) -> None:
        """A whole new snapshot; what differs from the one before is told as changes."""
        if self.ready.is_set():
            for key in self._values.keys() - values.keys():
                self.put(key, None)
            for key, value in values.items():
                if self._values.get(key) != value:
                    self.put(key, value)
        else:
            self._values = values
        self.ready.set()

    def fail(self, error: Exception) -> None:
        """The rows are kept current no more."""
        self._failure = error
        self.ready.set()
        for follower in self._followers:
            follower.wake()

    def follow(self) -> "Changes[Any]":
        """What changes from now on."""
        follower: Changes[Any] = Changes(self)
        self._followers.add(follower)
        return follower


class Changes(Generic[T]):
    """The changes since it was made, by the first of each key; several of one key become one."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._waiting: dict[str, T | None] = {}  # key -> its row before
        self._changed = asyncio.Event()

    def note(self, key: str, before: T | None) -> None:
        """The row of *key*, *before* until now, is another."""
        self._waiting.setdefault(key, before)
        self._changed.set()

    def wake(self) -> None:
        """Look whether there is anything."""
        self._changed.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change[T]:
        while True:
            while self._waiting:
                key = next(iter(self._waiting))
                before, after = self._waiting.pop(key), self._rows.values.get(key)
                if before != after:
                    return Change(key=key, before=before, after=after)
            self._rows.check()
            self._changed.clear()
            await self._changed.wait()
