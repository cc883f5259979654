"""Where a group begins that has not committed anything yet: earliest, latest, a time, or offsets."""

import logging
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal, TypeAlias

from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.errors import ConfigError

__all__ = ["Start", "checked", "positions"]

#: ``earliest``, ``latest``, an aware time (by Kafka's timestamps), or offsets by partition.
Start: TypeAlias = Literal["earliest", "latest"] | datetime | Mapping[int, int]

_log = logging.getLogger(__name__)


def checked(start: Start) -> Start:
    """
    *start*, which can be used.

    Raises:
        ConfigError: it cannot.
    """
    if isinstance(start, datetime):
        if start.tzinfo is None:
            raise ConfigError("start: a time needs its zone, such as datetime(2030, 1, 10, tzinfo=UTC)")
    elif isinstance(start, Mapping):
        wrong = [
            f"start: {place}: {offset}: offsets are 0 or more"
            for place, offset in start.items()
            if offset < 0
        ]
        if wrong:
            raise ConfigError(wrong)
    elif start not in {"earliest", "latest"}:
        raise ConfigError(
            f"start: {start!r}; allowed: earliest, latest, an aware datetime, {{partition: offset}}"
        )
    return start


async def positions(
    consumer: AIOKafkaConsumer, places: Iterable[TopicPartition], start: Start
) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
    """
    Where to read each of *places*, and which of those begin anew: the group has committed nothing.

    A time is found by Kafka's index, in which the ends of transactions count as well: records before it may
    come first. An offset that retention has removed becomes the earliest there is, and the log tells how
    many are missed.

    Raises:
        ConfigError: an offset of *start* is past the end.
    """
    listed = list(places)
    begins = await consumer.beginning_offsets(listed)
    found: dict[TopicPartition, int] = {}
    for place in listed:
        committed = await consumer.committed(place)
        if committed is not None:
            found[place] = committed
    new = await _begun(consumer, [place for place in listed if place not in found], start, begins)
    told = {place: max(offset, begins[place]) for place, offset in (found | new).items()}
    for place, offset in (found | new).items():
        if offset < told[place]:
            where = (place.topic, place.partition, offset, told[place])
            _log.warning("records.missed topic=%s partition=%d offset=%d earliest=%d", *where)
    return told, {place: told[place] for place in new}


async def _begun(
    consumer: AIOKafkaConsumer,
    places: list[TopicPartition],
    start: Start,
    begins: Mapping[TopicPartition, int],
) -> dict[TopicPartition, int]:
    if not places or start == "earliest":
        return {place: begins[place] for place in places}
    ends = await consumer.end_offsets(places)
    if start == "latest":
        return dict(ends)
    if isinstance(start, datetime):
        at_ms = max(0, int(start.timestamp() * 1000))
        times = await consumer.offsets_for_times(dict.fromkeys(places, at_ms))
        return {place: times[place].offset if times.get(place) else ends[place] for place in places}
    given = {place: start.get(place.partition, begins[place]) for place in places}
    past = [
        f"start: partition {place.partition}: {offset} is past the end, {ends[place]}"
        for place, offset in given.items()
        if offset > ends[place]
    ]
    if past:
        raise ConfigError(past)
    return given
