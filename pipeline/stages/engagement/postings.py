"""What a fact adds to a contact's totals and to windows, until it is added up with what others add."""

from functools import lru_cache
from typing import final
from zoneinfo import ZoneInfo

import msgspec

from pipeline import windows
from pipeline.windows import HOUR_MS, Span, day_of, hour_of

__all__ = ["NEVER", "Delta", "Entry", "Opt", "Place", "Posting", "places", "window_key"]

#: In `Delta`: the contact does not count by it.
NEVER = -1


@final
class Place:
    """
    Where a fact is booked: its dimensions, in the hour and the day of its time.

    Equal only to itself, so that it is quick to look up. `places` mostly gives the same for the same; where
    it does not, the two are added up apart, to the same windows.
    """

    __slots__ = ("day", "day_keys", "dimensions", "hour", "hour_keys")

    def __init__(self, tenant: str, dimensions: tuple[str, ...], hour: Span, day: Span) -> None:
        self.dimensions = dimensions
        self.hour = hour
        self.day = day
        self.hour_keys = tuple([window_key(tenant, dimension, hour) for dimension in dimensions])
        self.day_keys = tuple([window_key(tenant, dimension, day) for dimension in dimensions])


@lru_cache(maxsize=4_096)
def places(tenant: str, dimensions: tuple[str, ...], number: int, zone: ZoneInfo) -> tuple[Place, Place]:
    """The places of the hour of UTC of that *number*: the same, but where a day of *zone* ends within it."""
    hour = hour_of(number * HOUR_MS)
    early, late = day_of(hour.start, zone), day_of(hour.end - 1, zone)
    first = Place(tenant, dimensions, hour, early)
    return first, first if early == late else Place(tenant, dimensions, hour, late)


#: The same few windows come again and again.
window_key = lru_cache(maxsize=16_384)(windows.key)


class Delta(msgspec.Struct, frozen=True, gc=False):
    """
    What is added: an *amount*, and a reply in *bucket* where it is one.

    By it the contact may begin to count: *counts_as* is the place in `shares.DISTINCT` of what as.
    """

    amount: int
    counts_as: int = NEVER
    bucket: str = ""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """*delta* is added at *place* in *scopes*, or with *sign* -1 taken away."""

    place: Place
    scopes: int
    delta: Delta
    sign: int


class Opt(msgspec.Struct, frozen=True, gc=False):
    """On *side*, ``opted_out`` or ``dnd``, the contact opted *out* or in at *at*."""

    side: str
    at: int
    out: bool


class Posting(msgspec.Struct, frozen=True, gc=False):
    """All that one fact adds; the event it came with tells contact and tenant."""

    entries: list[Entry]
    sum: int  #: to the exact sum behind the score
    active_at: int | None  #: when it happened, if it is an activity of the contact
    opt: Opt | None
