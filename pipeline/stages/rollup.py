"""
Add up the partitions' shares of each window, and say when a window is final.

Reads    ``engagement.partials``  key: window key | source partition; absolute shares; ``clock.ticks``
Writes   ``engagement.metrics``  compacted, key: window key; one record per revision
State    per window its sum, revision and whether it is closed; per window and partition the share;
         per open window its end; all kept until 400 d after both the window's end and its last change
Time     ``now`` is the latest tick; a window closes on the first tick at or after end + grace
Repeats  a share received again, or older than the one that is known, changes nothing; any order of
         shares ends in equal measures. ``revision`` counts what was published, so it depends on how
         shares and ticks (and, where very many windows close at once, batches) interleave, as does
         when ``closed`` is told

A share that changes a closed window opens it again, as a revision of its own, and the next tick
closes it. A window whose measures have all returned to zero is still published.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from pipeline import windows
from pipeline.errors import RecordError
from pipeline.events import Measures, Partial, Tick, WindowMetrics
from pipeline.histogram import quantiles
from pipeline.instants import Time, from_ms, to_ms
from pipeline.stage import NOTHING, Cursor, Delete, Emit, Event, Outcome, Put, Stage, Store, Stores, Write
from pipeline.stages.measures import ZERO, ratios, summed
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
    zones: Mapping[str, ZoneInfo]


class Total(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One window as it was published last."""

    arrived_at: int  #: when the last fact that changed it was received
    end: int
    revision: int = 0
    closed: bool = False
    measures: Measures = ZERO


class Share(msgspec.Struct, frozen=True, array_like=True):
    """One partition's share of a window."""

    arrived_at: int
    revision: int
    measures: Measures


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
    terms = Terms(grace_s * 1000, zones)
    return Stage(
        name="rollup",
        inputs=("engagement.partials", "clock.ticks"),
        outputs=("engagement.metrics",),
        stores=(TOTALS, SHARES, OPEN, CLOCK),
        step=partial(_step, terms),
        resume=partial(_resume, terms),
    )


def _step(terms: Terms, read: Stores, event: Event[Any]) -> Outcome:
    match event.value:
        case Partial(window_key=key, partition=number) if event.key == f"{key}|{number}":
            return _add(terms, read, event)
        case Partial():
            raise RecordError("wrong-key", "the record's key is not its window key and partition")
        case Tick():
            return _tick(terms, read, event.value)
        case _:
            raise RecordError("unexpected-value", f"expected a partial or a tick, not {type(event.value)}")


def _add(terms: Terms, read: Stores, event: Event[Partial]) -> Outcome:
    """Let the share replace the one its partition gave before, and publish the sum if it changed."""
    share, window = event.value, _window(event.value.window_key)
    place = f"{window.start}|{share.window_key}"
    known = read.get(SHARES, f"{place}|{share.partition}")
    if known is not None and share.revision <= known.revision:
        return NOTHING
    kept = Put(SHARES, f"{place}|{share.partition}", Share(event.received_at, share.revision, share.measures))
    total = read.get(TOTALS, place) or _fresh(terms, window)
    measures = summed(total.measures, share.measures, known.measures if known else ZERO)
    if total.revision and measures == total.measures:
        return Outcome(writes=(kept,))
    revised = Total(
        arrived_at=max(total.arrived_at, event.received_at),
        end=total.end,
        revision=total.revision + 1,
        measures=measures,
    )
    opened = total.closed or not total.revision
    entry = (Put(OPEN, f"{windows.start_of(total.end)}|{share.window_key}", True),) if opened else ()
    return _published(share.window_key, window, revised, (kept, *entry))


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
    window = _window(key)
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


def _published(key: str, window: Window, total: Total, besides: tuple[Write, ...]) -> Outcome:
    """Keep and tell *total*, a new revision."""
    end = windows.start_of(total.end)
    metrics = _metrics(window, total, end)
    emit = Emit("engagement.metrics", key, metrics, id=f"{key}|{total.revision}", occurred_at=end)
    return Outcome(writes=(*besides, Put(TOTALS, f"{window.start}|{key}", total)), emit=(emit,))


def _metrics(window: Window, total: Total, end: Time) -> WindowMetrics:
    p50, p90, p99 = quantiles(total.measures.reply_seconds, (50, 90, 99))
    return WindowMetrics(
        tenant=window.tenant,
        dimension=window.dimension,
        width=window.width,
        start=window.start,
        end=end,
        revision=total.revision,
        closed=total.closed,
        measures=total.measures,
        ratios=ratios(total.measures),
        reply_seconds_p50=p50,
        reply_seconds_p90=p90,
        reply_seconds_p99=p99,
    )


def _fresh(terms: Terms, window: Window) -> Total:
    try:
        span = window.span(terms.zones.get(window.tenant, UTC))
    except (ValueError, OverflowError):
        raise RecordError("window-key", "the window's start is out of range") from None
    return Total(arrived_at=0, end=span.end)


def _window(key: str) -> Window:
    try:
        return windows.parse(key)
    except ValueError as error:
        raise RecordError("window-key", str(error)) from None


def _ms(time: Time) -> int:
    try:
        return to_ms(time)
    except (ValueError, TypeError):
        raise RecordError("invalid-time", "the tick's time is not RFC 3339") from None
