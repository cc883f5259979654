"""
Lets a consumer return records as they were unpacked, without an object of ten fields around each.

aiokafka makes a ``ConsumerRecord`` of every record, which costs more than unpacking it did, and passes each
through two generators. What its compiled parser returns has offset, timestamp, key, value and headers
already: a `pipeline.codec.Fetched`. It needs private parts of aiokafka: here and nowhere else.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer

__all__ = ["RUN_RECORDS", "unpack_only", "unpack_runs"]

#: How many records a run has at most.
RUN_RECORDS = 50


def unpack_only(consumer: AIOKafkaConsumer) -> None:
    """From now on ``getmany`` of the started *consumer* returns `pipeline.codec.Fetched` records."""
    _change(consumer, _only)


def unpack_runs(consumer: AIOKafkaConsumer) -> None:
    """
    From now on ``getmany`` of the started *consumer* returns lists of `pipeline.codec.Fetched` records.

    Each has at most `RUN_RECORDS`, and counts as one for ``max_records``. The first after a seek may begin
    with records before the place that was sought: Kafka sends whole batches.
    """
    _change(consumer, _in_runs)


def _only(unpacked: Any) -> None:
    unpacked._consumer_record = _as_it_is  # noqa: SLF001


def _in_runs(unpacked: Any) -> None:
    unpacked._records = _Batches(unpacked._records)  # noqa: SLF001
    unpacked._consumer_record = _records_of  # noqa: SLF001


def _change(consumer: AIOKafkaConsumer, change: Callable[[Any], None]) -> None:
    fetcher = consumer._fetcher  # noqa: SLF001
    fetched = _Fetched(change)
    for place, result in fetcher._records.items():  # noqa: SLF001
        fetched[place] = result
    fetcher._records = fetched  # noqa: SLF001


class _Fetched(OrderedDict[Any, Any]):
    """What was fetched and not returned yet, by partition; each is changed as it comes in."""

    def __init__(self, change: Callable[[Any], None]) -> None:
        super().__init__()
        self._change = change

    def __setitem__(self, place: Any, result: Any) -> None:
        unpacked = getattr(result, "_partition_records", None)  # there is none in an error
        if unpacked is not None:
            self._change(unpacked)
        super().__setitem__(place, result)


class _Run:
    """Some records of a batch, which aiokafka takes for one; it goes on behind its offset."""

    __slots__ = ("offset", "records")

    def __init__(self, records: Sequence[Any]) -> None:
        self.records = records
        self.offset: int = records[-1].offset


class _Batches:
    """The batches of a fetch, in whose place come those that yield runs."""

    def __init__(self, batches: Any) -> None:
        self.has_next = batches.has_next
        self._next_batch = batches.next_batch

    def next_batch(self) -> "_Batch":
        return _Batch(self._next_batch())


class _Batch:
    """A batch as it is, but that it yields runs."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)  # the record of a control batch

    def __iter__(self) -> Iterator[_Run]:
        records = list(self._batch)
        for at in range(0, len(records), RUN_RECORDS):
            yield _Run(records[at : at + RUN_RECORDS])


def _as_it_is(_: Any, record: Any) -> Any:
    return record


def _records_of(_: Any, run: _Run) -> Sequence[Any]:
    return run.records
