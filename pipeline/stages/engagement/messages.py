"""How facts about messages are counted: each changes the booking of its message."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

from pipeline.events import (
    MessagePriced,
    MessageReceived,
    MessageSent,
    MessageStatus,
    MessageStatusChanged,
)
from pipeline.stages.engagement import dimensions, score
from pipeline.stages.engagement.ledger import Ledger, moment
from pipeline.stages.engagement.postings import Place
from pipeline.stages.engagement.replies import Conversation
from pipeline.stages.engagement.state import (
    BOOKINGS,
    DAY,
    HOUR,
    SCOPES,
    TOTAL,
    Booking,
    Incoming,
    Outgoing,
    Price,
    Status,
    booking_key,
)
from pipeline.stages.measures import Delta, decimal_text, price

__all__ = ["count_price", "count_received", "count_sent", "count_status"]

MessageFact = MessageSent | MessageReceived | MessageStatusChanged | MessagePriced
V = TypeVar("V")
PerScope = tuple[V | None, V | None, V | None]

FAILED = (MessageStatus.ERROR, MessageStatus.INVALID, MessageStatus.UNDELIVERED)

SENT = Delta({"sent": 1})
RECEIVED = Delta({"received": 1})
DELIVERED = Delta({"delivered": 1})
NOT_DELIVERED = Delta({"failed": 1})


class _Entry:
    """One message's booking while a fact is counted."""

    def __init__(self, ledger: Ledger, fact: MessageFact) -> None:
        message, activity = fact.message, ledger.activity
        self.at = moment(message.created_at)
        self._ledger = ledger
        self._key = booking_key(self.at, activity.contact_key, fact.account_id, message.id)
        self._known = ledger.read.get(BOOKINGS, self._key)
        self.booking = self._known or Booking(
            arrived_at=ledger.arrived_at,
            dimensions=dimensions.of_message(message, activity, ledger.terms.max_tags),
        )
        self.place: Place = ledger.place(self.at, self.booking.dimensions)

    def keep(self, **changes: object) -> None:
        """The booking now has *changes*."""
        arrived_at = max(self.booking.arrived_at, self._ledger.arrived_at)
        booking = msgspec.structs.replace(self.booking, **changes)
        if booking != self._known:
            self._ledger.put(BOOKINGS, self._key, msgspec.structs.replace(booking, arrived_at=arrived_at))


def count_sent(ledger: Ledger, fact: MessageSent) -> None:
    """Count an outbound message once, and see which inbound ones reply to it."""
    entry = _Entry(ledger, fact)
    ledger.happened()
    counted = entry.booking.counted | ledger.admitted(entry.place)
    fresh = counted & ~entry.booking.counted
    entry.keep(counted=counted)
    if fresh:
        ledger.post(entry.place, fresh, SENT)
        outgoing = Outgoing(entry.at, fact.message.id, counted)
        Conversation(ledger, fact).add_outgoing(outgoing, entry.place)


def count_received(ledger: Ledger, fact: MessageReceived) -> None:
    """Count an inbound message once, and see whether it is a reply."""
    entry = _Entry(ledger, fact)
    ledger.happened()
    counted = entry.booking.counted | ledger.admitted(entry.place)
    fresh = counted & ~entry.booking.counted
    entry.keep(counted=counted)
    if fresh:
        ledger.post(entry.place, fresh, RECEIVED)
    if fresh & TOTAL:
        ledger.weigh(score.INBOUND, entry.at)
    Conversation(ledger, fact).add_incoming(Incoming(entry.at, fact.message.id, ledger.heard_at))


def count_status(ledger: Ledger, fact: MessageStatusChanged) -> None:
    """Book an outbound message as delivered or failed, by its latest terminal status."""
    entry = _Entry(ledger, fact)
    status = MessageStatus(fact.status)
    if status is not MessageStatus.DELIVERED and status not in FAILED:
        entry.keep()
        return
    told = Status(ledger.at, status is MessageStatus.DELIVERED)
    ledger.happened()
    admitted = ledger.admitted(entry.place)
    before = entry.booking.statuses
    after = _merged(before, admitted, lambda known: max(known, told) if known else told)
    entry.keep(statuses=after)
    for scopes, old, new in _changes(before, after):
        _book_status(ledger, entry.place, scopes, old, -1)
        _book_status(ledger, entry.place, scopes, new, 1)


def count_price(ledger: Ledger, fact: MessagePriced) -> None:
    """Book an outbound message's segments and cost, by what was told last."""
    entry = _Entry(ledger, fact)
    told = Price(ledger.at, decimal_text(price(fact.price)), fact.segments)
    admitted = ledger.admitted(entry.place)
    before = entry.booking.prices
    after = _merged(before, admitted, lambda known: max(known, told, key=_rank) if known else told)
    entry.keep(prices=after)
    for scopes, old, new in _changes(before, after):
        _book_price(ledger, entry.place, scopes, old, -1)
        _book_price(ledger, entry.place, scopes, new, 1)


def _merged(known: PerScope[V], admitted: int, latest: Callable[[V | None], V]) -> PerScope[V]:
    total, hour, day = known
    return (
        latest(total) if admitted & TOTAL else total,
        latest(hour) if admitted & HOUR else hour,
        latest(day) if admitted & DAY else day,
    )


def _changes(before: PerScope[V], after: PerScope[V]) -> Iterator[tuple[int, V | None, V | None]]:
    """What changed to what, with all the scopes in which it did; mostly the same in all three."""
    if before[0] == before[1] == before[2] and after[0] == after[1] == after[2]:
        if before[0] != after[0]:
            yield TOTAL | HOUR | DAY, before[0], after[0]
        return
    for scope, old, new in zip(SCOPES, before, after, strict=True):
        if old != new:
            yield scope, old, new


def _rank(told: Price) -> tuple[int, int, int]:
    return told.at, price(told.cost), told.segments


def _book_status(ledger: Ledger, place: Place, scopes: int, status: Status | None, sign: int) -> None:
    if status is None:
        return
    ledger.post(place, scopes, DELIVERED if status.delivered else NOT_DELIVERED, sign)
    if scopes & TOTAL and status.delivered:
        ledger.weigh(score.DELIVERED, status.at, sign)


def _book_price(ledger: Ledger, place: Place, scopes: int, told: Price | None, sign: int) -> None:
    if told is not None:
        ledger.post(place, scopes, Delta({"segments": told.segments}, cost=price(told.cost)), sign)
