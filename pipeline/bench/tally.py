"""
Count the events of each key, and pass each event on with its count.

Reads    any topic of JSON objects with the fields of `Event`; key: whatever is counted
Writes   ``<topic>.out``  the event with its count, key and time as they were
State    the count per key, restored from the store's changelog
Time     none
Repeats  a record that comes twice counts twice: the work has no identity of its own
"""

from collections.abc import Callable
from typing import Any

import msgspec

from pipeline import stage
from pipeline.instants import Time, from_ms
from pipeline.stage import Emit, Outcome, Put, Stage, Store, Stores

__all__ = ["COUNTED", "COUNTS", "EVENT", "TYPES", "Counted", "Event", "tally"]

#: The ``ce_type`` of what is read, and of what is written.
EVENT, COUNTED = "bench.event.v1", "bench.counted.v1"

#: How many events of a key have been counted.
COUNTS: Store[int] = Store("counts", int)


class Event(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """What a record must hold; whatever else it holds is ignored."""

    event_id: str | int
    type: str
    account_id: str | int
    occurred_at: str | int  #: RFC 3339, or ms since 1970
    payload: dict[str, Any]


class Counted(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """An `Event`, the *count*-th of its key."""

    event_id: str | int
    type: str
    account_id: str | int
    occurred_at: str | int
    payload: dict[str, Any]
    count: int


#: What the codec of this work knows.
TYPES: dict[str, type[msgspec.Struct]] = {EVENT: Event, COUNTED: Counted}


def tally(name: str, source: str, target: str) -> Stage:
    """The stage *name*, which counts what stands on *source* and writes to *target*."""
    return Stage(name=name, inputs=(source,), outputs=(target,), stores=(COUNTS,), step=counting(target))


def counting(target: str) -> Callable[[Stores, stage.Event[Event]], Outcome]:
    """The step that writes to *target*."""

    def step(read: Stores, event: stage.Event[Event]) -> Outcome:
        value, key = event.value, event.key
        count = (read.get(COUNTS, key) or 0) + 1
        at = value.occurred_at
        counted = Counted(value.event_id, value.type, value.account_id, at, value.payload, count)
        occurred_at = Time(at) if isinstance(at, str) else from_ms(at)
        return Outcome(
            writes=(Put(COUNTS, key, count),), emit=(Emit(target, key, counted, occurred_at=occurred_at),)
        )

    return step
