"""
Count what each contact did with our messages, in the contact's totals and in windows of time.

Reads    ``activity.enriched``  key: contact key; ``clock.ticks``
         ``redactions``  key: contact key or native key; who was erased, and is left out
Writes   ``engagement.contacts``  compacted: totals, score and opt state, whenever they change
         ``engagement.partials``  compacted: this partition's share of a window, absolute
State    per contact its totals (for ever); per message its booking, per conversation and four days its
         timeline, per contact and window its distinct counts, late and opt facts seen (all kept
         ``seen_days`` after both their own time and their last arrival); per window this
         partition's share (400 d); who was erased
Time     event time decides the window, arrival (``received_at``) what is late; ticks only drop state
Repeats  redelivered facts change nothing; any order of facts ends in the same totals and measures,
         but: a message's dimensions are those of the first of its facts that comes; an inbound
         message is dead-lettered for being late as a reply only if the outbound message was known
         when it came; and which changes of a contact or a share are
         told one by one depends on the batches: each is told once a batch

What counts where:

- An outbound message is booked in the hour and the day of its created.at: ``sent`` by its sent fact,
  ``delivered`` or ``failed`` by the terminal status that occurred last (delivered if times are
  equal), ``segments`` and ``cost`` by the price told last (the larger if times are equal).
- ``received``, opt-outs, opt-ins (contact-wide ones on Sakari, no lists) and conversations are booked
  at their own time. ``contacts_engaged`` are the distinct contacts with an inbound message in the
  window; ``contacts_messaged`` those with an outbound one; ``repliers`` those with a reply.
- Every inbound message is a reply that follows the latest outbound message of its conversation by at
  most the reply window, both ends included; it is booked where that outbound message is. Of equal
  times the outbound one comes first, of several outbound ones that with the largest id counts.
  Messages without a conversation share one of their own per contact and account.
- Late is decided for each fact and window. A late fact counts in the contact's totals and in the
  windows that it is not late for. For an hour or a day it is late for, it never happened: it neither
  books nor corrects anything there, and an outbound one is nobody's latest. A reply is late by its
  own arrival for the window of the message it replies to. The record is dead-lettered once, as
  ``late``; put back with a backfill mark it is counted where it was left out.
- A reply moves when an outbound message turns up between it and the one it was given to, even if
  that window has been closed: it is then revised.
- A fact of a message that was dropped from the state is counted in the totals anew.
- After a contact's number changed, new facts count under the new key; nothing moves.
- Of somebody who was erased all is forgotten but what they added to the sums, which tell of nobody.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from pipeline.errors import RecordError
from pipeline.events import (
    Activity,
    ContactOptedIn,
    ContactOptedOut,
    ConversationClosed,
    ConversationStarted,
    MessagePriced,
    MessageReceived,
    MessageSent,
    MessageStatusChanged,
    Tick,
    UnknownFact,
    UsersContactDndUpdated,
)
from pipeline.stage import NOTHING, Cursor, Event, Outcome, Posted, Stage, Stores
from pipeline.stages.engagement import erasure, happenings, messages, shares, sweep, totals
from pipeline.stages.engagement.ledger import Ledger, Terms
from pipeline.stages.engagement.state import BOOKINGS, CLOCK, CONTACTS, MEMBERS, SEEN, SHARES, TIMELINES
from pipeline.stages.measures import GATHER_S
from pipeline.stages.redactions import REDACTED, is_redacted

__all__ = ["stage"]


def _refuse(_: Ledger, fact: UnknownFact) -> None:
    """What a later version tells must not be missing from the sums: it is put back after the upgrade."""
    raise RecordError("unknown-fact", f"{fact.fact_type} is newer than this version of the stage")


#: What counts each fact; others feed no measure: lists, moves, what the Users API sent, what is not modelled.
COUNTED: Mapping[type, Callable[[Ledger, Any], None]] = {
    MessageSent: messages.count_sent,
    MessageStatusChanged: messages.count_status,
    MessagePriced: messages.count_price,
    MessageReceived: messages.count_received,
    ContactOptedOut: happenings.count_opt,
    ContactOptedIn: happenings.count_opt,
    ConversationStarted: happenings.count_conversation,
    ConversationClosed: happenings.count_conversation,
    UsersContactDndUpdated: happenings.count_dnd,
    UnknownFact: _refuse,
}


def stage(
    *, zones: Mapping[str, ZoneInfo], grace_s: int, reply_window_s: int, max_tags: int, seen_days: int
) -> Stage:
    """
    The stage ``engagement``.

    *zones* are the tenants' time zones (UTC for others). *grace_s* seconds after its end a window
    takes no more facts; *reply_window_s* seconds after an outbound message an inbound one is a reply
    to it; of an event's tags *max_tags* become dimensions; *seen_days* days messages are remembered.
    """
    terms = Terms(
        zones=zones,
        grace_ms=grace_s * 1000,
        reply_window_ms=reply_window_s * 1000,
        max_tags=max_tags,
        seen_ms=seen_days * 86_400_000,
    )
    return Stage(
        name="engagement",
        inputs=("redactions", "activity.enriched", "clock.ticks"),
        outputs=("engagement.contacts", "engagement.partials"),
        stores=(CONTACTS, BOOKINGS, TIMELINES, MEMBERS, SEEN, SHARES, CLOCK, REDACTED),
        step=partial(_step, terms),
        resume=partial(_resume, terms),
        add_up=_add_up,
        gather_s=GATHER_S,
        state_version=3,
    )


def _step(terms: Terms, read: Stores, event: Event[Any]) -> Outcome:
    value = event.value
    if isinstance(value, Activity):
        return _activity(terms, read, event)
    if isinstance(value, Tick):
        return sweep.on_tick(read, value)
    if event.topic == "redactions":
        return erasure.redact(read, event)
    raise RecordError("unexpected-value", f"expected an activity or a tick, not {type(value)}")


def _resume(terms: Terms, read: Stores, cursor: Cursor) -> Outcome:
    if cursor.job.startswith(erasure.FORGET):
        return erasure.resume(read, cursor)
    return sweep.resume(terms, read, cursor)


def _activity(terms: Terms, read: Stores, event: Event[Activity]) -> Outcome:
    fact = event.value.event
    if event.value.contact_key != event.key:
        raise RecordError("wrong-key", "the record's key is not the activity's contact key")
    if is_redacted(read, event.key):
        return NOTHING
    ledger = Ledger(read, event, terms)
    count = COUNTED.get(type(fact))
    if count is not None:
        count(ledger, fact)
    return ledger.outcome()


def _add_up(read: Stores, postings: Sequence[Posted]) -> Iterator[tuple[Event[Any], Outcome]]:
    yield from totals.add_up(read, postings)
    yield from shares.add_up(read, postings)
