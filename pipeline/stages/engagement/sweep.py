"""Dropping what is too old to matter, once a UTC day, in chunks between batches."""

from typing import Any

from pipeline.events import Tick
from pipeline.instants import from_ms
from pipeline.stage import NOTHING, Cursor, Delete, Outcome, Put, Store, Stores
from pipeline.stages.engagement.ledger import Terms, moment
from pipeline.stages.engagement.state import BOOKINGS, CLOCK, DAY_MS, MEMBERS, SEEN, SHARES, TIMELINES

__all__ = ["on_tick", "resume"]

#: As long as ``engagement.partials`` and ``engagement.metrics`` are kept.
WINDOWS_KEPT_MS = 400 * DAY_MS

#: Entries looked at in one call, so that a call stays far below 20 ms.
CHUNK = 500

AGEING: tuple[Store[Any], ...] = (BOOKINGS, TIMELINES, MEMBERS, SEEN, SHARES)
SWEPT = {store.name: store for store in AGEING}


def on_tick(read: Stores, tick: Tick) -> Outcome:
    """Begin a sweep on the first tick of a day."""
    now, swept = moment(tick.at), read.get(CLOCK, "swept")
    if swept is not None and now // DAY_MS <= swept // DAY_MS:
        return NOTHING
    return Outcome(writes=(Put(CLOCK, "swept", now),), more=tuple(Cursor(name) for name in SWEPT))


def resume(terms: Terms, read: Stores, cursor: Cursor) -> Outcome:
    """Drop the next entries of the store that *cursor* names."""
    store = SWEPT[cursor.job]
    kept_ms = WINDOWS_KEPT_MS if store is SHARES else terms.seen_ms
    horizon = max((read.get(CLOCK, "swept") or 0) - kept_ms, 0)
    # What an old key holds may have arrived lately, in a backfill: then it is kept as long from there.
    entries = list(read.scan(store, cursor.at, from_ms(horizon)[:10], limit=CHUNK))
    writes = tuple(Delete(store, key) for key, value in entries if value.arrived_at < horizon)
    more = (Cursor(cursor.job, entries[-1][0] + "\0"),) if len(entries) == CHUNK else ()
    return Outcome(writes=writes, more=more)
