"""What a fact adds to a contact's totals and to windows, until it is added up with what others add."""

from typing import NamedTuple

import msgspec

from pipeline.stages.engagement.state import HOUR
from pipeline.stages.measures import Delta
from pipeline.windows import Span

__all__ = ["Entry", "Opt", "Place", "Posting"]


class Place(NamedTuple):
    """Where a fact is booked: its dimensions, and the hour and the day of its time."""

    dimensions: tuple[str, ...]
    hour: Span
    day: Span

    def span(self, scope: int) -> Span:
        """The window of *scope*, `HOUR` or `DAY`."""
        return self.hour if scope == HOUR else self.day


class Entry(NamedTuple):
    """*delta* is added at *place* in *scopes*, or with *sign* -1 taken away."""

    place: Place
    scopes: int
    delta: Delta
    sign: int


class Opt(NamedTuple):
    """On *side*, ``opted_out`` or ``dnd``, the contact opted *out* or in at *at*."""

    side: str
    at: int
    out: bool


class Posting(msgspec.Struct, frozen=True, kw_only=True):
    """All that one fact adds; the event it came with tells contact and tenant."""

    entries: list[Entry]
    sum: int  #: to the exact sum behind the score
    active_at: int | None  #: when it happened, if it is an activity of the contact
    opt: Opt | None
