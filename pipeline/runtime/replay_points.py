"""Where in a topic a time or an offset is, and whether retention still holds what was asked for."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import final

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.errors import ConfigError
from pipeline.instants import from_ms, parse, to_ms
from pipeline.runtime.transaction import broker_errors

__all__ = ["TIMEOUT_S", "Held", "Point", "ends_at", "held", "offset_of", "point"]

#: Bound of one look at the cluster, in seconds.
TIMEOUT_S = 30.0


@final
class Point(msgspec.Struct, frozen=True):
    """A place in every partition: a time, an offset, or neither for the earliest record there is."""

    time_ms: int | None = None
    offset: int | None = None


@final
class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What a partition holds now: its first offset, the one after its last, and the first record's time."""

    begin: int
    end: int
    first_ms: int | None = None  #: None where it is empty

    @property
    def lost(self) -> bool:
        """Whether records were removed from its beginning."""
        return self.begin > 0


def point(text: str, field: str) -> Point:
    """
    The place that *text* means: ``earliest``, an offset, or an RFC 3339 time.

    Raises:
        ConfigError: it is none of them.
    """
    if text == "earliest":
        return Point()
    if text.isdecimal():
        return Point(offset=int(text))
    try:
        return Point(time_ms=to_ms(parse(text)))
    except ValueError:
        raise ConfigError(
            f"{field}: {text!r} is no place; allowed: earliest, an offset, a time (2030-01-10T12:00:00Z)"
        ) from None


async def held(consumer: AIOKafkaConsumer, places: Iterable[TopicPartition]) -> dict[TopicPartition, Held]:
    """
    What each of *places* holds.

    Raises:
        BrokerError: Kafka does not answer.
    """
    wanted = list(places)
    with broker_errors("looking at what topics hold"):
        async with asyncio.timeout(TIMEOUT_S):
            begins = await consumer.beginning_offsets(wanted)
            ends = await consumer.end_offsets(wanted)
            firsts = await consumer.offsets_for_times(dict.fromkeys(wanted, 0))
    return {
        place: Held(
            begin=begins[place], end=ends[place], first_ms=firsts[place].timestamp if firsts[place] else None
        )
        for place in wanted
    }


async def offset_of(
    consumer: AIOKafkaConsumer,
    found: Mapping[TopicPartition, Held],
    at: Point,
    retention_ms: Mapping[str, int | None],
) -> dict[TopicPartition, int]:
    """
    The offset of *at* in each partition of *found*; of a time, that of the first record not before it.

    Raises:
        ConfigError: retention has removed some of what comes after it; says the earliest that exists.
        BrokerError: Kafka does not answer.
    """
    _refuse_lost(found, at, retention_ms)
    if at.time_ms is not None:
        return await ends_at(consumer, found, at.time_ms)
    return {place: min(max(at.offset or 0, each.begin), each.end) for place, each in found.items()}


async def ends_at(
    consumer: AIOKafkaConsumer, found: Mapping[TopicPartition, Held], time_ms: int
) -> dict[TopicPartition, int]:
    """The offset of the first record not before *time_ms* in each partition, its end where there is none."""
    with broker_errors("looking for a time"):
        async with asyncio.timeout(TIMEOUT_S):
            at = await consumer.offsets_for_times(dict.fromkeys(found, time_ms))
    return {place: at[place].offset if at[place] else each.end for place, each in found.items()}


def _refuse_lost(
    found: Mapping[TopicPartition, Held], at: Point, retention_ms: Mapping[str, int | None]
) -> None:
    problems = []
    now_ms = time.time_ns() // 1_000_000
    for topic in sorted({place.topic for place in found}):
        lost = {place.partition: each for place, each in found.items() if place.topic == topic and each.lost}
        kept_ms = now_ms - (
            retention_ms.get(topic) or now_ms
        )  # where nothing is left, nothing older was kept
        since_ms = max((each.first_ms or kept_ms for each in lost.values()), default=0)
        below = {number: each.begin for number, each in lost.items() if (at.offset or 0) < each.begin}
        if at.time_ms is not None and at.time_ms < since_ms:
            problems.append(
                f"{topic}: retention has removed records after {from_ms(at.time_ms)};"
                f" the earliest time that exists in all partitions is {from_ms(since_ms)}"
            )
        elif at.offset is not None and below:
            earliest = ", ".join(f"{number}: {begin}" for number, begin in sorted(below.items()))
            problems.append(
                f"{topic}: retention has removed offset {at.offset}; the earliest that exist are {earliest}"
                f" (from {from_ms(since_ms)} on)"
            )
    if problems:
        raise ConfigError(problems)
