"""
The contract between the pure core and the runtime.

A stage is a value: its name, its inputs and outputs, its stores and a function ``step``. A step
neither awaits, logs, reads a clock nor knows Kafka. It reads its stores, looks at one event and
returns an `Outcome`; the runtime writes what the outcome holds, and applies it to the stores by
the same code that restores them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, final

import msgspec

from pipeline.instants import Time

__all__ = [
    "NOTHING",
    "Cursor",
    "Delete",
    "Emit",
    "Event",
    "Outcome",
    "Posted",
    "Put",
    "Reject",
    "Stage",
    "Store",
    "Stores",
    "Write",
]

T = TypeVar("T")


@final
class Store(msgspec.Struct, Generic[T], frozen=True):
    """
    A named key-value store of one stage: text keys in byte order, values of *type*.

    ``changelog`` names the compacted topic behind it; empty means ``<app>.<stage>.<name>.changelog``.
    """

    name: str
    type: Any
    changelog: str = ""


class Stores(Protocol):
    """What a step may read; sees the writes of earlier steps of the same uncommitted batch."""

    @property
    def partition(self) -> int:
        """The number of this task's partition."""
        ...

    def get(self, store: Store[T], key: str) -> T | None:
        """The value under *key*, None where there is none."""
        ...

    def scan(self, store: Store[T], start: str, end: str, limit: int = 500) -> Iterator[tuple[str, T]]:
        """At most *limit* entries with ``start <= key < end`` in key order."""
        ...


@final
class Event(msgspec.Struct, Generic[T], frozen=True, kw_only=True, gc=False):
    """One decoded input record."""

    topic: str  #: as `topics.yaml` names it
    key: str
    value: T  #: the typed value; None for a tombstone
    type: str = ""  #: ``ce_type``
    id: str = ""  #: ``ce_id``
    received_at: int = 0  #: ms since 1970; the record's Kafka timestamp
    occurred_at: Time = Time("")  #: ``ce_time``
    traceparent: str = ""  #: W3C trace context
    backfill: bool = False  #: fetched as history, never late
    headers: Mapping[str, str] = {}  #: whatever else the record carried


@final
class Put(msgspec.Struct, frozen=True, gc=False):
    """Set *key* of *store* to *value*."""

    store: Store[Any]
    key: str
    value: Any


@final
class Delete(msgspec.Struct, frozen=True, gc=False):
    """Remove *key* from *store*."""

    store: Store[Any]
    key: str


Write: TypeAlias = Put | Delete


@final
class Emit(msgspec.Struct, frozen=True, gc=False):
    """
    Write one record to *topic*.

    *value* None is a tombstone. *id* is its ``ce_id``; left empty it is derived: of table records
    from key and content, of others from stage, cause, topic and index. *occurred_at* is its
    ``ce_time``; left empty it is the time its cause was received. Timestamp, ``traceparent`` and the
    backfill mark are the cause's. The partition follows from the key, as `topics.yaml` says.
    """

    topic: str
    key: str
    value: Any
    id: str = ""
    occurred_at: Time = Time("")
    subject: str = ""
    headers: tuple[tuple[str, str], ...] = ()


@final
class Reject(msgspec.Struct, frozen=True, gc=False):
    """Dead-letter the input record besides whatever else the outcome holds."""

    reason: str
    error: str = ""


@final
class Cursor(msgspec.Struct, frozen=True, gc=False):
    """Where a large fan-out stands: *job* names it, *at* is the next key or whatever the stage wants."""

    job: str
    at: str = ""


@final
class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What one step or resume amounts to; all of it happens, or none."""

    writes: tuple[Write, ...] = ()
    emit: tuple[Emit, ...] = ()
    reject: tuple[Reject, ...] = ()
    more: tuple[Cursor, ...] = ()  #: kept by the runtime and given to ``resume`` between batches
    postings: tuple[Any, ...] = ()  #: given to ``add_up`` with those of other steps, before the batch ends


NOTHING = Outcome()

#: A posting and the event whose step made it.
Posted: TypeAlias = tuple[Event[Any], Any]


@final
class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """
    One stage of the topology.

    *inputs* are in the order in which records of equal timestamp are taken: tables before events.
    Each stage also reads ``<name>.redrive``. *step* may raise `RecordError`: the record is
    dead-lettered with nothing written. *resume* goes on with a `Cursor`, at most 500 outputs a call.
    *add_up* makes outcomes of the postings of several steps, each with the event it came from, so that
    what many records add to is read, added to and written once; each outcome is told with the event that
    caused it. Steps don't see what is still to be added up of their own topic; of others they see all.
    However postings are split into calls, the state ends equal.
    *gather_s* is for a stage whose outputs nobody waits for: a batch that is not full is committed no sooner
    than so many seconds after the one before, which spares Kafka transactions.
    *state_version* is raised when stored values change their meaning: stores are then rebuilt.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    stores: tuple[Store[Any], ...] = ()
    step: Callable[[Stores, Event[Any]], Outcome]
    resume: Callable[[Stores, Cursor], Outcome] | None = None
    add_up: Callable[[Stores, Sequence[Posted]], Iterable[tuple[Event[Any], Outcome]]] | None = None
    gather_s: float = 0.0
    state_version: int = 1
