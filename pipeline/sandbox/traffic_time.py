"""
When the sample traffic happens: mostly now, some of it up to ten days ago, around one boundary.

Windows close when their end plus the grace has passed. A run lasts a minute, so the grace of a development
run is chosen such that the windows ending at one *boundary*, a UTC midnight three to four days ago, close
shortly after the traffic begins: `dev_grace_s`. What happened just before the boundary is then in time at
first and late afterwards; what is older is always late; all else stays open.
"""

import random
from enum import Enum
from typing import Final

__all__ = [
    "CLOSES_AFTER_S",
    "DAY_MS",
    "ERA_SPAN_MS",
    "HORIZON_MS",
    "HOUR_MS",
    "Era",
    "boundary_ms",
    "dev_grace_s",
    "era_start_ms",
]

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
MINUTE_MS: Final = 60_000
#: enough for a pipeline to start, short enough to see windows close
CLOSES_AFTER_S: Final = 20
#: the oldest created.at, before the start
HORIZON_MS: Final = 10 * DAY_MS
#: a contact that lives in the past comes to the present after so long, so that it stays within its hour
ERA_SPAN_MS: Final = 50 * MINUTE_MS
#: before the start; beyond the reply window of 72 h
_BOUNDARY_AGE_MS: Final = 3 * DAY_MS


class Era(Enum):
    """When a contact's part of the traffic happens."""

    NOW = "now"
    RECENT = "recent"  #: one hour of yesterday: its windows stay open
    CLOSING = "closing"  #: the hour before the boundary: its windows close during the run
    OLD = "old"  #: five to ten days ago: late for every window


def boundary_ms(start_ms: int) -> int:
    """The last midnight (UTC) at least three days before *start_ms*; both in ms since 1970."""
    latest = start_ms - _BOUNDARY_AGE_MS
    return latest - latest % DAY_MS


def dev_grace_s(start_ms: int, closes_after_s: int = CLOSES_AFTER_S) -> int:
    """
    The grace, in seconds, with which windows ending at the boundary close *closes_after_s* after the start.

    This is what ``engagement.grace_s`` must be for a run of the sample traffic that starts at *start_ms*; it
    lies between three and four days.
    """
    return -(-(start_ms - boundary_ms(start_ms)) // 1_000) + closes_after_s


def era_start_ms(era: Era, start_ms: int, boundary: int, rng: random.Random) -> int:
    """When the clock of a contact of *era* stands at the start of the traffic, in ms since 1970."""
    match era:
        case Era.NOW:
            return start_ms
        case Era.RECENT:
            yesterday = start_ms - 26 * HOUR_MS
            return yesterday - yesterday % HOUR_MS + rng.randrange(5 * MINUTE_MS)
        case Era.CLOSING:
            return boundary - HOUR_MS + rng.randrange(5 * MINUTE_MS)
        case Era.OLD:
            return start_ms - rng.randrange(5 * DAY_MS, HORIZON_MS)
