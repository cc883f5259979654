"""A location's budget is never overrun, and what the API says of it counts more than our own count."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clients.limits import DAY_MS, LOOK_AGAIN_S, RateLimiter, SparingLimiter
from pipeline.errors import Throttled


class Clock:
    """Milliseconds that pass when told."""

    def __init__(self) -> None:
        self.ms = 1_000_000

    def __call__(self) -> int:
        """The time."""
        return self.ms


def limiter(clock: Clock, *, requests: int = 5, per_day: int | None = None) -> RateLimiter:
    """A limiter of *requests* in 10 s."""
    return RateLimiter(requests=requests, interval_s=10.0, per_day=per_day, max_wait_s=30.0, clock=clock)


def taken(limit: RateLimiter) -> int:
    """How many requests may be made now."""
    count = 0
    while limit.take() == 0.0:
        count += 1
    return count


@given(st.lists(st.integers(0, 4_000), min_size=1, max_size=60))
def test_no_window_holds_more_than_its_limit(steps: list[int]) -> None:
    """Whenever requests are asked for, any 10 s hold at most five."""
    clock, granted = Clock(), []
    limit = limiter(clock)
    for step in steps:
        clock.ms += step
        if limit.take() == 0.0:
            granted.append(clock.ms)
    assert all(sum(at <= other < at + 10_000 for other in granted) <= 5 for at in granted)


def test_waiting_as_told_gets_a_turn() -> None:
    """The seconds that `take` returns are enough, and not much too many."""
    clock = Clock()
    limit = limiter(clock)
    assert taken(limit) == 5
    clock.ms += 4_000
    wait = limit.take()
    assert 5.9 <= wait <= 6.1
    clock.ms += round(wait * 1000) + 1
    assert limit.take() == 0.0


def test_others_spend_the_same_budget() -> None:
    """``X-RateLimit-Remaining`` below our own count is believed."""
    limit = limiter(Clock())
    limit.observe(200, {"X-RateLimit-Remaining": "2"})
    assert taken(limit) == 2


def test_a_better_remainder_does_not_raise_our_own_count() -> None:
    """What is still on its way is not in the API's count yet, so the smaller one holds."""
    limit = limiter(Clock())
    assert limit.take() == limit.take() == 0.0
    limit.observe(200, {"X-RateLimit-Remaining": "5"})
    assert taken(limit) == 3


def test_the_limit_itself_is_learnt() -> None:
    """``X-RateLimit-Max`` and its interval replace the setting."""
    clock = Clock()
    limit = limiter(clock)
    limit.observe(200, {"X-RateLimit-Max": "2", "X-RateLimit-Interval-Milliseconds": "1000"})
    assert taken(limit) == 2
    clock.ms += 1_001
    assert taken(limit) == 2


def test_a_day_has_an_end() -> None:
    """The day's budget stops requests until the day is over."""
    clock = Clock()
    limit = limiter(clock, requests=100, per_day=3)
    assert taken(limit) == 3
    clock.ms += DAY_MS
    assert taken(limit) == 3


def test_the_days_remainder_is_believed() -> None:
    """``X-RateLimit-Daily-Remaining`` replaces our own count of the day."""
    limit = limiter(Clock(), requests=100, per_day=200_000)
    limit.observe(200, {"X-RateLimit-Limit-Daily": "200000", "X-RateLimit-Daily-Remaining": "1"})
    assert taken(limit) == 1


@pytest.mark.parametrize(("headers", "pause"), [({"Retry-After": "7"}, 7.0), ({}, 10.0)])
def test_a_429_stops_everybody(headers: dict[str, str], pause: float) -> None:
    """After a 429 nobody calls for as long as it says, else for one interval."""
    clock = Clock()
    limit = limiter(clock)
    limit.observe(429, headers)
    assert limit.take() == pause
    clock.ms += round(pause * 1000)
    assert limit.take() == 0.0


@pytest.mark.parametrize("value", ["", "many", "-1", "1.5", "²"])
def test_headers_that_are_no_numbers_are_ignored(value: str) -> None:
    """A broken header changes nothing."""
    limit = limiter(Clock())
    limit.observe(200, {"X-RateLimit-Remaining": value, "X-RateLimit-Max": value})
    assert taken(limit) == 5


async def test_too_long_a_wait_is_told_instead_of_waited() -> None:
    """When the day is spent the caller is told when to come back, and is not held."""
    limit = limiter(Clock(), per_day=1)
    await limit.acquire("first")
    with pytest.raises(Throttled, match="second") as caught:
        await limit.acquire("second")
    assert caught.value.retry_after_s == DAY_MS / 1000


async def test_one_location_does_not_wait_for_another() -> None:
    """A limiter that makes its callers wait holds up nobody else."""
    busy = RateLimiter(requests=1, interval_s=30.0)
    await busy.acquire("x")
    async with asyncio.TaskGroup() as group:
        held = group.create_task(busy.acquire("x"), name="held")
        async with asyncio.timeout(5):
            await RateLimiter(requests=1, interval_s=30.0).acquire("y")
        assert not held.done()
        held.cancel()


async def test_waiters_are_served_and_counted() -> None:
    """Those who wait for a short interval all get their turn, in no less time than the limit needs."""
    limit = RateLimiter(requests=5, interval_s=0.1)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for number in range(11):
            group.create_task(limit.acquire("x"), name=f"waiter {number}")
    assert loop.time() - begun >= 0.2


def sparing(clock: Clock, *, share: float = 0.25, reserve: float = 0.5) -> SparingLimiter:
    """A share of 100 requests in 10 s and 1,000 a day."""
    return SparingLimiter(
        requests=100,
        interval_s=10.0,
        per_day=1_000,
        share=share,
        reserve=reserve,
        max_wait_s=1.0,
        clock=clock,
    )


def told(remaining: int, *, today: int = 1_000) -> dict[str, str]:
    """The headers of an answer."""
    return {
        "X-RateLimit-Max": "100",
        "X-RateLimit-Interval-Milliseconds": "10000",
        "X-RateLimit-Remaining": str(remaining),
        "X-RateLimit-Limit-Daily": "1000",
        "X-RateLimit-Daily-Remaining": str(today),
    }


async def granted(limit: SparingLimiter, clock: Clock, span_ms: int) -> int:
    """How many requests are made within *span_ms*, when one is asked for every 10 ms."""
    count = 0
    for _ in range(span_ms // 10):
        clock.ms += 10
        try:
            async with asyncio.timeout(0.01):
                await limit.acquire("test")
        except (TimeoutError, Throttled):
            continue
        count += 1
    return count


async def test_a_sparing_limiter_takes_its_share_evenly() -> None:
    """A quarter of 100 requests in 10 s is one every 0.4 s, before and after the API told its limits."""
    clock = Clock()
    limit = sparing(clock)
    assert await granted(limit, clock, 2_000) in {4, 5, 6}
    limit.observe(200, told(90))
    assert await granted(limit, clock, 2_000) in {4, 5, 6}


async def test_a_sparing_limiter_leaves_the_interval_to_others() -> None:
    """Once less than half of the limit is left, nothing is asked for one interval; then it goes on."""
    clock = Clock()
    limit = sparing(clock)
    limit.observe(200, told(49))
    with pytest.raises(Throttled, match="others need") as caught:
        await limit.acquire("test")
    assert caught.value.retry_after_s == 10.0
    clock.ms += 10_000
    await limit.acquire("test")


async def test_a_sparing_limiter_leaves_the_day_to_others() -> None:
    """While less than half of a day's requests is left, it looks again only once in a while."""
    clock = Clock()
    limit = sparing(clock)
    limit.observe(200, told(100, today=499))
    assert limit.take() == LOOK_AGAIN_S
    clock.ms += round(LOOK_AGAIN_S * 1000)
    assert limit.take() == 0.0


async def test_a_sparing_limiter_keeps_to_its_share_of_the_day() -> None:
    """However much is left, a day sees at most its share."""
    clock = Clock()
    limit = sparing(clock)
    for _ in range(250):
        await limit.acquire("test")
        clock.ms += 500
    with pytest.raises(Throttled):
        await limit.acquire("test")


async def test_a_sparing_limiter_heeds_a_429() -> None:
    """Retry-After counts as it does for all."""
    clock = Clock()
    limit = sparing(clock)
    limit.observe(429, {"Retry-After": "7"})
    with pytest.raises(Throttled) as caught:
        await limit.acquire("test")
    assert caught.value.retry_after_s == 7.0
