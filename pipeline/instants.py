"""
Times as the topics carry them: RFC 3339, UTC, always three decimals, ending in ``Z``.

In that form text order is time order, so times are compared as they are. Arithmetic is done on
integer milliseconds since 1970.
"""

from datetime import UTC, datetime
from typing import NewType

__all__ = ["Time", "from_ms", "parse", "to_datetime", "to_ms"]

#: An instant such as ``2030-01-01T15:37:30.963Z``.
Time = NewType("Time", str)


def from_ms(milliseconds: int) -> Time:
    """The instant *milliseconds* after 1970-01-01T00:00:00Z."""
    seconds, rest = divmod(milliseconds, 1000)
    stamp = datetime.fromtimestamp(seconds, UTC)
    return Time(f"{stamp:%Y-%m-%dT%H:%M:%S}.{rest:03d}Z")


def to_ms(time: Time) -> int:
    """Milliseconds since 1970 of *time*."""
    stamp = datetime.fromisoformat(time)
    return round(stamp.timestamp() * 1000)


def to_datetime(time: Time) -> datetime:
    """*time* as an aware datetime in UTC."""
    return datetime.fromisoformat(time)


def parse(text: str) -> Time:
    """
    Normalise any RFC 3339 or ISO 8601 *text* with a date and time; no zone means UTC.

    Raises:
        ValueError: it is no date and time, or out of range.
    """
    stamp = datetime.fromisoformat(text.strip())
    stamp = stamp.replace(tzinfo=UTC) if stamp.tzinfo is None else stamp.astimezone(UTC)
    return Time(f"{stamp:%Y-%m-%dT%H:%M:%S}.{stamp.microsecond // 1000:03d}Z")
