"""
How an attempt to post ends, as changes of the state: pure, and applied to the newest state.

While a value was on its way a newer one may have come. So each change compares versions first: only
what was really posted, refused or given up is forgotten. A request that nobody answered may take effect
after the one that follows it: so what is posted meanwhile stays, to be posted once more.
"""

import hashlib
import uuid
from typing import Final

import msgspec

from pipeline.events import PostedStatistics
from pipeline.instants import from_ms
from pipeline.sinks.statistics.stage import Plan
from pipeline.sinks.statistics.state import (
    PENDING,
    POSTED,
    Contact,
    Pending,
    Posted,
    Window,
    put,
    removed,
)
from pipeline.stage import NOTHING, Emit, Outcome, Put, Reject, Stores, Write

__all__ = ["STATISTICS", "dropped", "expired", "posted", "postponed", "rejected", "statistics_id"]

#: The name space of statistics ids (UUID version 5); never to be changed, or repeats double.
STATISTICS: Final = uuid.UUID("4b0b5c36-0d3c-5f0e-9a3e-7a1f5f0c2d11")


def statistics_id(pending: Pending) -> str:
    """The same for every value of one window, or contact, at one location: a repeat replaces."""
    return str(uuid.uuid5(STATISTICS, f"{pending.work.subject}|{pending.location_id}"))


def posted(read: Stores, pending: Pending, plan: Plan, *, at_ms: int, status: int) -> Outcome:
    """The destination took it: forget it, unless an older value may still arrive there, and tell."""
    done = msgspec.structs.replace(pending, attempts=pending.attempts + 1, status=status, error=None)
    mark = Put(POSTED, pending.key, Posted(version=pending.work.version, at_ms=at_ms))
    return Outcome(
        writes=(mark, *_forgotten(read, pending, plan, at_ms)),
        emit=(_told(done, plan, "posted", at_ms),),
    )


def rejected(read: Stores, pending: Pending, plan: Plan, *, at_ms: int, status: int, error: str) -> Outcome:
    """The destination refused it for good: a dead letter."""
    done = msgspec.structs.replace(pending, attempts=pending.attempts + 1, status=status, error=error)
    return Outcome(
        writes=_forgotten(read, pending, plan, at_ms),
        emit=(_told(done, plan, "rejected", at_ms),),
        reject=(Reject("rejected", f"location {pending.location_id}: {error}"),),
    )


def expired(read: Stores, pending: Pending, plan: Plan, *, at_ms: int) -> Outcome:
    """It could not be posted for too long: a dead letter."""
    return Outcome(
        writes=_forgotten(read, pending, plan, at_ms),
        emit=(_told(pending, plan, "expired", at_ms),),
        reject=(Reject("expired", f"location {pending.location_id}: {pending.error or 'never tried'}"),),
    )


def dropped(read: Stores, pending: Pending, plan: Plan, *, at_ms: int) -> Outcome:
    """The destination holds something newer, posted by way of another partition: nothing to tell."""
    mark = Put(POSTED, pending.key, Posted(version=pending.work.version, at_ms=at_ms))
    return Outcome(writes=(mark, *_forgotten(read, pending, plan, at_ms)))


def postponed(
    read: Stores,
    pending: Pending,
    *,
    due_ms: int,
    at_ms: int,
    attempts: int,
    error: str | None,
    status: int | None,
    unsure_until_ms: int = 0,
) -> Outcome:
    """
    It could not be posted now: not before *due_ms* again. A newer value takes its place in the queue.

    Until *unsure_until_ms* the destination may still take it, though it did not answer.
    """
    newest = read.get(PENDING, pending.key)
    if newest is None:
        return NOTHING
    waiting = msgspec.structs.replace(
        newest,
        due_ms=due_ms,
        since_ms=newest.since_ms or at_ms,
        attempts=attempts,
        error=error,
        status=status,
        unsure_until_ms=max(newest.unsure_until_ms, unsure_until_ms),
    )
    return Outcome(writes=put(read, waiting))


def _forgotten(read: Stores, pending: Pending, plan: Plan, at_ms: int) -> tuple[Write, ...]:
    newest = read.get(PENDING, pending.key)
    if newest is None:
        return ()
    if newest.work.version != pending.work.version:
        interval = plan.interval_ms(newest.work)
        due_ms = at_ms + interval if interval else 0
    elif newest.unsure_until_ms > at_ms:
        due_ms = newest.unsure_until_ms
    else:
        return removed(read, pending.key)
    fresh = msgspec.structs.replace(newest, due_ms=due_ms, since_ms=0, attempts=0, error=None, status=None)
    return put(read, fresh)


def _told(pending: Pending, plan: Plan, outcome: str, at_ms: int) -> Emit:
    work = pending.work
    window = work if isinstance(work, Window) else None
    identity = statistics_id(pending)
    value = PostedStatistics(
        statistics_id=identity,
        tenant=pending.tenant,
        location_id=pending.location_id,
        dialect=plan.destinations[pending.tenant].dialect,
        outcome=outcome,
        window_key=window.window_key if window else None,
        contact_key=work.contact_key if isinstance(work, Contact) else None,
        revision=window.metrics.revision if window else None,
        closed=window.metrics.closed if window else None,
        attempts=pending.attempts,
        status=pending.status,
        error=pending.error,
        posted_at=from_ms(at_ms),
    )
    # One record may have an outcome at each of several locations, and several if it is redriven.
    place = f"{pending.cause.id}|{identity}|{outcome}|{at_ms}"
    return Emit(
        "statistics.posted",
        identity,
        value,
        id=hashlib.sha256(place.encode()).hexdigest(),
        occurred_at=value.posted_at,
        subject=work.subject,
    )
