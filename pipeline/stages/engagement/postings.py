"""What a fact adds to a contact's totals and to windows, until it is added up with what others add."""

import msgspec

from pipeline.stages.measures import Delta
from pipeline.windows import Span

__all__ = ["Entry", "Opt", "Place", "Posting"]


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where a fact is booked: its dimensions, and the hour and the day of its time."""

    dimensions: tuple[str, ...]
    hour: Span
    day: Span


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
