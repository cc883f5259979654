"""
Add up the partitions' shares of each window, and say when a window is final.

Reads    ``engagement.partials``  key: window key | source partition; absolute shares; ``clock.ticks``
Writes   ``engagement.metrics``  compacted, key: window key; one record per revision
State    per window its sum, revision and whether it is closed; per window and partition the share;
         per open window its end; all kept until 400 d after both the window's end and its last change
Time     ``now`` is the latest tick; a window closes on the first tick at or after end + grace
Repeats  a share received again, or older than the one that is known, changes nothing; any order of
         shares ends in equal measures. ``revision`` counts what was published, at most once a batch,
         so it depends on the batches and on how shares and ticks interleave, as does when ``closed``
         is told

A share that changes a closed window opens it again, as a revision of its own, and the next tick
closes it. A window whose measures have all returned to zero is still published.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from pipeline import windows
from pipeline.errors import RecordError
from pipeline.events import Measures, Partial, Tick, WindowMetrics
from pipeline.histogram import quantiles
from pipeline.instants import Time, from_ms, to_ms
from pipeline.stage import (
    NOTHING,
    Cursor,
    Delete,
    Emit,
    Event,
    Outcome,
    Posted,
    Put,
    Stage,
    Store,
    Stores,
    Write,
)
from pipeline.stages.measures import GATHER_S, NO_SUMS, Sums, ratios, summed, written
from pipeline.windows import Window

__all__ = ["stage"]

DAY_MS = 86_400_000

#: As long as ``engagement.partials`` and ``engagement.metrics`` are kept.
KEPT_MS = 400 * DAY_MS

#: Windows closed, or entries dropped, in one call: far below 20 ms.
CHUNK = 100

UTC = ZoneInfo("UTC")


class Terms(msgspec.Struct, frozen=True):
    """The settings of the stage."""

    grace_ms: int
    bounds: Callable[[str], tuple[Window, int]]  #: of a window key: what it says, and when the window ends


class Total(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One window as it was published last."""

    arrived_at: int  #: when the last fact that changed it was received
    end: int
    revision: int = 0
    closed: bool = False
    sums: Sums = NO_SUMS


class Share(msgspec.Struct, frozen=True, array_like=True):
    """One partition's share of a window."""

    arrived_at: int
    revision: int
    sums: Sums


class Clock(msgspec.Struct, frozen=True, array_like=True):
    """The latest tick, and the one of the last sweep."""

    now: int = 0
    swept: int = 0


TOTALS: Store[Total] = Store("totals", Total)  # start | window key
SHARES: Store[Share] = Store("shares", Share)  # start | window key | partition
OPEN: Store[bool] = Store("open", bool)  # end | window key
CLOCK: Store[Clock] = Store("clock", Clock)  # "clock"


def stage(*, grace_s: int, zones: Mapping[str, ZoneInfo]) -> Stage:
    """The stage ``rollup``: windows close *grace_s* after their end, by the tenants' time *zones*."""
    terms = Terms(grace_s * 1000, lru_cache(maxsize=16_384)(partial(_bounds, zones)))
    return Stage(
        name="rollup",
        inputs=("engagement.partials", "clock.ticks"),
        outputs=("engagement.metrics",),
        stores=(TOTALS, SHARES, OPEN, CLOCK),
        step=partial(_step, terms),
        resume=partial(_resume, terms),
        add_up=partial(_add_up, terms),
        gather_s=GATHER_S,
        state_version=2,
    )


def _step(terms: Terms, read: Stores, event: Event[Any]) -> Outcome:
    value = event.value
    if isinstance(value, Partial):
        if event.key != f"{value.window_key}|{value.partition}":
            raise RecordError("wrong-key", "the record's key is not its window key and partition")
        terms.bounds(value.window_key)
        return Outcome(postings=(value,))
    if isinstance(value, Tick):
        return _tick(terms, read, value)
    raise RecordError("unexpected-value", f"expected a partial or a tick, not {type(value)}")


def _add_up(
    terms: Terms, read: Stores, postings: Sequence[Posted]
) -> Iterator[tuple[Event[Partial], Outcome]]:
    """What each window comes to with the newest share of each partition."""
    newest: defaultdict[str, dict[int, Event[Partial]]] = defaultdict(dict)
    for event, share in postings:
        shares = newest[share.window_key]
        known = shares.get(share.partition)
        if known is None or share.revision > known.value.revision:
            shares[share.partition] = event
    for key, shares in newest.items():
        yield from _revised(terms, read, key, shares.values())


def _revised(
    terms: Terms, read: Stores, key: str, shares: Iterable[Event[Partial]]
) -> Iterator[tuple[Event[Partial], Outcome]]:
    """Let *shares* replace those their partitions gave before, and publish the sum if it changed."""
    window, end = terms.bounds(key)
    place = f"{window.start}|{key}"
    total = read.get(TOTALS, place) or Total(arrived_at=0, end=end)
    sums, kept, cause = total.sums, [], None
    for event in shares:
        share, kept_under = event.value, f"{place}|{event.value.partition}"
        known = read.get(SHARES, kept_under)
        if known is None or share.revision > known.revision:
            new = Share(event.received_at, share.revision, written(share.measures, Sums))
            kept.append(Put(SHARES, kept_under, new))
            sums = summed(sums, new.sums, known.sums if known else NO_SUMS)
            cause = event if cause is None or event.received_at > cause.received_at else cause
    if cause is None:
        return
    if total.revision and sums == total.sums:
        yield cause, Outcome(writes=tuple(kept))
        return
    arrived_at = max(total.arrived_at, cause.received_at)
    revised = Total(arrived_at=arrived_at, end=total.end, revision=total.revision + 1, sums=sums)
    if total.closed or not total.revision:
        kept.append(Put(OPEN, f"{windows.start_of(total.end)}|{key}", True))
    yield cause, _published(key, window, revised, kept)


def _tick(terms: Terms, read: Stores, tick: Tick) -> Outcome:
    """Close the windows whose grace has passed; once a day, drop what is too old."""
    at = _ms(tick.at)
    clock = read.get(CLOCK, "clock") or Clock()
    if at <= clock.now:
        return NOTHING
    sweep = at // DAY_MS > clock.swept // DAY_MS
    closed = _closing(read, at - terms.grace_ms)
    ticked = Put(CLOCK, "clock", Clock(at, at if sweep else clock.swept))
    more = (Cursor("drop totals"), Cursor("drop shares")) if sweep else ()
    return Outcome(writes=(ticked, *closed.writes), emit=closed.emit, more=(*closed.more, *more))


def _resume(terms: Terms, read: Stores, cursor: Cursor) -> Outcome:
    clock = read.get(CLOCK, "clock") or Clock()
    match cursor.job:
        case "close":
            return _closing(read, clock.now - terms.grace_ms, cursor.at)
        case "drop totals":
            return _dropping(read, TOTALS, cursor, clock.swept - KEPT_MS)
        case _:
            return _dropping(read, SHARES, cursor, clock.swept - KEPT_MS)


def _closing(read: Stores, horizon: int, start: str = "") -> Outcome:
    """Close at most `CHUNK` of the open windows that ended at *horizon* or before."""
    if horizon < 0:
        return NOTHING
    due = [key for key, _ in read.scan(OPEN, start, f"{from_ms(horizon)}~", limit=CHUNK)]
    outcomes = [_closed(read, key.partition("|")[2], key) for key in due]
    return Outcome(
        writes=tuple(write for outcome in outcomes for write in outcome.writes),
        emit=tuple(emit for outcome in outcomes for emit in outcome.emit),
        more=(Cursor("close", due[-1] + "\0"),) if len(due) == CHUNK else (),
    )


def _closed(read: Stores, key: str, entry: str) -> Outcome:
    window = windows.parse(key)
    total = read.get(TOTALS, f"{window.start}|{key}")
    if total is None:  # dropped: nobody waits for it any more
        return Outcome(writes=(Delete(OPEN, entry),))
    revised = msgspec.structs.replace(total, revision=total.revision + 1, closed=True)
    return _published(key, window, revised, (Delete(OPEN, entry),))


def _dropping(read: Stores, store: Store[Any], cursor: Cursor, horizon: int) -> Outcome:
    """Drop the next entries of *store* that began and last changed before *horizon*."""
    end = from_ms(max(horizon, 0))
    entries = list(read.scan(store, cursor.at, end, limit=CHUNK))
    writes = tuple(Delete(store, key) for key, value in entries if value.arrived_at < horizon)
    more = (Cursor(cursor.job, entries[-1][0] + "\0"),) if len(entries) == CHUNK else ()
    return Outcome(writes=writes, more=more)


def _published(key: str, window: Window, total: Total, besides: Iterable[Write]) -> Outcome:
    """Keep and tell *total*, a new revision."""
    end = windows.start_of(total.end)
    metrics = _metrics(window, total, end)
    emit = Emit("engagement.metrics", key, metrics, id=f"{key}|{total.revision}", occurred_at=end)
    return Outcome(writes=(*besides, Put(TOTALS, f"{window.start}|{key}", total)), emit=(emit,))


def _metrics(window: Window, total: Total, end: Time) -> WindowMetrics:
    p50, p90, p99 = quantiles(total.sums.reply_seconds, (50, 90, 99))
    return WindowMetrics(
        tenant=window.tenant,
        dimension=window.dimension,
        width=window.width,
        start=window.start,
        end=end,
        revision=total.revision,
        closed=total.closed,
        measures=written(total.sums, Measures),
        ratios=ratios(total.sums),
        reply_seconds_p50=p50,
        reply_seconds_p90=p90,
        reply_seconds_p99=p99,
    )


def _bounds(zones: Mapping[str, ZoneInfo], key: str) -> tuple[Window, int]:
    try:
        window = windows.parse(key)
    except ValueError as error:
        raise RecordError("window-key", str(error)) from None
    try:
        return window, window.span(zones.get(window.tenant, UTC)).end
    except (ValueError, OverflowError):
        raise RecordError("window-key", "the window's start is out of range") from None


def _ms(time: Time) -> int:
    try:
        return to_ms(time)
    except (ValueError, TypeError):
        raise RecordError("invalid-time", "the tick's time is not RFC 3339") from None
