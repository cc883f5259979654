"""How facts about messages are counted: each changes the booking of its message."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import TypeVar

import msgspec

from pipeline.events import (
    MessagePriced,
    MessageReceived,
    MessageSent,
    MessageStatus,
    MessageStatusChanged,
)
from pipeline.stages.engagement import dimensions, score, shares
from pipeline.stages.engagement.ledger import Ledger, moment
from pipeline.stages.engagement.postings import Delta, Place
from pipeline.stages.engagement.replies import Conversation
from pipeline.stages.engagement.state import (
    BOOKINGS,
    EVERYWHERE,
    SCOPES,
    TOTAL,
    Booking,
    Incoming,
    Outgoing,
    Price,
    Status,
    booking_key,
    by_scopes,
)
from pipeline.stages.measures import amount, plain, price

__all__ = ["count_price", "count_received", "count_sent", "count_status"]

MessageFact = MessageSent | MessageReceived | MessageStatusChanged | MessagePriced
V = TypeVar("V")
PerScope = tuple[V | None, V | None, V | None]

#: Terminal statuses, and whether they say that the message was delivered.
TERMINAL = {
    MessageStatus.DELIVERED: True,
    MessageStatus.ERROR: False,
    MessageStatus.INVALID: False,
    MessageStatus.UNDELIVERED: False,
}

SENT = Delta(amount(sent=1), shares.CONTACTED)
RECEIVED = Delta(amount(received=1), shares.ENGAGED)
DELIVERED = Delta(amount(delivered=1))
NOT_DELIVERED = Delta(amount(failed=1))


class _Entry:
    """One message's booking while a fact is counted."""

    __slots__ = ("_key", "_ledger", "_new", "at", "booking", "place")

    def __init__(self, ledger: Ledger, fact: MessageFact) -> None:
        message, activity = fact.message, ledger.activity
        self.at = moment(message.created_at)
        self._ledger = ledger
        self._key = booking_key(self.at, activity.contact_key, fact.account_id, message.id)
        known = ledger.read.get(BOOKINGS, self._key)
        self._new = known is None
        self.booking = known or Booking(
            arrived_at=ledger.arrived_at,
            dimensions=dimensions.of_message(message, activity, ledger.terms.max_tags),
        )
        self.place: Place = ledger.place(self.at, self.booking.dimensions)

    def keep(self, name: str, value: object) -> None:
        """The field *name* of the booking is now *value*."""
        old = self.booking
        if self._new or getattr(old, name) != value:
            arrived_at = max(old.arrived_at, self._ledger.arrived_at)
            changes = {"arrived_at": arrived_at, name: value}
            self._ledger.put(BOOKINGS, self._key, msgspec.structs.replace(old, **changes))

    def counted(self) -> tuple[int, int]:
        """Count the message itself: the scopes in which it now counts, and those of them that are new."""
        before = self.booking.counted
        after = before | self._ledger.admitted(self.place)
        self.keep("counted", after)
        return after, after & ~before


def count_sent(ledger: Ledger, fact: MessageSent) -> None:
    """Count an outbound message once, and see which inbound ones reply to it."""
    if not fact.message.outgoing:
        return
    entry = _Entry(ledger, fact)
    ledger.happened()
    counted, fresh = entry.counted()
    if fresh:
        ledger.post(entry.place, fresh, SENT)
        outgoing = Outgoing(entry.at, fact.message.id, counted)
        Conversation(ledger, fact).add_outgoing(outgoing, entry.place)


def count_received(ledger: Ledger, fact: MessageReceived) -> None:
    """Count an inbound message once, and see whether it is a reply."""
    entry = _Entry(ledger, fact)
    ledger.happened()
    _, fresh = entry.counted()
    if fresh:
        ledger.post(entry.place, fresh, RECEIVED)
    if fresh & TOTAL:
        ledger.weigh(score.INBOUND, entry.at)
    Conversation(ledger, fact).add_incoming(Incoming(entry.at, fact.message.id, ledger.heard_at))


def count_status(ledger: Ledger, fact: MessageStatusChanged) -> None:
    """Book an outbound message as delivered or failed, by its latest terminal status."""
    if not fact.message.outgoing:
        return
    entry = _Entry(ledger, fact)
    before = entry.booking.statuses
    delivered = _delivered(fact.status)
    if delivered is None:
        entry.keep("statuses", before)
        return
    ledger.happened()
    told = Status(ledger.at, delivered)
    after = _merged(before, told, ledger.admitted(entry.place), max)
    entry.keep("statuses", after)
    for scopes, old, new in _changes(before, after):
        _book_status(ledger, entry.place, scopes, old, -1)
        _book_status(ledger, entry.place, scopes, new, 1)


def count_price(ledger: Ledger, fact: MessagePriced) -> None:
    """Book an outbound message's segments and cost, by what was told last."""
    if not fact.message.outgoing:
        return
    entry = _Entry(ledger, fact)
    before = entry.booking.prices
    told = Price(ledger.at, plain(fact.price), fact.segments)
    after = _merged(before, told, ledger.admitted(entry.place), _dearest)
    entry.keep("prices", after)
    for scopes, old, new in _changes(before, after):
        _book_price(ledger, entry.place, scopes, old, -1)
        _book_price(ledger, entry.place, scopes, new, 1)


def _merged(known: PerScope[V], told: V, admitted: int, latest: Callable[[V, V], V]) -> PerScope[V]:
    """What holds in each scope once *told* has been said in those that are *admitted*."""
    first = known[0]
    if admitted == EVERYWHERE and first == known[1] == known[2]:
        last = told if first is None else latest(first, told)
        return last, last, last
    total, hour, day = (
        value if not admitted & scope else told if value is None else latest(value, told)
        for scope, value in zip(SCOPES, known, strict=True)
    )
    return total, hour, day


def _changes(before: PerScope[V], after: PerScope[V]) -> list[tuple[int, V | None, V | None]]:
    """What changed to what, with all the scopes in which it did."""
    total, hour, day = zip(before, after, strict=True)
    return [(scopes, old, new) for scopes, (old, new) in by_scopes((total, hour, day)) if old != new]


@lru_cache(maxsize=256)
def _delivered(status: str) -> bool | None:
    """Whether *status* says that a message was delivered; None where it may still change."""
    return TERMINAL.get(MessageStatus(status))


def _rank(told: Price) -> tuple[int, int, int]:
    return told.at, price(told.cost), told.segments


_dearest = partial(max, key=_rank)


def _book_status(ledger: Ledger, place: Place, scopes: int, status: Status | None, sign: int) -> None:
    if status is None:
        return
    ledger.post(place, scopes, DELIVERED if status.delivered else NOT_DELIVERED, sign)
    if scopes & TOTAL and status.delivered:
        ledger.weigh(score.DELIVERED, status.at, sign)


def _book_price(ledger: Ledger, place: Place, scopes: int, told: Price | None, sign: int) -> None:
    if told is not None:
        ledger.post(place, scopes, _priced(told.segments, told.cost), sign)


@lru_cache(maxsize=4_096)
def _priced(segments: int, cost: str) -> Delta:
    return Delta(amount(price(cost), segments=segments))
