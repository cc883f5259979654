"""
Adding up windows: this partition's share of each, and in which of them a contact counts.

Postings are added by place first, since most facts of a message, and many messages of a campaign, are
booked at the same; then by dimension.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

from pipeline import windows
from pipeline.events import Partial
from pipeline.stage import Emit, Event, Outcome, Posted, Put, Stores
from pipeline.stages.engagement.postings import Entry, Place
from pipeline.stages.engagement.state import (
    DAY,
    HOUR,
    MEMBERS,
    SHARES,
    Members,
    Share,
    members_key,
    share_key,
)
from pipeline.stages.measures import Delta, plus
from pipeline.windows import Span

__all__ = ["add_up"]

NO_SHARE = Share()
WINDOWS = HOUR | DAY

#: What `Members` counts of a contact in a window, and the measure in which the contact counts once.
DISTINCT = (("sent", "contacts_messaged"), ("received", "contacts_engaged"), ("replies", "repliers"))

#: Tenant, place and scopes of entries that are added to the same windows.
_Group = tuple[str, Place, int]
#: Tenant, span and dimension of one window.
_Window = tuple[str, Span, str]


class _Sum:
    """What is added at one place, or to one window: by how many entries, and which arrived last."""

    __slots__ = ("cause", "delta", "entries")

    def __init__(self, cause: Event[Any]) -> None:
        self.delta = Delta()
        self.entries = 0
        self.cause = cause

    def add(self, delta: Delta, sign: int, entries: int, cause: Event[Any]) -> None:
        self.delta.add(delta, sign)
        self.entries += entries
        if cause.received_at > self.cause.received_at:
            self.cause = cause


def add_up(read: Stores, postings: Iterable[Posted]) -> Iterator[tuple[Event[Any], Outcome]]:
    """The windows that *postings* change, and the contacts that count in them, each once."""
    groups: dict[_Group, _Sum] = {}
    visits: dict[tuple[str, Span], list[tuple[Event[Any], Entry]]] = {}
    for event, posting in postings:
        for entry in posting.entries:
            scopes = entry.scopes & WINDOWS
            if scopes:
                group = (event.value.tenant, entry.place, scopes)
                added = groups.get(group)
                if added is None:
                    added = groups[group] = _Sum(event)
                added.add(entry.delta, entry.sign, 1, event)
                if any(name in entry.delta.counts for name, _ in DISTINCT):
                    for span in _spans(entry.place, scopes):
                        visits.setdefault((event.key, span), []).append((event, entry))
    sums = _by_window(groups)
    for (key, span), entries in visits.items():
        yield _visited(read, key, span, entries, sums)
    for window, added in sums.items():
        yield added.cause, _changed(read, window, added)


def _spans(place: Place, scopes: int) -> tuple[Span, ...]:
    return (place.hour, place.day) if scopes == WINDOWS else (place.span(scopes),)


def _by_window(groups: dict[_Group, _Sum]) -> dict[_Window, _Sum]:
    sums: dict[_Window, _Sum] = {}
    for (tenant, place, scopes), group in groups.items():
        for span in _spans(place, scopes):
            for dimension in place.dimensions:
                window = (tenant, span, dimension)
                added = sums.get(window)
                if added is None:
                    added = sums[window] = _Sum(group.cause)
                added.add(group.delta, 1, group.entries, group.cause)
    return sums


def _visited(
    read: Stores,
    contact_key: str,
    span: Span,
    entries: list[tuple[Event[Any], Entry]],
    sums: dict[_Window, _Sum],
) -> tuple[Event[Any], Outcome]:
    """Count a contact in the windows of *span*, and add to *sums* where it now counts, or no more."""
    key = members_key(span, contact_key)
    members = read.get(MEMBERS, key) or Members()
    counts = dict(members.counts)
    for _, entry in entries:
        added = [entry.sign * entry.delta.counts.get(name, 0) for name, _ in DISTINCT]
        for dimension in entry.place.dimensions:
            old = counts.get(dimension, (0, 0, 0))
            counts[dimension] = (old[0] + added[0], old[1] + added[1], old[2] + added[2])
    cause = max((event for event, _ in entries), key=lambda event: event.received_at)
    for dimension in dict.fromkeys(dimension for _, entry in entries for dimension in entry.place.dimensions):
        before, after = members.counts.get(dimension, (0, 0, 0)), counts[dimension]
        total = sums[cause.value.tenant, span, dimension].delta.counts
        for (_, measure), one, other in zip(DISTINCT, before, after, strict=True):
            if (one > 0) != (other > 0):
                total[measure] = total.get(measure, 0) + (1 if other > 0 else -1)
    arrived_at = max(members.arrived_at, cause.received_at)
    return cause, Outcome(writes=(Put(MEMBERS, key, Members(arrived_at, counts)),))


def _changed(read: Stores, window: _Window, added: _Sum) -> Outcome:
    """The share of *window* with what is *added*; it is told if its measures change."""
    key, kept_under = _keys(*window)
    share = read.get(SHARES, kept_under) or NO_SHARE
    measures = plus(share.measures, added.delta)
    changed = Share(max(share.arrived_at, added.cause.received_at), share.revision + added.entries, measures)
    kept = (Put(SHARES, kept_under, changed),)
    if measures == share.measures:
        return Outcome(writes=kept)
    number = read.partition
    partial = Partial(window_key=key, partition=number, revision=changed.revision, measures=measures)
    return Outcome(writes=kept, emit=(Emit("engagement.partials", f"{key}|{number}", partial),))


@lru_cache(maxsize=16_384)
def _keys(tenant: str, span: Span, dimension: str) -> tuple[str, str]:
    """The window key, and under which key its share is kept."""
    key = windows.key(tenant, dimension, span)
    return key, share_key(key)
