"""
Waits until a pipeline has nothing left to do, in however many processes it runs: all is read from Kafka.

Settled is: no stage lags behind its inputs, no fan-out waits to be resumed, nothing waits to be posted, and
every poller has made two further complete scans, but for those that rest an hour or more between two. Ticks
are not waited for: there is always a next one.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from pipeline import topology
from pipeline.codec import Record
from pipeline.effects import Unit
from pipeline.errors import PipelineError
from pipeline.events import PollState
from pipeline.identity import Identity
from pipeline.runtime import names
from pipeline.runtime.admin import Admin
from pipeline.runtime.batch import CURSORS, stores_of
from pipeline.runtime.connection import Connection
from pipeline.runtime.reader import Reader, reading
from pipeline.settings import Settings
from pipeline.sinks.statistics.state import PENDING
from pipeline.sources.scan import SCHEDULE

__all__ = ["Look", "settled"]

#: Further complete scans that every poller has to make.
SCANS: Final = 2

#: A poller that scans this seldom or more so is not waited for, in seconds.
_SELDOM_S: Final = 3_600.0

_LOOK_S: Final = 0.25

#: Looks in a row that must find nothing to do: a record may be between two topics at one of them.
_QUIET_LOOKS: Final = 6

_TICKS: Final = "clock.ticks"


async def settled(
    settings: Settings, connection: Connection, partitions: int, timeout_s: float, tell: Callable[[str], None]
) -> None:
    """
    Return when nothing is left to do; *tell* is told what is, whenever that changes.

    Raises:
        PipelineError: something is after *timeout_s*; says what.
    """
    look = Look(settings.application_id, topology.units(settings, Identity(b"")))
    why = "nothing was read yet"
    try:
        async with (
            asyncio.timeout(timeout_s),
            Admin(connection.common) as admin,
            reading(connection, look.topics, partitions) as reader,
        ):
            async for record in reader.everything():
                look.take(record)
            wanted, quiet = {key: count + SCANS for key, count in look.scans.items()}, 0
            while quiet < _QUIET_LOOKS:
                found = await _looked(look, admin, reader, wanted)
                if found and found != why:
                    tell(found)
                why, quiet = found or why, 0 if found else quiet + 1
                await asyncio.sleep(_LOOK_S)
    except TimeoutError as error:
        raise PipelineError(f"not settled within {timeout_s:.0f} s: {why}") from error


async def _looked(look: "Look", admin: Admin, reader: Reader, wanted: Mapping[str, int]) -> str:
    """What is left to do, empty if nothing is."""
    committed = {stage: await admin.committed(group) for stage, group in look.groups.items()}
    # Read after the offsets: what a stage wrote until it committed them is seen.
    while records := await reader.poll():
        for record in records:
            look.take(record)
    return look.left(committed, wanted)


class Look:
    """What the topics say of the work of *units*: `take` their records, then ask what is `left`."""

    def __init__(self, application_id: str, units: Iterable[Unit]) -> None:
        reading_units = [unit for unit in units if unit.reads]
        self.groups = {u.stage.name: names.group_id(application_id, u.stage.name) for u in reading_units}
        self._inputs = {
            unit.stage.name: set(names.inputs_of(unit.stage)) - {_TICKS} for unit in reading_units
        }
        self._schedule = SCHEDULE.changelog or ""
        self._waiting = {
            names.changelog(application_id, unit.stage.name, store): f"{unit.stage.name}'s {store.name}"
            for unit in reading_units
            for store in stores_of(unit.stage)
            if store is PENDING or store is CURSORS
        }
        self.topics = sorted({*self._waiting, self._schedule, *(t for i in self._inputs.values() for t in i)})
        self.scans: dict[str, int] = {}
        self._ends: dict[tuple[str, int], int] = {}
        self._kept: dict[str, set[tuple[int, bytes | None]]] = {topic: set() for topic in self._waiting}

    def take(self, record: Record) -> None:
        """Note *record*."""
        self._ends[record.topic, record.partition] = record.offset + 1
        if record.topic == self._schedule and record.value is not None:
            state = msgspec.json.decode(record.value, type=PollState)
            if state.interval_s < _SELDOM_S:
                self.scans[(record.key or b"").decode()] = state.completed
        elif record.topic in self._kept:
            kept, place = self._kept[record.topic], (record.partition, record.key)
            kept.discard(place) if record.value is None else kept.add(place)

    def left(self, committed: Mapping[str, Mapping[tuple[str, int], int]], wanted: Mapping[str, int]) -> str:
        """What is left to do, given the offsets *committed* by each stage and the scans *wanted*."""
        awaited = [key for key, count in wanted.items() if self.scans.get(key, 0) < count]
        if awaited:
            return f"scans are awaited: {', '.join(sorted(awaited)[:3])}"
        for stage, inputs in self._inputs.items():
            if behind := self._behind(inputs, committed[stage]):
                return f"{stage} is behind by {behind} records"
        waiting = {self._waiting[topic]: len(kept) for topic, kept in self._kept.items() if kept}
        return ", ".join(f"{name}: {count}" for name, count in waiting.items())

    def _behind(self, inputs: set[str], committed: Mapping[tuple[str, int], int]) -> int:
        return sum(
            max(0, end - committed.get(place, 0)) for place, end in self._ends.items() if place[0] in inputs
        )
