"""
The working set of one step: what a fact adds where, turned into one `Outcome` at the end.

A fact counts in three scopes that are kept apart: the contact's totals, its windows of an hour and
its windows of a day. Whether it is late is decided for each of the two windows by the fact's own
arrival; a late fact is left out of that scope, and whatever is computed there, such as which status
holds or which message was replied to, is computed as if it had never come.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from pipeline import windows
from pipeline.errors import RecordError
from pipeline.events import Activity, ContactEngagement, Partial
from pipeline.instants import Time, from_ms, to_ms
from pipeline.stage import Emit, Event, Outcome, Put, Reject, Store, Stores
from pipeline.stages.engagement import score
from pipeline.stages.engagement.state import (
    CONTACTS,
    DAY,
    HOUR,
    MEMBERS,
    SEEN,
    SHARES,
    TOTAL,
    Contact,
    Members,
    Seen,
    Share,
    day_text,
    members_key,
    share_key,
)
from pipeline.stages.measures import Delta, plus
from pipeline.windows import Span, day_of, hour_of

__all__ = ["Ledger", "Place", "Terms", "moment"]

UTC = ZoneInfo("UTC")
NO_SHARE = Share()

#: 9000-01-01: later times are nonsense, and days after them could leave the calendar.
LATEST_MS = 221_845_392_000_000

#: What `Members` counts of a contact in a window, and the measure in which the contact counts once.
DISTINCT = (("sent", "contacts_messaged"), ("received", "contacts_engaged"), ("replies", "repliers"))


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of the stage."""

    zones: Mapping[str, ZoneInfo]  #: tenant -> time zone; UTC for others
    grace_ms: int
    reply_window_ms: int
    max_tags: int
    seen_ms: int


class Place(NamedTuple):
    """Where a fact is booked: its dimensions, and the hour and the day of its time."""

    dimensions: tuple[str, ...]
    hour: Span
    day: Span

    def span(self, scope: int) -> Span:
        """The window of *scope*, `HOUR` or `DAY`."""
        return self.hour if scope == HOUR else self.day


def moment(time: Time) -> int:
    """
    *time* in ms since 1970.

    Raises:
        RecordError: it is no time between 1970 and 9000.
    """
    try:
        at = to_ms(time)
    except (ValueError, TypeError):
        raise RecordError("invalid-time", "a time is not RFC 3339") from None
    if not 0 <= at < LATEST_MS:
        raise RecordError("invalid-time", "a time is not between the years 1970 and 9000")
    return at


class Ledger:
    """Collects what one activity changes."""

    def __init__(self, read: Stores, event: Event[Activity], terms: Terms) -> None:
        self.read = read
        self.terms = terms
        self.activity = event.value
        self.arrived_at = event.received_at
        self.heard_at = 0 if event.backfill else event.received_at
        self.at = moment(event.value.event.occurred_at)
        self.late = False
        self._zone = terms.zones.get(event.value.tenant, UTC)
        self._contact = _contact(read, event.value)
        self._changed: dict[str, Any] = {}
        self._sum = 0
        self._total = Delta()
        self._windows: dict[Span, dict[tuple[str, ...], Delta]] = {}
        self._writes: list[Put] = []
        self._emit: list[Emit] = []
        self._activity = False
        self._counted = 0

    # -- where and when --------------------------------------------------------------------------

    def place(self, at: int, dimensions: tuple[str, ...]) -> Place:
        """Where what happened at *at* is booked."""
        return Place(dimensions, hour_of(at), day_of(at, self._zone))

    def is_late(self, span: Span, heard_at: int) -> bool:
        """Whether what was received at *heard_at* comes too late for the window *span*."""
        return heard_at - span.end > self.terms.grace_ms

    def admitted(self, place: Place) -> int:
        """The scopes in which this fact counts at *place*; it is late if that is not all of them."""
        scopes = TOTAL
        for scope in (HOUR, DAY):
            if self.is_late(place.span(scope), self.heard_at):
                self.late = True
            else:
                scopes |= scope
        return scopes

    def happened(self) -> None:
        """The fact is an activity of the contact: it may be its first or last."""
        self._activity = True

    # -- what ------------------------------------------------------------------------------------

    def post(self, place: Place, scope: int, delta: Delta, sign: int = 1) -> None:
        """Add *delta*, or take it away with *sign* -1: to the totals or to the windows of *scope*."""
        if scope == TOTAL:
            self._total.add(delta, sign)
            return
        deltas = self._windows.setdefault(place.span(scope), {})
        deltas.setdefault(place.dimensions, Delta()).add(delta, sign)

    def weigh(self, weight: float, at: int, sign: int = 1) -> None:
        """Let *weight* at *at* count in the score, or no more with *sign* -1."""
        self._sum += sign * score.contribution(weight, at)

    def opt(self, side: str, at: int, out: bool) -> None:
        """On *side*, ``opted_out`` or ``dnd``, the contact opted *out* or in at *at*; the latest holds."""
        known = getattr(self._contact, f"{side}_at"), getattr(self._contact, side)
        if (at, out) > known:
            self._changed |= {f"{side}_at": at, side: out}

    def unseen(self, scopes: int) -> int:
        """Of *scopes*, those in which this fact was not counted yet; it is now."""
        seen = self.read.get(SEEN, self._seen_key())
        self._counted = scopes
        return scopes & ~seen.scopes if seen else scopes

    def put(self, store: Store[Any], key: str, value: Any) -> None:
        """Set *key* of *store*."""
        self._writes.append(Put(store, key, value))

    # -- the outcome -----------------------------------------------------------------------------

    def outcome(self) -> Outcome:
        """All that the fact changes."""
        for span, groups in self._windows.items():
            deltas = _by_dimension(groups)
            self._publish_shares(span, deltas, self._count_members(span, deltas))
        self._publish_contact()
        reject = self._rejected()
        return Outcome(writes=tuple(self._writes), emit=tuple(self._emit), reject=reject)

    def _count_members(self, span: Span, deltas: dict[str, Delta]) -> dict[str, dict[str, int]]:
        """By dimension, in which measures of distinct contacts this one now counts, or no more."""
        if not any(delta.counts.get(name) for delta in deltas.values() for name, _ in DISTINCT):
            return {}
        key = members_key(span, self.activity.contact_key)
        members = self.read.get(MEMBERS, key) or Members()
        counts, distinct = dict(members.counts), {}
        for dimension, delta in deltas.items():
            old = counts.get(dimension, (0, 0, 0))
            sent, received, replies = (delta.counts.get(name, 0) for name, _ in DISTINCT)
            new = counts[dimension] = (old[0] + sent, old[1] + received, old[2] + replies)
            distinct[dimension] = {
                measure: (after > 0) - (before > 0)
                for (_, measure), before, after in zip(DISTINCT, old, new, strict=True)
            }
        self.put(MEMBERS, key, Members(max(members.arrived_at, self.arrived_at), counts))
        return distinct

    def _publish_shares(
        self, span: Span, deltas: dict[str, Delta], distinct: dict[str, dict[str, int]]
    ) -> None:
        number = self.read.partition
        for dimension, delta in deltas.items():
            key, kept_under = _share_keys(self.activity.tenant, dimension, span)
            share = self.read.get(SHARES, kept_under) or NO_SHARE
            measures = plus(share.measures, delta, distinct.get(dimension))
            if measures == share.measures:
                continue
            arrived_at, revision = max(share.arrived_at, self.arrived_at), share.revision + 1
            self.put(SHARES, kept_under, Share(arrived_at, revision, measures))
            partial = Partial(window_key=key, partition=number, revision=revision, measures=measures)
            self._emit.append(Emit("engagement.partials", f"{key}|{number}", partial))

    def _publish_contact(self) -> None:
        old = self._contact
        contact = msgspec.structs.replace(old, **self._changed)
        total = score.from_text(old.sum) + self._sum
        totals = plus(old.published, self._total)
        published = _published(totals, contact, total, self.at) if self._activity else totals
        contact = msgspec.structs.replace(
            contact, published=published, sum=score.to_text(total) if total else ""
        )
        if contact == old:
            return
        self.put(CONTACTS, published.contact_key, contact)
        if published != old.published:
            at = published.last_activity_at or Time("")
            self._emit.append(Emit("engagement.contacts", published.contact_key, published, occurred_at=at))

    def _rejected(self) -> tuple[Reject, ...]:
        if not self.late and not self._counted:
            return ()
        key = self._seen_key()
        seen = self.read.get(SEEN, key)
        scopes = self._counted | (seen.scopes if seen else 0)
        if seen is None or scopes != seen.scopes:
            self.put(SEEN, key, Seen(self.arrived_at, scopes))
        if seen is not None or not self.late:
            return ()
        grace_s = self.terms.grace_ms // 1000
        return (Reject("late", f"received more than {grace_s} s after the end of a window it belongs to"),)

    def _seen_key(self) -> str:
        return f"{day_text(self.at)}|{self.activity.fact_id}"


def _by_dimension(groups: dict[tuple[str, ...], Delta]) -> dict[str, Delta]:
    """What is added in each dimension; most facts add the same in all of theirs."""
    if len(groups) == 1:
        ((dimensions, delta),) = groups.items()
        return dict.fromkeys(dimensions, delta)
    deltas: dict[str, Delta] = {}
    for dimensions, delta in groups.items():
        for dimension in dimensions:
            deltas.setdefault(dimension, Delta()).add(delta)
    return deltas


@lru_cache(maxsize=16_384)
def _share_keys(tenant: str, dimension: str, span: Span) -> tuple[str, str]:
    """The window key, and under which key its share is kept."""
    key = windows.key(tenant, dimension, span)
    return key, share_key(key)


def _contact(read: Stores, activity: Activity) -> Contact:
    key = activity.contact_key
    empty = ContactEngagement(tenant=activity.tenant, contact_key=key)
    return read.get(CONTACTS, key) or Contact(published=empty)


def _published(totals: ContactEngagement, contact: Contact, total: int, at: int) -> ContactEngagement:
    """*totals* after an activity at *at*, with the score and the opt state that follow from the rest."""
    time = from_ms(at)
    last = max(time, totals.last_activity_at or time)
    value = score.sum_at(total, to_ms(last))
    opted_out = contact.opted_out or contact.dnd
    return msgspec.structs.replace(
        totals,
        first_activity_at=min(time, totals.first_activity_at or time),
        last_activity_at=last,
        score=0.0 if opted_out else round(score.score(value), 6),
        score_sum=round(value, 6),
        score_at=last,
        opted_out=opted_out,
    )
