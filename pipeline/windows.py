"""
Windows of time and their keys: ``tenant|dimension|1h or 1d|start`` (DESIGN §4).

A window of an hour is an hour of UTC. A window of a day is the tenant's day in its time zone, which
daylight saving makes 23 or 25 hours long. ``start`` is an instant with milliseconds, such as
``2030-01-01T00:00:00.000Z``. A dimension is ``all`` or ``<kind>:<value>`` with its value
percent-encoded, so that a key has exactly four parts. Times are ms since 1970.
"""

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote
from zoneinfo import ZoneInfo

from pipeline import instants
from pipeline.instants import Time

__all__ = [
    "ALL",
    "DAY",
    "HOUR",
    "HOUR_MS",
    "WIDTHS",
    "Span",
    "Window",
    "day_of",
    "dimension",
    "hour_of",
    "key",
    "parse",
]

ALL = "all"
HOUR = "1h"
DAY = "1d"
WIDTHS = (HOUR, DAY)

HOUR_MS = 3_600_000


class Span(NamedTuple):
    """One window of time, whatever is counted in it: ``start <= t < end``, in ms."""

    width: str
    start: int
    end: int


class Window(NamedTuple):
    """The parts of a window key; *dimension* with its value percent-encoded, as it stands in the key."""

    tenant: str
    dimension: str
    width: str
    start: Time

    def span(self, zone: ZoneInfo) -> Span:
        """From start to end, the tenant's time zone being *zone*."""
        start = instants.to_ms(self.start)
        end = start + HOUR_MS if self.width == HOUR else day_of(start, zone).end
        return Span(self.width, start, end)

    @property
    def value(self) -> tuple[str, str]:
        """Kind and plain value of the dimension: ``("tag:name", "very important")``, ``("all", "")``."""
        kind, _, value = self.dimension.rpartition(":")
        return (kind, unquote(value)) if kind else (value, "")


def hour_of(at: int) -> Span:
    """The hour of UTC that holds *at*."""
    return _hour(at // HOUR_MS)


def day_of(at: int, zone: ZoneInfo) -> Span:
    """
    The day of *zone* that holds *at*.

    Days begin at the first instant that is their local midnight, or that follows a midnight left out
    by daylight saving; so they neither overlap nor leave gaps, even where clocks go back over midnight.
    """
    first, second = _days_of_hour(at // HOUR_MS, zone)
    return first if at < first.end else second


@lru_cache(maxsize=16_384)
def dimension(kind: str, value: str) -> str:
    """The dimension *kind*, such as ``tag:id``, with *value* percent-encoded."""
    return f"{kind}:{quote(value, safe='')}"


def key(tenant: str, dimension: str, span: Span) -> str:
    """The window key of *dimension*, encoded as `dimension` does, over *span*."""
    return f"{tenant}|{dimension}|{span.width}|{start_of(span.start)}"


@lru_cache(maxsize=16_384)
def start_of(at: int) -> Time:
    """*at* as window keys write it; the same few starts come again and again."""
    return instants.from_ms(at)


@lru_cache(maxsize=16_384)
def parse(key: str) -> Window:
    """
    The parts of a window key.

    Raises:
        ValueError: it is none.
    """
    parts = key.split("|")
    if len(parts) != 4 or not all(parts) or parts[2] not in WIDTHS or not _is_start(parts[3]):
        raise ValueError(f"not a window key: {key!r}; expected tenant|dimension|1h or 1d|start")
    return Window(parts[0], parts[1], parts[2], Time(parts[3]))


def _is_start(text: str) -> bool:
    try:
        return instants.parse(text) == text
    except ValueError:
        return False


@lru_cache(maxsize=16_384)
def _hour(number: int) -> Span:
    return Span(HOUR, number * HOUR_MS, (number + 1) * HOUR_MS)


@lru_cache(maxsize=16_384)
def _days_of_hour(number: int, zone: ZoneInfo) -> tuple[Span, Span]:
    """The day in which an hour of UTC begins, and the one after, in which it may end."""
    at = number * HOUR_MS
    day = datetime.fromtimestamp(at / 1000, zone).date()
    if at >= _midnight(day + timedelta(days=1), zone):
        day += timedelta(days=1)
    first, second, third = (_midnight(day + timedelta(days=ahead), zone) for ahead in range(3))
    return Span(DAY, first, second), Span(DAY, second, third)


@lru_cache(maxsize=16_384)
def _midnight(day: date, zone: ZoneInfo) -> int:
    # A local time that daylight saving leaves out is read with the offset before it: the transition itself.
    first = datetime.combine(day, time(), zone)
    return round(first.astimezone(UTC).timestamp() * 1000)
