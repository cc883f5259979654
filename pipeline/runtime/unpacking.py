"""
Lets a consumer return records as they were unpacked, without an object of ten fields around each.

aiokafka makes a ``ConsumerRecord`` of every record, which costs more than unpacking it did. What its
compiled parser returns has offset, timestamp, key, value and headers already: a
`pipeline.codec.Fetched`. It needs a private part of aiokafka: here and nowhere else.
"""

from collections import OrderedDict
from typing import Any

from aiokafka import AIOKafkaConsumer

__all__ = ["unpack_only"]


class _Fetched(OrderedDict[Any, Any]):
    """What was fetched and not returned yet, by partition."""

    def __setitem__(self, place: Any, result: Any) -> None:
        records = getattr(result, "_partition_records", None)  # there is none in an error
        if records is not None:
            records._consumer_record = _as_it_is  # noqa: SLF001
        super().__setitem__(place, result)


def unpack_only(consumer: AIOKafkaConsumer) -> None:
    """From now on ``getmany`` of the started *consumer* returns `pipeline.codec.Fetched` records."""
    fetcher = consumer._fetcher  # noqa: SLF001
    fetched = _Fetched()
    for place, result in fetcher._records.items():  # noqa: SLF001
        fetched[place] = result
    fetcher._records = fetched  # noqa: SLF001


def _as_it_is(_: Any, record: Any) -> Any:
    return record
