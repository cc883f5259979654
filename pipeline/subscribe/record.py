"""What a subscriber gets: a record with its typed event, and what is told of one that cannot be read."""

from collections.abc import Mapping
from datetime import datetime
from typing import Generic, NamedTuple, TypeVar, final

import msgspec

from pipeline.codec import text_headers
from pipeline.errors import RecordError
from pipeline.headers import Header
from pipeline.instants import Time, from_ms, to_datetime
from pipeline.stage import Event

__all__ = ["Fetched", "Record", "Unreadable"]

T = TypeVar("T")


class Fetched(NamedTuple):
    """A record as it stands in a partition; *timestamp* in ms since 1970."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()


@final
class Record(msgspec.Struct, Generic[T], frozen=True, kw_only=True, gc=False):
    """One record of a topic, decoded."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int  #: when the source record was received, ms since 1970
    decoded: Event[T]
    raw_headers: tuple[Header, ...] = ()

    @property
    def event(self) -> T:
        """The typed value; None for a tombstone."""
        return self.decoded.value

    @property
    def key(self) -> str:
        """What the record is about; records of one key are in order."""
        return self.decoded.key

    @property
    def type(self) -> str:
        """``ce_type``, such as ``contacts.enriched.v1``."""
        return self.decoded.type

    @property
    def id(self) -> str:
        """``ce_id``: the same however often and by whatever way the pipeline learnt of it."""
        return self.decoded.id

    @property
    def time(self) -> datetime:
        """``ce_time``, when it happened; where that is not told, when it was received. UTC."""
        return to_datetime(self.decoded.occurred_at or from_ms(self.timestamp_ms))

    @property
    def timestamp(self) -> datetime:
        """When the source record was received, UTC; retention goes by it."""
        return to_datetime(Time(from_ms(self.timestamp_ms)))

    @property
    def trace(self) -> str:
        """W3C ``traceparent``, the same from the webhook on."""
        return self.decoded.traceparent

    @property
    def backfill(self) -> bool:
        """Whether it was fetched as history."""
        return self.decoded.backfill

    @property
    def headers(self) -> Mapping[str, str]:
        """All headers as text."""
        return text_headers(self.raw_headers)


class Unreadable(RecordError):  # noqa: N818 - named as the record it tells of
    """
    A record that cannot be read: where it stands, its bytes, and why.

    ``reason`` is ``unknown-type``, ``invalid-value``, ``null``, ``no-key``, ``wrong-key`` or
    ``invalid-header``.
    """

    def __init__(self, topic: str, fetched: Fetched, cause: RecordError) -> None:
        self.topic = topic
        self.partition = fetched.partition
        self.offset = fetched.offset
        self.key = fetched.key
        self.value = fetched.value
        self.headers = text_headers(fetched.headers)
        place = f"{topic} partition {fetched.partition} offset {fetched.offset}"
        super().__init__(cause.reason, f"{place}: {cause.reason}: {cause}")
