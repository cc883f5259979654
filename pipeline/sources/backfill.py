"""
Backfill: what the APIs hold of a period, fetched by the pollers' own resources, once.

Reads    both APIs; the job (kind ``backfill``), whose cursor says how far each account is
Writes   ``sources.received``  headers ``source: backfill`` and ``backfill: true``; the job
State    the job's cursor alone: `Standing`, a few hundred bytes for each account that is under way
Time     an item is true from the request of its page on; facts of a backfill are never late
Repeats  each page is one transaction of its records and the cursor. Fetched twice, a page's items imply the
         same facts and state as any webhook or poll of them: decode drops what it has seen

Accounts are fetched side by side, a few at a time; the resources of one in turn, one page in memory.
A resource that cannot be read is told of at the end and tried anew by a resume; it holds up no other.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Final, Literal, Protocol, TypeAlias, final

import msgspec
from msgspec.structs import replace

from pipeline.codec import Places
from pipeline.errors import Rejected, Throttled, Unavailable, UpstreamError
from pipeline.events import Job
from pipeline.instants import from_ms
from pipeline.sources.history import CALLS, Account, Asked, reach, selected
from pipeline.sources.scan import MAX_ITEM_BYTES, Item, Page, Resource, readable, received, size_of
from pipeline.stage import Emit, Event

__all__ = ["Backfill", "Runner", "Standing", "Terms", "standing_of"]

Wanted: TypeAlias = Literal["run", "pause", "cancel"]

#: Accounts fetched at the same time.
WORKERS: Final = 4

#: Back-off after failures in a row, in seconds: first and longest; and how many of them are tried.
_BACKOFF_S: Final = (1.0, 60.0)
_TRIES: Final = 8

#: While it waits, a job shows that it lives, and hears what is wished of it, so often; in seconds.
_HEARTBEAT_S: Final = 5.0


@final
class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where an account is: the resource that is under way, and the cursor of its next page."""

    resource: str
    cursor: str = ""


@final
class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How far a backfill is: the cursor of its job."""

    finished: tuple[str, ...] = ()  #: accounts
    open: dict[str, Place] = {}  #: account -> where it is
    failed: dict[str, str] = {}  #: resource's key -> why it could not be read
    items: int = 0  #: listed by the APIs
    published: int = 0  #: of the period, and small enough
    out_of_reach: int = 0  #: of the period, but meanwhile older than facts are recognised as seen
    too_large: int = 0  #: cannot become a record


class Runner(Protocol):
    """The one runner of a job: what it writes goes with the job's own record, all or nothing."""

    @property
    def job(self) -> Job:
        """As last committed."""
        ...

    async def commit(self, places: Places, job: Job) -> Wanted:
        """Write both in one transaction; returns what is wished of the job."""
        ...

    async def end(self, how: str, error: str | None = None) -> Job:
        """Commit how it ended for now."""
        ...


@final
class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a backfill works with; *placed* encodes emits of one cause, *rest* waits for so many seconds."""

    asked: Asked
    seen_days: int
    placed: Callable[[Sequence[Emit], Event[Any]], Places]
    now: Callable[[], int]  #: ms since 1970
    rest: Callable[[float], Awaitable[None]] = asyncio.sleep
    monotonic: Callable[[], float] = time.monotonic  #: seconds


class _EndedError(Exception):
    """The job is to be paused or cancelled."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


class Backfill:
    """One run of a job over *accounts*, from where *runner*'s job stands."""

    def __init__(self, accounts: Sequence[Account], runner: Runner, terms: Terms) -> None:
        self._accounts = accounts
        self._runner = runner
        self._terms = terms
        self._standing = standing_of(runner.job)
        self._turn = asyncio.Lock()
        self._calls = runner.job.done
        self._begun_s = terms.monotonic()
        self._begun_calls = runner.job.done

    async def run(self) -> Job:
        """
        Fetch until all is done, or the job is to be paused or cancelled; the job as it then is.

        Raises:
            BrokerError: nothing is known of the last commit; whatever stands, a new runner goes on from.
        """
        try:
            await self._settle({}, lambda standing: replace(standing, failed={}))
            left = iter([one for one in self._accounts if one.key not in self._standing.finished])
            async with asyncio.TaskGroup() as tasks:
                for number in range(WORKERS):
                    tasks.create_task(self._work(left), name=f"backfill {number}")
        except _EndedError as ended:
            return await self._runner.end(ended.how)
        except ExceptionGroup as group:
            first = _first(group)
            if not isinstance(first, _EndedError):
                raise first from None
            return await self._runner.end(first.how)
        if self._standing.failed:
            told = "; ".join(f"{key}: {why}" for key, why in sorted(self._standing.failed.items())[:5])
            return await self._runner.end("failed", told[:1_000])
        return await self._runner.end("done")

    async def _work(self, left: Iterator[Account]) -> None:
        for account in left:
            await self._account(account)

    async def _account(self, account: Account) -> None:
        """Fetch the resources of *account* from where it stands, until one cannot be read."""
        names = [resource.name for resource in account.resources]
        place = self._standing.open.get(account.key, Place(resource=names[0]))
        first = names.index(place.resource) if place.resource in names else 0
        for resource in account.resources[first:]:
            try:
                await self._resource(
                    account, resource, place.cursor if resource.name == place.resource else ""
                )
            except UpstreamError as error:
                await self._give_up(account, resource, error)
                return

    async def _resource(self, account: Account, resource: Resource, cursor: str) -> None:
        at: str | None = cursor
        while at is not None:
            page, began_ms = await self._page(resource, at)
            if page.next_cursor == at:
                raise Unavailable(f"{resource.name}: the next page is this page again")
            await self._publish(account, resource, page, began_ms)
            at = page.next_cursor

    async def _give_up(self, account: Account, resource: Resource, error: UpstreamError) -> None:
        """Tell of *error*; a resume goes on with this resource, anew where its cursor was refused."""

        def told(standing: Standing) -> Standing:
            place = standing.open.get(account.key)
            if place is None or place.resource != resource.name or isinstance(error, Rejected):
                place = Place(resource=resource.name)
            failed = standing.failed | {resource.key: str(error)[:200]}
            return replace(standing, failed=failed, open=standing.open | {account.key: place})

        await self._settle({}, told)

    async def _page(self, resource: Resource, cursor: str) -> tuple[Page, int]:
        """The page at *cursor*, and when it was asked for; the API is given time where it needs some."""
        failures = 0
        while True:
            began_ms = self._terms.now()
            try:
                with readable(resource):
                    page = await resource.page(cursor)
            except Throttled as error:
                await self._wait(error.retry_after_s or _backoff_s(failures), error)
            except Unavailable as error:
                failures += 1
                if failures >= _TRIES:
                    raise
                await self._wait(_backoff_s(failures), error)
            else:
                self._calls += CALLS.get(f"{resource.product}.{resource.name}", 1)
                return page, began_ms

    async def _wait(self, wait_s: float, why: UpstreamError) -> None:
        """Rest for *wait_s*, and show so: what is wished of the job is heard meanwhile."""
        until_s = self._terms.monotonic() + wait_s
        while True:
            await self._settle({}, error=str(why)[:300])
            left_s = until_s - self._terms.monotonic()
            if left_s <= 0:
                return
            await self._terms.rest(min(left_s, _HEARTBEAT_S))

    async def _publish(self, account: Account, resource: Resource, page: Page, began_ms: int) -> None:
        """Commit what of *page* is to be published, and where *account* then is."""
        terms, now_ms = self._terms, self._terms.now()
        found = selected(resource, page, terms.asked.period, reach(now_ms, terms.seen_days))
        # Of an id that stands on the page twice, the last.
        items = tuple({item.id: item for item in found.items}.values())
        small = tuple(item for item in items if size_of(item) <= MAX_ITEM_BYTES)
        place = _after(account, resource, page)

        def counted(standing: Standing) -> Standing:
            return replace(
                _moved(standing, account, place),
                items=standing.items + len(page.items),
                published=standing.published + len(small),
                out_of_reach=standing.out_of_reach + found.out_of_reach,
                too_large=standing.too_large + len(items) - len(small),
            )

        await self._settle(self._records(resource, small, began_ms, now_ms), counted)

    def _records(self, resource: Resource, items: Sequence[Item], began_ms: int, now_ms: int) -> Places:
        job = self._runner.job.id
        cause: Event[Any] = Event(topic="", key=job, value=None, id=job, received_at=now_ms, backfill=True)
        emits = [
            received(resource, item, from_ms(began_ms), now_ms, told_by=job, source="backfill")
            for item in items
        ]
        return self._terms.placed(emits, cause)

    async def _settle(
        self,
        places: Places,
        change: Callable[[Standing], Standing] = lambda standing: standing,
        error: str = "",
    ) -> None:
        """
        Commit *places* and the standing after *change*; *error* is what is waited for.

        Raises:
            _EndedError: the job is to be paused or cancelled.
        """
        async with self._turn:
            standing, before = change(self._standing), self._runner.job
            elapsed_s = self._terms.monotonic() - self._begun_s
            job = replace(
                before,
                state="running",
                done=self._calls,
                total=None if before.total is None else max(before.total, self._calls),
                per_s=round((self._calls - self._begun_calls) / elapsed_s, 2) if elapsed_s > 0 else None,
                cursor=msgspec.to_builtins(standing),
                error=error or None,
            )
            wanted = await self._runner.commit(places, job)
            self._standing = standing
            if wanted != "run":
                raise _EndedError(wanted)


def standing_of(job: Job) -> Standing:
    """How far *job* is."""
    return msgspec.convert(job.cursor, Standing)


def _after(account: Account, resource: Resource, page: Page) -> Place | None:
    """Where *account* is after *page* of *resource*; None: it is finished."""
    if page.next_cursor is not None:
        return Place(resource=resource.name, cursor=page.next_cursor)
    names = [each.name for each in account.resources]
    following = names.index(resource.name) + 1
    return Place(resource=names[following]) if following < len(names) else None


def _moved(standing: Standing, account: Account, place: Place | None) -> Standing:
    """*standing* with *account* at *place*."""
    if place is not None:
        return replace(standing, open=standing.open | {account.key: place})
    others = {key: at for key, at in standing.open.items() if key != account.key}
    return replace(standing, open=others, finished=(*standing.finished, account.key))


def _backoff_s(failures: int) -> float:
    first, longest = _BACKOFF_S
    return min(longest, first * 2.0 ** min(failures, 16)) * random.uniform(0.75, 1.25)  # noqa: S311


def _first(group: ExceptionGroup[Exception]) -> Exception:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first
