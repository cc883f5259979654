"""
Forget a person: their totals at once, their messages, conversations and distinct counts by cursors.

What they added to the shares of windows stays: sums tell of nobody.
"""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from pipeline.stage import Cursor, Delete, Emit, Event, Outcome, Store, Stores
from pipeline.stages.engagement.state import BOOKINGS, CONTACTS, MEMBERS, TIMELINES
from pipeline.stages.redactions import remembered

__all__ = ["FORGET", "redact", "resume"]

#: Begins the jobs of cursors, then the store, then the contact key.
FORGET = "redacted:"

#: Entries looked at in one call.
_CHUNK = 500

#: Stores whose keys hold a contact key, and whose it is that a key of theirs belongs to.
_OWNERS: Mapping[str, tuple[Store[Any], Callable[[str], str]]] = {
    BOOKINGS.name: (BOOKINGS, lambda place: unquote(place.split("|", 2)[1])),
    TIMELINES.name: (TIMELINES, lambda place: unquote(place.split("|", 2)[1])),
    MEMBERS.name: (MEMBERS, lambda place: place.split("|", 2)[2]),
}


def redact(read: Stores, event: Event[Any]) -> Outcome:
    """Forget whose key the redaction *event* has, if they are known here; a tombstone lets them in again."""
    kept = remembered(event)
    if event.value is None or read.get(CONTACTS, event.key) is None:
        return Outcome(kept)
    gone = Emit("engagement.contacts", event.key, None, occurred_at=event.value.erased_at)
    cursors = tuple(Cursor(f"{FORGET}{name}:{event.key}") for name in _OWNERS)
    return Outcome((*kept, Delete(CONTACTS, event.key)), (gone,), more=cursors)


def resume(read: Stores, cursor: Cursor) -> Outcome:
    """Forget what the next entries of a store hold of the person that *cursor* names."""
    name, _, key = cursor.job.removeprefix(FORGET).partition(":")
    store, owner = _OWNERS[name]
    entries = [place for place, _ in read.scan(store, cursor.at, "~", limit=_CHUNK)]
    writes = tuple(Delete(store, place) for place in entries if owner(place) == key)
    more = (Cursor(cursor.job, entries[-1] + "\0"),) if len(entries) == _CHUNK else ()
    return Outcome(writes, more=more)
