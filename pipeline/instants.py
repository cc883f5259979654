"""
Times as the topics carry them: RFC 3339, UTC, always three decimals, ending in ``Z``.

In that form text order is time order, so times are compared as they are. Arithmetic is done on
integer milliseconds since 1970.
"""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NewType

__all__ = ["Time", "from_ms", "parse", "to_datetime", "to_ms"]

#: An instant such as ``2030-01-01T15:37:30.963Z``.
Time = NewType("Time", str)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

#: A date, then a time: `datetime.fromisoformat` alone takes a bare date, and digits such as a number of
#: milliseconds for a year, month and so on.
_DATE_AND_TIME = re.compile(r"\d{4}-?\d\d-?\d\d[T ]\d\d", re.ASCII)


def from_ms(milliseconds: int) -> Time:
    """
    The instant *milliseconds* after 1970-01-01T00:00:00Z.

    Raises:
        OverflowError: its year is not from 1 to 9999.
    """
    seconds, rest = divmod(milliseconds, 1000)
    return Time(f"{_second(seconds)}{rest:03d}Z")


@lru_cache(maxsize=4_096)
def _second(seconds: int) -> str:
    """What the instants of one second begin with; those of a stream are close to each other."""
    return _written(_EPOCH + timedelta(seconds=seconds))[:20]


def to_ms(time: Time) -> int:
    """Milliseconds since 1970 of *time*."""
    return (datetime.fromisoformat(time) - _EPOCH) // _MILLISECOND


def to_datetime(time: Time) -> datetime:
    """*time* as an aware datetime in UTC."""
    return datetime.fromisoformat(time)


def parse(text: str) -> Time:
    """
    Normalise any RFC 3339 or ISO 8601 *text* with a date and a time; no zone means UTC.

    Raises:
        ValueError: it is no date and time, or out of range.
    """
    upper = text.strip().upper()  # RFC 3339 section 5.6 allows a small t and z
    if not _DATE_AND_TIME.match(upper):
        raise ValueError("no date and time")
    stamp = datetime.fromisoformat(upper)
    try:
        stamp = stamp.replace(tzinfo=UTC) if stamp.tzinfo is None else stamp.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("out of range") from error
    return _written(stamp)


def _written(stamp: datetime) -> Time:
    return Time(f"{stamp.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z")
