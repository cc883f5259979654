"""
The pollers: what the APIs hold, published as it changes.

Reads    both APIs; ``poll.schedule`` says who owns which resource
Writes   ``sources.received``  one record per changed item; removals with the header ``change: removed``
State    `PollState` per resource (behind ``poll.schedule``), the hash of every item
Time     the wall clock for intervals; ``scan_started_at`` orders what the API does not date
Repeats  each page is one transaction of outputs and cursor; a zombie is fenced at its next page

Every resource has a loop of its own, so a failing tenant does not hold up another. A scan that this
process did not see from its first page on, after a restart, ends without judging what is missing.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import msgspec
import structlog

from pipeline.codec import new_traceparent
from pipeline.effects import EffectContext, Unit, nothing
from pipeline.errors import RecordError, Rejected, Throttled, Unavailable, UpstreamError
from pipeline.events import PollState
from pipeline.instants import Time, from_ms, to_ms
from pipeline.partitioning import partition_of
from pipeline.sources.scan import (
    ABSENCES,
    ITEMS,
    LISTED,
    MAX_ITEM_BYTES,
    SCHEDULE,
    Absent,
    Item,
    Page,
    Resource,
    absent,
    page_outcome,
    readable,
    removal_outcome,
    size_of,
    suspicious,
)
from pipeline.stage import Event, Outcome, Put, Stage

__all__ = ["Sleep", "unit"]

Sleep: TypeAlias = Callable[[float], Awaitable[None]]

_log = structlog.get_logger(__name__)

#: Back-off after failures in a row, in seconds: first and longest.
_BACKOFF_S = (1.0, 300.0)

#: No API's wish and no back-off is longer, in seconds; see `pipeline.clients.http`.
_LONGEST_WAIT_S = 86_400.0

#: Removals and counted absences in one transaction, at most.
_REMOVALS = 500


def unit(resources: Sequence[Resource], max_pages: int, sleep: Sleep = asyncio.sleep) -> Unit:
    """
    The pollers of *resources*, each on the partition of its key; a scan has at most *max_pages*.

    *sleep* waits for so many seconds.
    """

    async def poll(context: EffectContext) -> None:
        async with asyncio.TaskGroup() as tasks:
            for resource in resources:
                if partition_of(resource.key.encode(), context.partitions) == context.partition:
                    poller = _Poller(resource, context, max_pages, sleep)
                    tasks.create_task(poller.run(), name=f"poll {resource.key}")
            await asyncio.Event().wait()

    stage = Stage(
        name="poller",
        inputs=("poll.schedule",),
        outputs=("sources.received",),
        stores=(SCHEDULE, ITEMS),
        step=nothing,
    )
    return Unit(stage=stage, effect=poll, reads=False)


class _Poller:
    """Polls one resource for ever."""

    def __init__(self, resource: Resource, context: EffectContext, max_pages: int, sleep: Sleep) -> None:
        self._resource = resource
        self._context = context
        self._max_pages = max_pages
        self._sleep = sleep
        self._log = _log.bind(tenant=resource.tenant, resource=f"{resource.product}.{resource.name}")
        self._seen: set[str] = set()
        self._looked_up: dict[str, bool] = {}  # id -> whether it is gone, of this scan
        self._whole = False  # whether this process saw the scan from its first page on
        self._pages = 0

    async def run(self) -> None:
        while True:
            state = self._state()
            await self._sleep(self._wait_s(state))
            try:
                await self._step(state)
            except (UpstreamError, RecordError) as error:
                await self._put_off(self._state(), error)

    def _state(self) -> PollState:
        stored = self._context.read.get(SCHEDULE, self._resource.key)
        if stored is None:
            return PollState(interval_s=self._resource.interval_s, next_due_at=self._now())
        return msgspec.structs.replace(stored, interval_s=self._resource.interval_s)

    def _wait_s(self, state: PollState) -> float:
        """Until *state* is due; not for ever where the clock was set back, or the interval shortened."""
        longest = _LONGEST_WAIT_S if state.failures else state.interval_s
        return min(max(0, to_ms(state.next_due_at) - self._context.now()) / 1000, longest)

    async def _step(self, state: PollState) -> None:
        """Read one page and commit it; after the last, judge what is missing and end the scan."""
        if state.scan_started_at is None:
            state = self._begun(state)
        if state.cursor != LISTED:
            state = await self._read_page(state)
        if state.cursor == LISTED:
            await self._conclude(state)

    def _begun(self, state: PollState) -> PollState:
        self._seen.clear()
        self._looked_up.clear()
        self._whole = True
        self._pages = 0
        return msgspec.structs.replace(
            state, scan=state.scan + 1, scan_started_at=self._now(), cursor="", seen=0
        )

    async def _read_page(self, state: PollState) -> PollState:
        """Commit the page at *state*'s cursor; the state after it."""
        with readable(self._resource):
            page = await self._resource.page(state.cursor)
        self._bound(state, page)
        self._seen.update(item.id for item in page.items)
        state = msgspec.structs.replace(
            state,
            cursor=LISTED if page.next_cursor is None else page.next_cursor,
            seen=state.seen + len(page.items),
            failures=0,
            error=None,
            next_due_at=self._now(),
        )
        kept = self._small_enough(page)
        now = self._context.now()
        await self._context.commit(
            lambda read: page_outcome(read, self._resource, state, kept, now), cause=self._cause(now)
        )
        return state

    def _bound(self, state: PollState, page: Page) -> None:
        self._pages += 1
        if page.next_cursor is not None and page.next_cursor == state.cursor:
            raise Unavailable(f"{self._resource.name}: the next page is this page again")
        if self._pages > self._max_pages:
            raise Rejected(0, f"{self._resource.name}: more than {self._max_pages} pages")

    def _small_enough(self, page: Page) -> Page:
        """*page* without what cannot become a record."""
        kept: list[Item] = []
        for item in page.items:
            size = size_of(item)
            if size <= MAX_ITEM_BYTES:
                kept.append(item)
            else:
                self._log.error("item.too_large", item=item.id[:80], size=size, at_most=MAX_ITEM_BYTES)
        return Page(tuple(kept), page.next_cursor)

    async def _conclude(self, state: PollState) -> None:
        """End a scan: removals, and when the next one begins."""
        if self._whole:
            await self._judge(state)
        started = state.scan_started_at or self._now()
        due = max(to_ms(started) + round(state.interval_s * 1000), self._context.now())
        ended = msgspec.structs.replace(
            state,
            scan_started_at=None,
            cursor="",
            completed=state.completed + 1,
            failures=0,
            error=None,
            next_due_at=from_ms(due),
        )
        await self._context.commit(_kept(self._resource, ended))

    async def _judge(self, state: PollState) -> None:
        """Count who was missed, and remove who is gone for good: a bounded number in a transaction."""
        missed = await self._missed()
        needed = ABSENCES if self._resource.exists else ABSENCES + 1
        candidates = {one.id for one in missed if one.known.absences + 1 >= needed}
        gone: set[str] = set()
        if self._resource.removable and suspicious(len(candidates), len(self._seen)):
            self._log.warning("scan.suspicious", would_remove=len(candidates), seen=len(self._seen))
            missed = [one for one in missed if one.id not in candidates]
        else:
            gone = {identifier for identifier in candidates if await self._is_gone(identifier)}
        for start in range(0, len(missed), _REMOVALS):
            part = missed[start : start + _REMOVALS]
            now = self._context.now()
            counted = [one for one in part if one.id not in gone]
            removed = [one for one in part if one.id in gone]
            outcome = removal_outcome(self._resource, state, counted, removed, now)
            await self._context.commit(outcome, cause=self._cause(now))

    async def _missed(self) -> list[Absent]:
        missed: list[Absent] = []
        for one in absent(self._context.read, self._resource, self._seen):
            if one is None:
                await asyncio.sleep(0)
            else:
                missed.append(one)
        return missed

    async def _is_gone(self, identifier: str) -> bool:
        """Whether the API no longer has it; one that it will not tell of stays."""
        exists = self._resource.exists
        if not self._resource.removable or exists is None:
            return True
        if identifier not in self._looked_up:
            try:
                with readable(self._resource):
                    self._looked_up[identifier] = not await exists(identifier)
            except Rejected as error:
                self._log.warning("item.kept", item=identifier[:80], error=str(error)[:300])
                self._looked_up[identifier] = False
        return self._looked_up[identifier]

    async def _put_off(self, state: PollState, error: UpstreamError | RecordError) -> None:
        """Go on at the same place later; a cursor that the API refuses begins the scan anew."""
        first, longest = _BACKOFF_S
        wait = min(longest, first * 2 ** min(state.failures, 16)) * random.uniform(0.75, 1.25)  # noqa: S311
        if isinstance(error, Throttled) and error.retry_after_s is not None:
            wait = max(wait, error.retry_after_s)
        due = from_ms(self._context.now() + round(wait * 1000))
        state = msgspec.structs.replace(
            state, failures=state.failures + 1, error=str(error)[:300], next_due_at=due
        )
        if not isinstance(error, Unavailable | Throttled):
            state = msgspec.structs.replace(state, scan_started_at=None, cursor="", seen=0)
        self._log.warning(
            "poll.put_off", error=str(error)[:300], failures=state.failures, wait_s=round(wait, 1)
        )
        await self._context.commit(_kept(self._resource, state))

    def _now(self) -> Time:
        return from_ms(self._context.now())

    def _cause(self, now_ms: int) -> Event[Any]:
        seed = f"{self._resource.key}|{now_ms}|{time.perf_counter_ns()}"
        return Event(
            topic="",
            key="",
            value=None,
            id=seed,
            received_at=now_ms,
            traceparent=new_traceparent(seed.encode()),
        )


def _kept(resource: Resource, state: PollState) -> Outcome:
    return Outcome((Put(SCHEDULE, resource.key, state),))
