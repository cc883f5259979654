"""
Recognise facts that were seen, for as many days as the settings say, and forget older ones.

One store entry a resource, about 20 bytes for each of its facts. Its key is the day of the resource's
immutable ``created.at`` (else of the facts' ``occurred_at``) and 16 bytes of the hash of its name, its
value the kinds of the facts that were seen. So one lookup answers for all that a record implies, and a
day is dropped as one range.

Reach: a fact whose day lies further back than ``seen_days`` is emitted, and remembered until the next
drop, at the next midnight (UTC) that the clock ticks past. Within the reach nothing counts twice;
history beyond it is rebuilt by a replay of its own, as the design says.
"""

import hashlib
from binascii import b2a_base64
from datetime import date
from functools import lru_cache
from typing import Any

from pipeline.instants import Time
from pipeline.stage import NOTHING, Cursor, Delete, Outcome, Put, Store, Stores
from pipeline.stages.decode.stores import MARKS, SEEN, SNAPSHOTS

__all__ = ["day_of", "drop", "seen_key", "tick"]

#: Deletions at most in one call of `drop`.
_CHUNK = 500
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_DROPPED = "dropped"
_URL_SAFE, _PADDING = bytes.maketrans(b"+/", b"-_"), b"=\n"
#: What is dropped by day: name of the cursor's job -> store
_BY_DAY: dict[str, Store[Any]] = {"seen": SEEN, "snapshots": SNAPSHOTS}


def day_of(time: Time) -> int:
    """The UTC day of *time*, counted from 1970-01-01."""
    return _day(time[:10])


@lru_cache(maxsize=4_096)
def _day(text: str) -> int:
    return date.fromisoformat(text).toordinal() - _EPOCH_ORDINAL


def seen_key(name: str, time: Time) -> str:
    """Where the store says which facts of the resource of this name were seen, on the day of *time*."""
    digest = hashlib.sha256(name.encode()).digest()
    return _day_text(time[:10]) + b2a_base64(digest[:16]).translate(_URL_SAFE, _PADDING).decode()


@lru_cache(maxsize=4_096)
def _day_text(date: str) -> str:
    return f"{_day(date):05d}"


def tick(read: Stores, at: Time, seen_days: int) -> Outcome:
    """Begin to drop what is older than *seen_days* when a new day has come."""
    first_kept = day_of(at) - seen_days
    if first_kept <= (read.get(MARKS, _DROPPED) or 0):
        return NOTHING
    cursors = tuple(Cursor(f"{name}:{first_kept}") for name in _BY_DAY)
    return Outcome(writes=(Put(MARKS, _DROPPED, first_kept),), more=cursors)


def drop(read: Stores, cursor: Cursor) -> Outcome:
    """Drop the next entries of days before the one that *cursor* names."""
    name, _, first_kept = cursor.job.partition(":")
    store = _BY_DAY[name]
    keys = [key for key, _ in read.scan(store, cursor.at, f"{int(first_kept):05d}", limit=_CHUNK)]
    more = (Cursor(cursor.job, keys[-1]),) if len(keys) == _CHUNK else ()
    return Outcome(writes=tuple(Delete(store, key) for key in keys), more=more)
