"""
The pollers: what the APIs hold, published as it changes.

Reads    both APIs; ``poll.schedule`` says who owns which resource
Writes   ``sources.received``  one record per changed item; removals with the header ``change: removed``
State    `PollState` per resource (behind ``poll.schedule``), the hash of every item
Time     the wall clock for intervals; ``scan_started_at`` orders what the API does not date
Repeats  each page is one transaction of outputs and cursor; a zombie is fenced at its next page

Every resource has a loop of its own, so a failing tenant does not hold up another.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import structlog

from pipeline.codec import MAX_RECORD_BYTES, new_traceparent
from pipeline.effects import EffectContext, Unit, nothing
from pipeline.errors import Rejected, Throttled, Unavailable, UpstreamError
from pipeline.events import PollState
from pipeline.instants import Time, from_ms, to_ms
from pipeline.partitioning import partition_of
from pipeline.sources.scan import (
    ABSENCES,
    ITEMS,
    SCHEDULE,
    Absent,
    Page,
    Resource,
    absent,
    page_outcome,
    removal_outcome,
    suspicious,
)
from pipeline.stage import Event, Outcome, Put, Stage

__all__ = ["unit"]

_log = structlog.get_logger(__name__)

#: Back-off after failures in a row, in seconds: first and longest.
_BACKOFF_S = (1.0, 300.0)

#: A larger item cannot become a record with its headers; it is passed over, and said so at each scan.
_MAX_ITEM_BYTES = MAX_RECORD_BYTES - 4096


def unit(resources: Sequence[Resource], max_pages: int) -> Unit:
    """The pollers of *resources*, each on the partition of its key; a scan has at most *max_pages*."""

    async def poll(context: EffectContext) -> None:
        async with asyncio.TaskGroup() as tasks:
            for resource in resources:
                if partition_of(resource.key.encode(), context.partitions) == context.partition:
                    poller = _Poller(resource, context, max_pages)
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

    def __init__(self, resource: Resource, context: EffectContext, max_pages: int) -> None:
        self._resource = resource
        self._context = context
        self._max_pages = max_pages
        self._log = _log.bind(tenant=resource.tenant, resource=f"{resource.product}.{resource.name}")
        self._seen: set[str] = set()
        self._whole = False  # whether this process saw the scan from its first page on
        self._pages = 0

    async def run(self) -> None:
        while True:
            state = self._state()
            await asyncio.sleep(max(0, to_ms(state.next_due_at) - self._context.now()) / 1000)
            try:
                await self._step(state)
            except UpstreamError as error:
                await self._put_off(self._state(), error)

    def _state(self) -> PollState:
        stored = self._context.read.get(SCHEDULE, self._resource.key)
        if stored is None:
            return PollState(interval_s=self._resource.interval_s, next_due_at=from_ms(self._context.now()))
        return msgspec.structs.replace(stored, interval_s=self._resource.interval_s)

    async def _step(self, state: PollState) -> None:
        """Read one page and commit it; after the last, judge what is missing."""
        if state.scan_started_at is None:
            state = self._begun(state)
        page = self._small_enough(await self._resource.page(state.cursor))
        self._bound(state, page)
        self._seen.update(item.id for item in page.items)
        seen = state.seen + len(page.items)
        state = msgspec.structs.replace(
            state, cursor=page.next_cursor or "", seen=seen, failures=0, error=None, next_due_at=self._now()
        )
        if page.next_cursor is not None:
            await self._commit_page(state, page)
            return
        await self._commit_page(state, page)
        await self._conclude(state)

    def _begun(self, state: PollState) -> PollState:
        self._seen.clear()
        self._whole = True
        self._pages = 0
        return msgspec.structs.replace(
            state, scan=state.scan + 1, scan_started_at=self._now(), cursor="", seen=0
        )

    def _small_enough(self, page: Page) -> Page:
        for item in page.items:
            if len(item.body) > _MAX_ITEM_BYTES:
                self._log.error("item.too_large", item=item.id, size=len(item.body), at_most=_MAX_ITEM_BYTES)
        kept = tuple(item for item in page.items if len(item.body) <= _MAX_ITEM_BYTES)
        return Page(kept, page.next_cursor)

    def _bound(self, state: PollState, page: Page) -> None:
        self._pages += 1
        if page.next_cursor is not None and page.next_cursor == state.cursor:
            raise Unavailable(f"{self._resource.name}: the next page is this page again")
        if self._pages > self._max_pages:
            raise Rejected(0, f"{self._resource.name}: more than {self._max_pages} pages")

    async def _commit_page(self, state: PollState, page: Page) -> None:
        now = self._context.now()
        await self._context.commit(
            lambda read: page_outcome(read, self._resource, state, page, now), cause=self._cause(now)
        )

    async def _conclude(self, state: PollState) -> None:
        """End a scan: removals, and when the next one begins."""
        missed, gone = await self._missing() if self._whole else ([], [])
        due = max(
            to_ms(state.scan_started_at or self._now()) + round(state.interval_s * 1000), self._context.now()
        )
        ended = msgspec.structs.replace(
            state, scan_started_at=None, cursor="", completed=state.completed + 1, next_due_at=from_ms(due)
        )
        now = self._context.now()
        await self._context.commit(
            removal_outcome(self._resource, ended, missed, gone, now)
            if self._whole
            else _kept(self._resource, ended),
            cause=self._cause(now),
        )

    async def _missing(self) -> tuple[list[Absent], list[Absent]]:
        """Who was missed, and which of them are gone for good."""
        missed: list[Absent] = []
        for one in absent(self._context.read, self._resource, self._seen):
            if one is None:
                await asyncio.sleep(0)
            else:
                missed.append(one)
        needed = ABSENCES if self._resource.exists else ABSENCES + 1
        candidates = [one for one in missed if one.known.absences + 1 >= needed]
        if self._resource.removable and suspicious(len(candidates), len(self._seen)):
            self._log.warning("scan.suspicious", would_remove=len(candidates), seen=len(self._seen))
            return [one for one in missed if one not in candidates], []
        gone = [one for one in candidates if await self._is_gone(one)]
        return [one for one in missed if one not in gone], gone

    async def _is_gone(self, one: Absent) -> bool:
        if not self._resource.removable or self._resource.exists is None:
            return True
        return not await self._resource.exists(one.id)

    async def _put_off(self, state: PollState, error: UpstreamError) -> None:
        """Go on at the same place later; a cursor that the API refuses begins the scan anew."""
        first, longest = _BACKOFF_S
        wait = min(longest, first * 2 ** min(state.failures, 16)) * random.uniform(0.75, 1.25)  # noqa: S311
        if isinstance(error, Throttled) and error.retry_after_s is not None:
            wait = max(wait, error.retry_after_s)
        due = from_ms(self._context.now() + round(wait * 1000))
        state = msgspec.structs.replace(
            state, failures=state.failures + 1, error=str(error)[:300], next_due_at=due
        )
        if isinstance(error, Rejected):
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
