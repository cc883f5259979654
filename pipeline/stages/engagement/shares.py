"""
Adding up windows: this partition's share of each, and in which of them a contact counts.

Postings are first added up by place, since the facts of one message are booked at the same, then by
window. A contact counts once in a window, so what it adds there depends on what is known of it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Final

from pipeline.events import Measures, Partial
from pipeline.stage import Emit, Event, Outcome, Posted, Put, Stores
from pipeline.stages.engagement.postings import NEVER, Entry, Place, window_key
from pipeline.stages.engagement.state import (
    DAY,
    HOUR,
    MEMBERS,
    SHARES,
    TIMES_BITS,
    Members,
    Share,
    members_key,
    share_key,
)
from pipeline.stages.measures import amount, plus, written
from pipeline.windows import Span

__all__ = ["CONTACTED", "ENGAGED", "REPLIED", "add_up"]

NO_SHARE: Final = Share()
NO_MEMBERS: Final = Members()
WINDOWS: Final = HOUR | DAY

#: What a contact counts as once in a window; `Members` counts how often in this order.
DISTINCT = tuple(amount(**{name: 1}) for name in ("contacts_messaged", "contacts_engaged", "repliers"))
CONTACTED, ENGAGED, REPLIED = range(len(DISTINCT))

#: Contact key and window of time -> what happened at which places, as added to `Members`' numbers.
_Visits = defaultdict[tuple[str, Span], list[tuple[Event[Any], Place, int]]]


class _Sum:
    """What some entries add, how many they are, and the event that arrived last."""

    __slots__ = ("amount", "cause", "entries", "replies")

    def __init__(self, cause: Event[Any]) -> None:
        self.amount = 0
        self.entries = 0
        self.replies: dict[str, int] = {}
        self.cause = cause


def add_up(read: Stores, postings: Iterable[Posted]) -> Iterator[tuple[Event[Any], Outcome]]:
    """The windows that *postings* change, and the contacts that count in them, each once."""
    groups: dict[tuple[Place, int], _Sum] = {}
    visits: _Visits = defaultdict(list)
    for event, posting in postings:
        for entry in posting.entries:
            scopes = entry.scopes & WINDOWS
            if scopes:
                group, delta = (entry.place, scopes), entry.delta
                added = groups.get(group)
                if added is None:
                    added = groups[group] = _Sum(event)
                elif event.received_at > added.cause.received_at:
                    added.cause = event
                added.amount += delta.amount if entry.sign > 0 else -delta.amount
                added.entries += 1
                if delta.bucket:
                    added.replies[delta.bucket] = added.replies.get(delta.bucket, 0) + entry.sign
                if delta.counts_as != NEVER:
                    _visiting(visits, event, entry)
    distinct: dict[str, int] = {}
    for (contact_key, span), seen in visits.items():
        yield _visited(read, contact_key, span, seen, distinct)
    for key, added in _by_window(groups).items():
        added.amount += distinct.get(key, 0)
        yield added.cause, _changed(read, key, added)


def _visiting(visits: _Visits, event: Event[Any], entry: Entry) -> None:
    visit = event, entry.place, entry.sign << entry.delta.counts_as * TIMES_BITS
    if entry.scopes & HOUR:
        visits[event.key, entry.place.hour].append(visit)
    if entry.scopes & DAY:
        visits[event.key, entry.place.day].append(visit)


def _by_window(groups: dict[tuple[Place, int], _Sum]) -> dict[str, _Sum]:
    """What is added to each window, by its key."""
    sums: dict[str, _Sum] = {}
    for (place, scopes), group in groups.items():
        cause, keys = group.cause, place.hour_keys if scopes & HOUR else ()
        for key in keys + place.day_keys if scopes & DAY else keys:
            added = sums.get(key)
            if added is None:
                added = sums[key] = _Sum(cause)
            elif cause.received_at > added.cause.received_at:
                added.cause = cause
            added.amount += group.amount
            added.entries += group.entries
            if group.replies:
                for bucket, count in group.replies.items():
                    added.replies[bucket] = added.replies.get(bucket, 0) + count
    return sums


def _visited(
    read: Stores,
    contact_key: str,
    span: Span,
    seen: list[tuple[Event[Any], Place, int]],
    distinct: dict[str, int],
) -> tuple[Event[Any], Outcome]:
    """Count a contact in the windows of *span*, and in *distinct* where it now counts, or no more."""
    key, cause = members_key(span, contact_key), max([event for event, _, _ in seen], key=_arrived_at)
    members = read.get(MEMBERS, key) or NO_MEMBERS
    times = members.times.copy()
    for _, place, more in seen:
        for dimension in place.dimensions:
            times[dimension] = times.get(dimension, 0) + more
    tenant = cause.value.tenant
    for dimension, now in times.items():
        turned = _turned(members.times.get(dimension, 0), now)
        if turned:
            window = window_key(tenant, dimension, span)
            distinct[window] = distinct.get(window, 0) + turned
    arrived_at = max(members.arrived_at, cause.received_at)
    return cause, Outcome(writes=(Put(MEMBERS, key, Members(arrived_at, times)),))


def _arrived_at(event: Event[Any]) -> int:
    return event.received_at


@lru_cache(maxsize=4_096)
def _turned(before: int, now: int) -> int:
    """What a contact adds to the distinct ones of a window once its numbers are *now* and not *before*."""
    at = [index * TIMES_BITS for index in range(len(DISTINCT))]
    mask = (1 << TIMES_BITS) - 1
    return sum(
        one * ((now >> shift & mask > 0) - (before >> shift & mask > 0))
        for one, shift in zip(DISTINCT, at, strict=True)
    )


def _changed(read: Stores, key: str, added: _Sum) -> Outcome:
    """The share of the window *key* with what is *added*; it is told if its measures change."""
    kept_under = share_key(key)
    share = read.get(SHARES, kept_under) or NO_SHARE
    sums = plus(share.sums, added.amount, added.replies)
    arrived_at = max(share.arrived_at, added.cause.received_at)
    revision = share.revision + added.entries
    kept = (Put(SHARES, kept_under, Share(arrived_at, revision, sums)),)
    if sums == share.sums:
        return Outcome(writes=kept)
    partial = Partial(
        window_key=key, partition=read.partition, revision=revision, measures=written(sums, Measures)
    )
    return Outcome(writes=kept, emit=(Emit("engagement.partials", f"{key}|{read.partition}", partial),))
