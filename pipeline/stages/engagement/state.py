"""
What engagement keeps, and under which keys.

All stores but the contacts' begin their keys with a UTC day (or an instant), so that what is old is
dropped by range; ``arrived_at`` is when the last fact that changed a value was received. Times are ms
since 1970. *Scopes* are bits: `TOTAL`, `HOUR`, `DAY`.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar
from urllib.parse import quote

import msgspec

from pipeline import windows
from pipeline.events import ContactEngagement
from pipeline.stage import Store
from pipeline.stages.measures import NO_SUMS, Sums

__all__ = [
    "BOOKINGS",
    "CLOCK",
    "CONTACTS",
    "DAY",
    "DAY_MS",
    "EVERYWHERE",
    "HOUR",
    "MEMBERS",
    "SCOPES",
    "SEEN",
    "SHARES",
    "TIMELINES",
    "TIMELINE_MS",
    "TIMES_BITS",
    "TOTAL",
    "Booking",
    "Contact",
    "Incoming",
    "Members",
    "Outgoing",
    "Price",
    "Seen",
    "Share",
    "Status",
    "Timeline",
    "booking_key",
    "by_scopes",
    "conversation_name",
    "day_text",
    "members_key",
    "share_key",
    "timeline_key",
]

#: Where a fact can count: in the contact's totals, in windows of an hour, in windows of a day.
TOTAL, HOUR, DAY = SCOPES = (1, 2, 4)

EVERYWHERE = TOTAL | HOUR | DAY

V = TypeVar("V")

DAY_MS = 86_400_000

#: Three of them fill the positive integers that a store takes.
TIMES_BITS = 21


class Status(msgspec.Struct, frozen=True, array_like=True, order=True, gc=False):
    """A terminal status; the largest holds, so that delivered wins where times are equal."""

    at: int
    delivered: bool


class Price(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a message cost as told at *at*."""

    at: int
    cost: str
    segments: int


class Booking(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """How one message was counted, and in which dimensions for good."""

    arrived_at: int
    dimensions: tuple[str, ...]
    counted: int = 0  #: scopes in which it counts as sent or received
    statuses: tuple[Status | None, Status | None, Status | None] = (None, None, None)
    prices: tuple[Price | None, Price | None, Price | None] = (None, None, None)


class Outgoing(msgspec.Struct, frozen=True, array_like=True, order=True, gc=False):
    """An outbound message in a conversation; ordered by time, then id."""

    at: int
    id: str
    scopes: int = 0  #: in which it counts as sent


class Incoming(msgspec.Struct, frozen=True, array_like=True, order=True, gc=False):
    """An inbound message in a conversation; ordered by time, then id."""

    at: int
    id: str
    heard_at: int = 0  #: when it was received; 0 when backfilled, which is never late


class Timeline(msgspec.Struct, frozen=True, array_like=True):
    """Four days of one conversation, each side in order."""

    arrived_at: int = 0
    sent: tuple[Outgoing, ...] = ()
    received: tuple[Incoming, ...] = ()


class Members(msgspec.Struct, frozen=True, array_like=True):
    """
    One contact in one window of time: per dimension how often it was sent to, wrote and replied.

    The three numbers are one integer, `TIMES_BITS` each: two million messages of one contact in one day.
    """

    arrived_at: int = 0
    times: dict[str, int] = {}


class Seen(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A fact without a booking of its own, and where it was counted."""

    arrived_at: int
    scopes: int


class Share(msgspec.Struct, frozen=True, array_like=True):
    """This partition's share of one window."""

    arrived_at: int = 0
    revision: int = 0
    sums: Sums = NO_SUMS


class Contact(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One contact: what is published, and what it is computed from."""

    published: ContactEngagement
    sum: str = ""  #: S as `score.to_text` writes it
    opted_out_at: int = -1  #: when Sakari's latest opt fact occurred
    opted_out: bool = False
    dnd_at: int = -1  #: when the Users API's latest occurred
    dnd: bool = False


CONTACTS: Store[Contact] = Store("contacts", Contact)  # contact key
BOOKINGS: Store[Booking] = Store("bookings", Booking)  # day | contact key | account | message id
TIMELINES: Store[Timeline] = Store("timelines", Timeline)  # first day | contact key | account | conversation
MEMBERS: Store[Members] = Store("members", Members)  # start | width | contact key
SEEN: Store[Seen] = Store("seen", Seen)  # day of occurred_at | fact id
SHARES: Store[Share] = Store("shares", Share)  # start | window key
CLOCK: Store[int] = Store("clock", int)  # "swept" -> the tick of the last sweep


#: How much time one entry of `TIMELINES` covers: the usual reply window lies in two of them at most.
TIMELINE_MS = 4 * DAY_MS


def by_scopes(values: tuple[V, V, V]) -> Sequence[tuple[int, V]]:
    """What holds in the three `SCOPES`, each with all of them that it holds in: mostly one, `EVERYWHERE`."""
    if values[0] == values[1] == values[2]:
        return ((EVERYWHERE, values[0]),)
    return tuple(zip(SCOPES, values, strict=True))


def day_text(at: int) -> str:
    """The UTC day that holds *at*: ``2030-01-01``."""
    return _day(at // DAY_MS)


def booking_key(at: int, contact_key: str, account: str, message_id: str) -> str:
    """Where the booking of a message created at *at* is kept."""
    return f"{_day(at // DAY_MS)}|{_owner(contact_key, account)}|{_quoted(message_id)}"


def conversation_name(contact_key: str, account: str, conversation_id: str | None) -> str:
    """What a conversation is kept under on each day; ``-`` for messages without one."""
    return f"{_owner(contact_key, account)}|{_quoted(conversation_id or '-')}"


def timeline_key(at: int, conversation: str) -> str:
    """Where the part that holds *at* of the conversation of that name is kept."""
    return f"{day_text(at - at % TIMELINE_MS)}|{conversation}"


def members_key(span: windows.Span, contact_key: str) -> str:
    """Where is kept how often *contact_key* counts in the windows of *span*."""
    return f"{windows.start_of(span.start)}|{span.width}|{contact_key}"


def share_key(window_key: str) -> str:
    """Where the share of a window is kept: by its start first, so that old ones stand together."""
    return f"{window_key.rpartition('|')[2]}|{window_key}"


@lru_cache(maxsize=4_096)
def _day(number: int) -> str:
    return windows.start_of(number * DAY_MS)[:10]


@lru_cache(maxsize=16_384)
def _owner(contact_key: str, account: str) -> str:
    return f"{_quoted(contact_key)}|{_quoted(account)}"


def _quoted(part: str) -> str:
    """*part* percent-encoded, but for colons; nearly all ids read the same."""
    return part if part.isalnum() and part.isascii() else quote(part, safe=":")
