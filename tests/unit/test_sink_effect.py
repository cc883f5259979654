"""Each value is posted in its time, told, and forgotten; one tenant never holds up another."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import orjson
import pytest
from aiohttp import web

from pipeline.clients.users import UsersClient
from pipeline.effects import EffectContext, Unit
from pipeline.events import Measures, WindowMetrics
from pipeline.sinks.statistics.outcomes import statistics_id
from tests.unit.client_server import users
from tests.unit.sink_context import NOW_MS, TRACE, MemoryContext, sink, tenant, window

DAY_MS = 86_400_000
ACME = {"acme": tenant("loc")}


class Destination:
    """A server that takes statistics, or what a test makes of it."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.traces: list[str] = []
        self.statuses: list[int] = []
        self.headers: dict[str, str] = {}
        self.asked = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def answer(self, request: web.Request) -> web.Response:
        """Take a body, wait for the gate, answer the next status."""
        self.bodies.append(orjson.loads(await request.read()))
        self.traces.append(request.headers.get("traceparent", ""))
        self.asked.set()
        await self.gate.wait()
        status = self.statuses.pop(0) if self.statuses else 201
        return web.json_response({"message": "as you say"}, status=status, headers=self.headers)

    @property
    def revisions(self) -> list[int]:
        """The revisions that came, in order."""
        return [body["metrics"]["revision"] for body in self.bodies]

    def holds(self, revision: int) -> bool:
        """Whether *revision* came."""
        return revision in self.revisions


async def until(condition: Callable[[], object]) -> None:
    """Wait for *condition*, at most 5 s."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - conditions of a server and a store, not of one event
            await asyncio.sleep(0.002)


@asynccontextmanager
async def running(unit: Unit, context: EffectContext) -> AsyncIterator[None]:
    """The effect of *unit*, until the end of the block."""
    assert unit.effect is not None
    async with asyncio.TaskGroup() as group:
        task = group.create_task(unit.effect(context), name="effect")
        yield
        task.cancel()


@asynccontextmanager
async def acme(**settings: Any) -> AsyncIterator[tuple[Destination, MemoryContext, Unit]]:
    """A destination, a context with one window noted, and the sink of one tenant."""
    there = Destination()
    async with users(there.answer) as client:
        unit = sink(ACME, {"loc": client}, **settings)
        place = MemoryContext(unit.stage)
        place.feed(window())
        yield there, place, unit


async def test_a_window_is_posted_told_and_forgotten() -> None:
    """One POST, one record of the outcome, and nothing left to do."""
    async with acme() as (there, place, unit), running(unit, place):
        await until(lambda: place.posted)
    (told,) = place.posted
    assert (told.outcome, told.status, told.attempts, told.revision) == ("posted", 201, 1, 1)
    assert (told.window_key, told.location_id) == (window().key, "loc")
    assert (place.pending, place.queue, len(there.bodies)) == ([], [], 1)


async def test_the_body_carries_the_whole_value() -> None:
    """What the destination gets is the value of the topic, under an id that repeats share."""
    async with acme() as (there, place, unit):
        (pending,) = place.pending
        async with running(unit, place):
            await until(lambda: place.posted)
    (body,) = there.bodies
    assert body["statisticsId"] == statistics_id(pending) == place.posted[0].statistics_id
    assert (body["locationId"], body["userCount"]) == ("loc", 2)
    assert body["timestamp"] == "2030-01-01T23:59:59.000Z"
    metrics = {name: value for name, value in body["metrics"].items() if name != "window_key"}
    assert msgspec.convert(metrics, WindowMetrics) == window().value
    assert set(body["metrics"]["measures"]) == set(Measures.__struct_fields__)


async def test_the_trace_goes_on_to_the_destination_and_the_outcome() -> None:
    """The trace of the webhook that changed the window is the POST's and the record's."""
    async with acme() as (there, place, unit), running(unit, place):
        await until(lambda: place.posted)
    (record,) = [each for each in place.outputs if each.topic == "statistics.posted"]
    assert there.traces == [TRACE]
    assert dict(record.headers)["traceparent"] == TRACE.encode()


async def test_a_value_that_comes_while_another_is_on_its_way_is_not_lost() -> None:
    """The newer revision stays, waits for its interval, and is posted then."""
    async with acme(open_interval_s=10.0) as (there, place, unit):
        there.gate.clear()
        async with running(unit, place):
            await until(there.asked.is_set)
            place.feed(window(2))
            there.gate.set()
            await until(lambda: place.posted)
            assert [each.due_ms for each in place.pending] == [NOW_MS + 10_000]
            place.now_ms += 10_000
            await until(lambda: _passing(place, lambda: len(place.posted) == 2))
    assert there.revisions == [1, 2]
    assert place.pending == []


@pytest.mark.parametrize("status", [400, 404, 422])
async def test_a_refusal_becomes_a_dead_letter_and_a_told_outcome(status: int) -> None:
    """A value that is refused for good is kept for people, and does not come back by itself."""
    async with acme() as (there, place, unit):
        there.statuses = [status]
        async with running(unit, place):
            await until(lambda: place.posted)
    assert [(each.outcome, each.status) for each in place.posted] == [("rejected", status)]
    (letter,) = place.dead_letters
    assert (letter["dl_reason"], letter["dl_stage"]) == ("rejected", "statistics")
    assert (place.pending, len(there.bodies)) == ([], 1)


async def test_a_refused_value_can_be_redriven() -> None:
    """A refusal leaves no mark that would keep the same revision from being noted again."""
    async with acme() as (there, place, unit):
        there.statuses = [400]
        async with running(unit, place):
            await until(lambda: place.posted)
            place.feed(window())
            await until(lambda: len(place.posted) == 2)
    assert [each.outcome for each in place.posted] == ["rejected", "posted"]


@pytest.mark.parametrize("status", [401, 403, 500, 503])
async def test_what_can_be_mended_is_tried_again(status: int) -> None:
    """Failures of the API or of our credentials keep the value; attempts are counted."""
    async with acme() as (there, place, unit):
        there.statuses = [status, status]
        async with running(unit, place):
            await until(lambda: _passing(place, lambda: place.posted))
    assert [(each.outcome, each.attempts) for each in place.posted] == [("posted", 3)]
    assert place.dead_letters == []


async def test_after_a_post_without_an_answer_the_value_is_posted_once_more() -> None:
    """What nobody answered may take effect late, over a newer value: so the newest comes again after it."""
    async with acme(unanswered_s=30.0) as (there, place, unit):
        there.statuses = [504]
        async with running(unit, place):
            await until(lambda: any(each.attempts for each in place.pending))
            place.feed(window(2, closed=True))
            await until(lambda: _passing(place, lambda: place.posted))
            assert [each.due_ms for each in place.pending] == [NOW_MS + 30_000]
            place.now_ms = NOW_MS + 30_000
            await until(lambda: _passing(place, lambda: len(place.posted) == 2))
    assert (there.revisions, place.pending, place.queue) == ([1, 2, 2], [], [])


async def test_retry_after_is_honoured() -> None:
    """Nothing is sent to a tenant before its API's wish is over."""
    async with acme() as (there, place, unit):
        there.statuses, there.headers = [429], {"Retry-After": "20"}
        async with running(unit, place):
            await until(lambda: any(each.attempts for each in place.pending))
            assert place.pending[0].due_ms == NOW_MS + 20_000


async def test_a_lost_commit_posts_again() -> None:
    """When the outcome is not committed the value is still in the queue, and a repeat replaces."""
    async with acme() as (there, place, unit):
        place.commits_to_fail = 1
        async with running(unit, place):
            await until(lambda: place.posted)
    assert there.revisions == [1, 1]
    assert len({body["statisticsId"] for body in there.bodies}) == 1


@pytest.mark.parametrize("steps", range(24))
async def test_a_kill_at_any_moment_loses_nothing_and_doubles_nothing(steps: int) -> None:
    """Wherever the effect is cancelled, the next one ends with the value posted under one id, told once."""
    async with acme() as (there, place, unit):
        assert unit.effect is not None
        async with asyncio.TaskGroup() as group:
            first = group.create_task(unit.effect(place), name="killed")
            for _ in range(steps):
                await asyncio.sleep(0)
            first.cancel()
        async with running(unit, place):
            await until(lambda: place.posted)
    assert [each.outcome for each in place.posted] == ["posted"]
    assert len({body["statisticsId"] for body in there.bodies}) == 1
    assert (place.pending, place.queue) == ([], [])


async def test_a_value_expires() -> None:
    """What could not be posted for so many days is told, dead-lettered and forgotten."""
    async with acme(expire_days=1) as (there, place, unit):
        there.statuses = [503] * 100
        async with running(unit, place):
            await until(lambda: _passing(place, lambda: place.pending[0].attempts >= 2))
            place.now_ms += DAY_MS + 1_000
            await until(lambda: _passing(place, lambda: place.posted))
    assert [each.outcome for each in place.posted] == ["expired"]
    assert [each["dl_reason"] for each in place.dead_letters] == ["expired"]
    assert (place.pending, place.queue) == ([], [])


async def test_what_waits_behind_an_open_breaker_may_expire_too() -> None:
    """Values that were never tried because their tenant is held up do not wait for ever."""
    async with acme(expire_days=1) as (there, place, unit):
        there.statuses = [401] * 1000
        place.feed(*(window(dimension=f"tag:id:{number}") for number in range(30)))
        async with running(unit, place):
            await until(lambda: _passing(place, lambda: all(each.since_ms for each in place.pending)))
            place.now_ms += DAY_MS + 1_000
            await until(lambda: _passing(place, lambda: len(place.posted) == 31))
    assert {each.outcome for each in place.posted} == {"expired"}


async def test_an_open_breaker_lets_one_call_through_at_a_time() -> None:
    """A tenant that fails as a whole is asked by one call per wait, not by all that waits."""
    async with acme() as (there, place, unit):
        there.statuses = [503] * 1000
        place.feed(*(window(dimension=f"tag:id:{number}") for number in range(30)))

        def tried() -> int:
            return sum(each.attempts for each in place.pending)

        def held_up() -> bool:
            return all(each.since_ms for each in place.pending) and tried() == len(there.bodies)

        async with running(unit, place):
            await until(lambda: _passing(place, held_up))
            calls = tried()
            place.now_ms += 60
            place.wake()
            await until(lambda: tried() > calls)
            assert len(there.bodies) == calls + 1


@asynccontextmanager
async def two_tenants(first: Destination, second: Destination) -> AsyncIterator[tuple[MemoryContext, Unit]]:
    """A sink of two tenants with a destination each, and a window for each."""
    async with users(first.answer) as one, users(second.answer) as two:
        clients: dict[str, UsersClient] = {"l1": one, "l2": two}
        unit = sink({"acme": tenant("l1"), "bravo": tenant("l2")}, clients)
        place = MemoryContext(unit.stage)
        place.feed(window(), window(tenant="bravo"))
        yield place, unit


async def test_a_stuck_tenant_holds_up_nobody_else() -> None:
    """While one destination never answers, another tenant's windows are posted, again and again."""
    stuck, well = Destination(), Destination()
    stuck.gate.clear()
    async with two_tenants(stuck, well) as (place, unit):
        async with running(unit, place):
            await until(stuck.asked.is_set)
            for revision in range(2, 6):
                place.feed(window(revision, tenant="bravo", closed=True))
                await until(partial(well.holds, revision))
            assert {each.tenant for each in place.posted} == {"bravo"}
        stuck.gate.set()


async def test_a_tenant_whose_token_is_refused_holds_up_nobody_else() -> None:
    """A 401 opens one tenant's breaker, nobody else's."""
    refusing, well = Destination(), Destination()
    refusing.statuses = [401] * 1000
    async with two_tenants(refusing, well) as (place, unit), running(unit, place):
        await until(lambda: _passing(place, lambda: len(refusing.bodies) >= 3))
        place.feed(window(2, tenant="bravo", closed=True))
        await until(lambda: 2 in well.revisions)
        assert [each.tenant for each in place.pending] == ["acme"]


async def test_a_disabled_location_keeps_its_values() -> None:
    """A tenant without a client posts nothing and loses nothing."""
    unit = sink(ACME, {})
    place = MemoryContext(unit.stage)
    place.feed(window())
    async with running(unit, place):
        await until(lambda: any(each.attempts for each in place.pending))
    assert "disabled" in (place.pending[0].error or "")
    assert place.posted == []


def _passing(place: MemoryContext, condition: Callable[[], object]) -> object:
    """*condition*, while the clock of *place* goes on by 10 ms and its workers are woken."""
    place.now_ms += 10
    place.wake()
    return condition()
