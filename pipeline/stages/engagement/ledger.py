"""
The working set of one step: what a fact adds where, turned into one `Outcome` at the end.

A fact counts in three scopes that are kept apart: the contact's totals, its windows of an hour and
its windows of a day. Whether it is late is decided for each of the two windows by the fact's own
arrival; a late fact is left out of that scope, and whatever is computed there, such as which status
holds or which message was replied to, is computed as if it had never come.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from pipeline.errors import RecordError
from pipeline.events import Activity
from pipeline.instants import Time, to_ms
from pipeline.stage import Event, Outcome, Put, Reject, Store, Stores
from pipeline.stages.engagement import score
from pipeline.stages.engagement.postings import Delta, Entry, Opt, Place, Posting, places
from pipeline.stages.engagement.state import DAY, EVERYWHERE, HOUR, SEEN, TOTAL, Seen, day_text
from pipeline.windows import HOUR_MS

__all__ = ["Ledger", "Terms", "moment"]

UTC = ZoneInfo("UTC")

#: 9000-01-01: later times are nonsense, and days after them could leave the calendar.
LATEST_MS = 221_845_392_000_000


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of the stage."""

    zones: Mapping[str, ZoneInfo]  #: tenant -> time zone; UTC for others
    grace_ms: int
    reply_window_ms: int
    max_tags: int
    seen_ms: int


@lru_cache(maxsize=16_384)
def moment(time: Time) -> int:
    """
    *time* in ms since 1970; the facts of a message repeat its times.

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

    __slots__ = (
        "_active_at",
        "_counted",
        "_entries",
        "_opt",
        "_sum",
        "_writes",
        "_zone",
        "activity",
        "arrived_at",
        "at",
        "heard_at",
        "late",
        "read",
        "terms",
    )

    def __init__(self, read: Stores, event: Event[Activity], terms: Terms) -> None:
        activity = event.value
        self.read = read
        self.terms = terms
        self.activity = activity
        self.arrived_at = event.received_at
        self.heard_at = 0 if event.backfill else event.received_at
        self.at = moment(activity.event.occurred_at)
        self.late = False
        self._zone = terms.zones.get(activity.tenant, UTC)
        self._writes: list[Put] = []
        self._entries: list[Entry] = []
        self._sum = 0
        self._active_at: int | None = None
        self._opt: Opt | None = None
        self._counted = 0

    # -- where and when --------------------------------------------------------------------------

    def place(self, at: int, dimensions: tuple[str, ...]) -> Place:
        """Where what happened at *at* is booked."""
        early, late = places(self.activity.tenant, dimensions, at // HOUR_MS, self._zone)
        return early if at < early.day.end else late

    def in_time(self, place: Place, heard_at: int) -> int:
        """The scopes in which what was received at *heard_at* doesn't come too late for *place*."""
        earliest_end = heard_at - self.terms.grace_ms
        if place.hour.end >= earliest_end <= place.day.end:
            return EVERYWHERE
        in_hour = HOUR if place.hour.end >= earliest_end else 0
        return TOTAL | in_hour | (DAY if place.day.end >= earliest_end else 0)

    def admitted(self, place: Place) -> int:
        """The scopes in which this fact counts at *place*; it is late if that is not all of them."""
        scopes = self.in_time(place, self.heard_at)
        self.late = self.late or scopes != EVERYWHERE
        return scopes

    def happened(self) -> None:
        """The fact is an activity of the contact: it may be its first or last."""
        self._active_at = self.at

    # -- what ------------------------------------------------------------------------------------

    def post(self, place: Place, scopes: int, delta: Delta, sign: int = 1) -> None:
        """Add *delta*, or take it away with *sign* -1: in each of *scopes* to the totals or windows."""
        self._entries.append(Entry(place, scopes, delta, sign))

    def weigh(self, weight: float, at: int, sign: int = 1) -> None:
        """Let *weight* at *at* count in the score, or no more with *sign* -1."""
        self._sum += sign * score.contribution(weight, at)

    def opt(self, side: str, *, out: bool) -> None:
        """On *side*, ``opted_out`` or ``dnd``, the contact opted *out* or in; the latest holds."""
        self._opt = Opt(side, self.at, out)

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
        reject = self._rejected() if self.late or self._counted else ()
        return Outcome(writes=tuple(self._writes), reject=reject, postings=self._postings())

    def _postings(self) -> tuple[Posting, ...]:
        if not self._entries and self._active_at is None:
            return ()
        return (Posting(self._entries, self._sum, self._active_at, self._opt),)

    def _rejected(self) -> tuple[Reject, ...]:
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
