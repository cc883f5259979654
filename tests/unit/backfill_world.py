"""Backfills over both sandboxes, whose job is kept in memory and can be cut off at any commit."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from pipeline.codec import Codec, Places
from pipeline.errors import BrokerError
from pipeline.events import Job
from pipeline.instants import Time
from pipeline.sources.backfill import Backfill, Standing, Terms, Wanted, standing_of
from pipeline.sources.history import RESOURCES, Account, Asked, Period, accounts
from pipeline.stage import Emit, Event
from pipeline.topics import load
from pipeline.writer import Output, sent_as_outputs
from tests.unit.test_resources import AT, NOW_MS, World
from tests.unit.test_resources import opened as sandboxes

__all__ = ["AT", "NOW_MS", "PERIOD", "Kept", "Tried", "opened"]

PERIOD = Period(Time("2029-12-20T00:00:00.000Z"), Time("2030-01-02T00:00:00.000Z"))
SEEN_DAYS = 45
CODEC = Codec(load(), 2)


class Kept:
    """The runner of a job in memory; the *cut*-th commit fails, *wish* comes with the *wished*-th."""

    def __init__(self, *, cut: int = -1, wish: Wanted = "run", wished: int = 1) -> None:
        self.job = Job(id="j1", kind="backfill", spec={})
        self.outputs: list[Output] = []
        self.commits = 0
        self.cut = cut
        self._wish = wish
        self._wished = wished

    async def commit(self, places: Places, job: Job) -> Wanted:
        """Keep both, or neither."""
        await asyncio.sleep(0)
        if self.commits == self.cut:
            raise BrokerError("cut off")
        self.commits += 1
        self.outputs += sent_as_outputs(places)
        self.job = job
        return self._wish if self.commits >= self._wished else "run"

    async def end(self, how: str, error: str | None = None) -> Job:
        """Keep how it ended."""
        state = {"pause": "paused", "cancel": "cancelled"}.get(how, how)
        self.job = msgspec.structs.replace(self.job, state=state, error=error)
        return self.job

    @property
    def standing(self) -> Standing:
        """How far the job is."""
        return standing_of(self.job)


@dataclass
class Tried:
    """What is backfilled, and the time that was waited for."""

    world: World
    waits: list[float] = field(default_factory=list)
    now_s: float = 0.0
    seen_days: int = SEEN_DAYS

    async def run(
        self, product: str, runner: Kept, period: Period = PERIOD, resources: Sequence[str] = ()
    ) -> Job:
        """Run the backfill of *product* from where *runner*'s job stands."""
        terms = Terms(
            asked=self.asked(product, period, resources),
            seen_days=self.seen_days,
            placed=placed,
            now=lambda: NOW_MS,
            rest=self.rest,
            monotonic=lambda: self.now_s,
        )
        return await Backfill(self.accounts(product, period, resources), runner, terms).run()

    def asked(self, product: str, period: Period = PERIOD, resources: Sequence[str] = ()) -> Asked:
        """All of *product*, or its *resources*."""
        names = tuple(resources or RESOURCES[product])
        return Asked(product=product, period=period, tenants=("acme",), resources=names)

    def accounts(
        self, product: str, period: Period = PERIOD, resources: Sequence[str] = ()
    ) -> tuple[Account, ...]:
        """What is asked for, by account."""
        return accounts(self.world.found.values(), self.asked(product, period, resources))

    async def rest(self, wait_s: float) -> None:
        """Wait in no time."""
        self.waits.append(wait_s)
        self.now_s += wait_s
        await asyncio.sleep(0)


def placed(emits: Sequence[Emit], cause: Event[Any]) -> Places:
    """As the runtime encodes them."""
    places: Places = {}
    CODEC.writer("backfill").write([(emit, cause, n) for n, emit in enumerate(emits)], places)
    return places


@asynccontextmanager
async def opened(changed: Callable[[World], None] = lambda _: None) -> AsyncIterator[Tried]:
    """Both sandboxes with some people, as *changed*, read in pages of three."""
    async with sandboxes() as world:
        changed(world)
        yield Tried(world)
