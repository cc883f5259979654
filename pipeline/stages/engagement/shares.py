"""
Adding up windows: this partition's share of each, and in which of them a contact counts.

Postings are first added up by place, since the facts of one message are booked at the same, then by
window. A contact counts once in a window, so what it adds there depends on what is known of it.
"""

from collections import defaultdict
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

#: The measures in which a contact counts once, in the order of what `Members` counts: by what it follows.
DISTINCT = {"sent": "contacts_messaged", "received": "contacts_engaged", "replies": "repliers"}
INDEX = {name: index for index, name in enumerate(DISTINCT)}
MEASURES = tuple(DISTINCT.values())

#: Tenant, place and scopes of entries that are added to the same windows.
_Group = tuple[str, Place, int]
#: An entry for which the contact counts, and the index of what it counts as.
_Visit = tuple[Event[Any], Entry, int]
#: Contact key and window of time -> visits.
_Visits = defaultdict[tuple[str, Span], list[_Visit]]
#: Window key -> by how many contacts its measures of distinct contacts change.
_Distinct = defaultdict[str, dict[str, int]]


class _Sum:
    """What some entries add, how many they are, and the event that arrived last."""

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
    visits: _Visits = defaultdict(list)
    for event, posting in postings:
        for entry in posting.entries:
            scopes = entry.scopes & WINDOWS
            if scopes:
                group = (event.value.tenant, entry.place, scopes)
                added = groups.get(group)
                if added is None:
                    added = groups[group] = _Sum(event)
                added.add(entry.delta, entry.sign, 1, event)
                _visiting(visits, event, entry)
    distinct: _Distinct = defaultdict(dict)
    for (contact_key, span), seen in visits.items():
        yield _visited(read, contact_key, span, seen, distinct)
    for key, sums in _by_window(groups).items():
        added = _total(sums, distinct.get(key))
        yield added.cause, _changed(read, key, added)


def _visiting(visits: _Visits, event: Event[Any], entry: Entry) -> None:
    for name in entry.delta.counts:
        if name in INDEX:
            for span in _spans(entry.place, entry.scopes):
                visits[event.key, span].append((event, entry, INDEX[name]))


def _spans(place: Place, scopes: int) -> tuple[Span, ...]:
    if scopes & WINDOWS == WINDOWS:
        return place.hour, place.day
    return (place.hour,) if scopes & HOUR else (place.day,)


def _by_window(groups: dict[_Group, _Sum]) -> dict[str, list[_Sum]]:
    """The sums that belong to each window, by its key."""
    sums: defaultdict[str, list[_Sum]] = defaultdict(list)
    for (tenant, place, scopes), group in groups.items():
        for span in _spans(place, scopes):
            for key in _keys(tenant, place.dimensions, span):
                sums[key].append(group)
    return sums


def _total(sums: list[_Sum], distinct: dict[str, int] | None) -> _Sum:
    """All of *sums*, with the contacts that now count."""
    if len(sums) == 1 and not distinct:
        return sums[0]
    total = _Sum(sums[0].cause)
    for added in sums:
        total.add(added.delta, 1, added.entries, added.cause)
    if distinct:
        total.delta.counts |= distinct
    return total


def _visited(
    read: Stores, contact_key: str, span: Span, seen: list[_Visit], distinct: _Distinct
) -> tuple[Event[Any], Outcome]:
    """Count a contact in the windows of *span*, and in *distinct* where it now counts, or no more."""
    key, tenant = members_key(span, contact_key), seen[0][0].value.tenant
    members = read.get(MEMBERS, key) or Members()
    counts = dict(members.counts)
    before: dict[tuple[str, int], bool] = {}
    cause = seen[0][0]
    for event, entry, index in seen:
        for dimension in entry.place.dimensions:
            own = counts[dimension] = [*counts.get(dimension, (0, 0, 0))]
            before.setdefault((dimension, index), own[index] > 0)
            own[index] += entry.sign
        if event.received_at > cause.received_at:
            cause = event
    for (dimension, index), counted in before.items():
        counts_now = counts[dimension][index] > 0
        if counts_now != counted:
            changed, measure = distinct[_key(tenant, dimension, span)], MEASURES[index]
            changed[measure] = changed.get(measure, 0) + (1 if counts_now else -1)
    arrived_at = max(members.arrived_at, cause.received_at)
    return cause, Outcome(writes=(Put(MEMBERS, key, Members(arrived_at, counts)),))


def _changed(read: Stores, key: str, added: _Sum) -> Outcome:
    """The share of the window *key* with what is *added*; it is told if its measures change."""
    kept_under = share_key(key)
    share = read.get(SHARES, kept_under) or NO_SHARE
    measures = plus(share.measures, added.delta)
    arrived_at = max(share.arrived_at, added.cause.received_at)
    revision = share.revision + added.entries
    kept = (Put(SHARES, kept_under, Share(arrived_at, revision, measures)),)
    if measures == share.measures:
        return Outcome(writes=kept)
    partial = Partial(window_key=key, partition=read.partition, revision=revision, measures=measures)
    return Outcome(writes=kept, emit=(Emit("engagement.partials", f"{key}|{read.partition}", partial),))


@lru_cache(maxsize=16_384)
def _keys(tenant: str, dimensions: tuple[str, ...], span: Span) -> tuple[str, ...]:
    return tuple(_key(tenant, dimension, span) for dimension in dimensions)


@lru_cache(maxsize=16_384)
def _key(tenant: str, dimension: str, span: Span) -> str:
    return windows.key(tenant, dimension, span)
