"""
Which inbound message replies to which outbound one.

An inbound message is a reply to the latest outbound message of its conversation that is not after
it, if that is at most the reply window ago. So each conversation's messages are kept as a timeline,
one entry for every few days, and whenever a message enters it, whatever the order of arrival, the replies
that it could change are compared before and after and moved. In the windows of a width only those
outbound messages exist that are not late for that width.
"""

from bisect import bisect_right, insort
from collections.abc import Sequence
from typing import Final, TypeVar

from pipeline.events import MessageReceived, MessageSent
from pipeline.histogram import bucket
from pipeline.stages.engagement import score, shares
from pipeline.stages.engagement.ledger import Ledger
from pipeline.stages.engagement.postings import Delta, Place
from pipeline.stages.engagement.state import (
    BOOKINGS,
    EVERYWHERE,
    SCOPES,
    TIMELINE_MS,
    TIMELINES,
    TOTAL,
    Incoming,
    Outgoing,
    Timeline,
    booking_key,
    by_scopes,
    conversation_name,
    timeline_key,
)
from pipeline.stages.measures import amount

__all__ = ["Conversation"]

EMPTY: Final = Timeline()
REPLY: Final = amount(replies=1)

M = TypeVar("M", Outgoing, Incoming)

#: What an inbound message replies to in each of the three scopes.
_Targets = tuple[Outgoing | None, Outgoing | None, Outgoing | None]


class Conversation:
    """The timeline of the conversation that *fact*'s message belongs to."""

    def __init__(self, ledger: Ledger, fact: MessageSent | MessageReceived) -> None:
        self._ledger = ledger
        self._account = fact.account_id
        self._name = conversation_name(
            ledger.activity.contact_key, fact.account_id, fact.message.conversation_id
        )
        self._reach = ledger.terms.reply_window_ms
        self._places: dict[str, Place] = {}

    def add_outgoing(self, new: Outgoing, place: Place) -> None:
        """An outbound message, booked at *place*, entered the timeline: later ones may reply to it now."""
        self._places[new.id] = place
        ahead = self._between(new.at, new.at + self._reach)
        own = ahead[0]
        self._keep(new.at, Timeline(own.arrived_at, _with(own.sent, new), own.received))
        later = [i for part in ahead for i in part.received if new.at <= i.at <= new.at + self._reach]
        if not later:
            return
        behind = self._between(new.at - self._reach, new.at)[:-1]
        before = [o for part in (*behind, *ahead) for o in part.sent]
        after = _with(before, new)
        for incoming in later:
            then, now = self._targets(before, incoming), self._targets(after, incoming)
            total, hour, day = zip(then, now, strict=True)
            for scopes, (old, target) in by_scopes((total, hour, day)):
                self._move(scopes, incoming, incoming, old, target)

    def add_incoming(self, new: Incoming) -> None:
        """An inbound message entered the timeline, or is now known to have come earlier."""
        parts = self._between(new.at - self._reach, new.at)
        own = parts[-1]
        old = next((i for i in own.received if i.id == new.id and i.at == new.at), None)
        if old is not None and old.heard_at <= new.heard_at:
            return
        self._keep(new.at, Timeline(own.arrived_at, own.sent, _with(own.received, new)))
        sent = [o for part in parts for o in part.sent]
        if not sent:
            return
        for scopes, target in by_scopes(self._targets(sent, new)):
            self._move(scopes, old, new, target if old else None, target)
            if target and scopes & ~self._counted(target, new):
                self._ledger.late = True

    def _move(
        self,
        scopes: int,
        old: Incoming | None,
        new: Incoming,
        before: Outgoing | None,
        after: Outgoing | None,
    ) -> None:
        if old == new and before and after and before.id == after.id:
            return
        if old and before:
            self._post(scopes, before, old, -1)
        if after:
            self._post(scopes, after, new, 1)

    def _post(self, scopes: int, target: Outgoing, incoming: Incoming, sign: int) -> None:
        counted = scopes & self._counted(target, incoming)
        if not counted:
            return
        reply = Delta(REPLY, shares.REPLIED, str(bucket((incoming.at - target.at) // 1000)))
        self._ledger.post(self._place(target), counted, reply, sign)
        if counted & TOTAL:
            self._ledger.weigh(score.REPLY, incoming.at, sign)
            self._ledger.weigh(score.INBOUND, incoming.at, -sign)

    def _counted(self, target: Outgoing, incoming: Incoming) -> int:
        """The scopes in which a reply to *target* is not late."""
        return self._ledger.in_time(self._place(target), incoming.heard_at)

    def _targets(self, sent: Sequence[Outgoing], incoming: Incoming) -> _Targets:
        """What *incoming* replies to in each scope."""
        latest = self._latest(sent, incoming)
        if latest is None or latest.scopes == EVERYWHERE:
            return latest, latest, latest
        total, hour, day = (
            self._latest([outgoing for outgoing in sent if outgoing.scopes & scope], incoming)
            for scope in SCOPES
        )
        return total, hour, day

    def _latest(self, sent: Sequence[Outgoing], incoming: Incoming) -> Outgoing | None:
        index = bisect_right(sent, incoming.at, key=lambda outgoing: outgoing.at)
        if index == 0 or incoming.at - sent[index - 1].at > self._reach:
            return None
        return sent[index - 1]

    def _place(self, target: Outgoing) -> Place:
        if target.id not in self._places:
            key = booking_key(target.at, self._ledger.activity.contact_key, self._account, target.id)
            booking = self._ledger.read.get(BOOKINGS, key)
            self._places[target.id] = self._ledger.place(target.at, booking.dimensions if booking else ())
        return self._places[target.id]

    def _between(self, first: int, last: int) -> list[Timeline]:
        parts = range(max(first, 0) // TIMELINE_MS, last // TIMELINE_MS + 1)
        read = self._ledger.read
        return [read.get(TIMELINES, timeline_key(part * TIMELINE_MS, self._name)) or EMPTY for part in parts]

    def _keep(self, at: int, part: Timeline) -> None:
        arrived_at = max(part.arrived_at, self._ledger.arrived_at)
        self._ledger.put(
            TIMELINES, timeline_key(at, self._name), Timeline(arrived_at, part.sent, part.received)
        )


def _with(entries: Sequence[M], new: M) -> tuple[M, ...]:
    """*entries*, in order, with *new* in its place, instead of what was known of the same message."""
    others = list(entries)
    if others and others[-1].at >= new.at:
        others = [e for e in others if (e.at, e.id) != (new.at, new.id)]
    insort(others, new)
    return tuple(others)
