"""
Keep within an API's rate limits, as they were told to us and as its answers correct them.

A `RateLimiter` belongs to one location or account. It counts our own requests in a sliding window
(pyrate-limiter) and in days; ``X-RateLimit-…`` headers of every answer correct both, because others
may spend the same budget. Whoever waits, waits here alone: other locations have their own limiter.

A `SparingLimiter` is for work that can wait: it takes a share of the limits, evenly spread, and nothing
while an answer says that others need what is left.
"""

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from pyrate_limiter import InMemoryBucket, Rate, RateItem

from pipeline.clients.http import retry_after_s
from pipeline.errors import Throttled

__all__ = ["Limiter", "RateLimiter", "SparingLimiter"]

DAY_MS: Final = 86_400_000
#: Longer waits are the caller's to schedule: it is told by `Throttled` instead of being held.
MAX_WAIT_S: Final = 30.0
#: Likewise for work that can wait; whoever does it wants to tell what it waits for.
MAX_SPARING_WAIT_S: Final = 5.0
#: While little of a day is left, it is looked so often whether there is more; costs one request, in seconds.
LOOK_AGAIN_S: Final = 900.0


class Limiter(Protocol):
    """What a client asks before each request, and tells of each answer."""

    async def acquire(self, operation: str) -> None:
        """
        Wait for our turn.

        Raises:
            Throttled: it would take too long; says how long.
        """
        ...

    def observe(self, status: int, headers: Mapping[str, str]) -> None:
        """Learn from an answer."""
        ...


class RateLimiter:
    """
    At most *requests* in any *interval_s*, and *per_day* in a day where given.

    *clock* gives ms of a clock that never goes back.
    """

    def __init__(
        self,
        *,
        requests: int,
        interval_s: float,
        per_day: int | None = None,
        max_wait_s: float = MAX_WAIT_S,
        clock: Callable[[], int] = lambda: time.monotonic_ns() // 1_000_000,
    ) -> None:
        self._rate = Rate(requests, round(interval_s * 1000))
        self._bucket = InMemoryBucket([self._rate])
        self._per_day = per_day
        self._day_ends_at = 0
        self._used_today = 0
        self._paused_until = 0
        self._max_wait_s = max_wait_s
        self._clock = clock
        self._turn = asyncio.Lock()

    async def acquire(self, operation: str) -> None:
        """
        Wait for our turn, first come first served.

        Raises:
            Throttled: it would take too long; says how long.
        """
        async with self._turn:
            while wait_s := self.take():
                if wait_s > self._max_wait_s:
                    raise Throttled(f"{operation}: our own rate limit is reached", wait_s)
                await asyncio.sleep(wait_s)

    def take(self) -> float:
        """Count one request now and return 0, or return the seconds after which to ask again."""
        now = self._clock()
        if now < self._paused_until:
            return (self._paused_until - now) / 1000
        self._begin_day(now)
        if self._per_day is not None and self._used_today >= self._per_day:
            return (self._day_ends_at - now) / 1000
        self._bucket.leak(now)
        item = RateItem("request", now)
        if not self._bucket.put(item):
            wait_ms = self._bucket.waiting(item)
            assert isinstance(wait_ms, int)
            return max(wait_ms, 1) / 1000
        self._used_today += 1
        return 0.0

    def observe(self, status: int, headers: Mapping[str, str]) -> None:
        """Correct the counts by the headers of an answer; a 429 without any stops us for one interval."""
        now = self._clock()
        self._learn_rate(headers)
        remaining = _number(headers, "X-RateLimit-Remaining")
        if remaining is not None:
            self._spend(self._remaining(now) - remaining, now)
        today = _number(headers, "X-RateLimit-Daily-Remaining")
        if today is not None and self._per_day is not None:
            self._begin_day(now)
            self._per_day = _number(headers, "X-RateLimit-Limit-Daily") or self._per_day
            self._used_today = max(0, self._per_day - today)
        if status == 429:
            wish = retry_after_s(headers.get("Retry-After"), time.time())
            pause_ms = self._rate.interval if wish is None else math.ceil(wish * 1000)
            self._paused_until = max(self._paused_until, now + pause_ms)

    def _learn_rate(self, headers: Mapping[str, str]) -> None:
        limit = _number(headers, "X-RateLimit-Max") or self._rate.limit
        interval = _number(headers, "X-RateLimit-Interval-Milliseconds") or self._rate.interval
        if (limit, interval) != (self._rate.limit, self._rate.interval):
            self._rate = Rate(limit, interval)
            self._bucket.rates = [self._rate]

    def _remaining(self, now: int) -> int:
        self._bucket.leak(now)
        return max(0, self._rate.limit - int(self._bucket.count()))

    def _spend(self, weight: int, now: int) -> None:
        if weight > 0:
            self._bucket.put(RateItem("others", now, weight))

    def _begin_day(self, now: int) -> None:
        if now >= self._day_ends_at:
            self._day_ends_at = now + DAY_MS
            self._used_today = 0


class SparingLimiter:
    """
    At most *share* of *requests* in any *interval_s*, one at a time, and of *per_day* where given.

    While less than *reserve* of either limit is left, as the API says, it makes none: others need them.
    *clock* gives ms of a clock that never goes back.
    """

    def __init__(
        self,
        *,
        requests: float,
        interval_s: float,
        share: float,
        reserve: float,
        per_day: int | None = None,
        max_wait_s: float = MAX_SPARING_WAIT_S,
        clock: Callable[[], int] = lambda: time.monotonic_ns() // 1_000_000,
    ) -> None:
        daily = None if per_day is None else max(1, int(per_day * share))
        self._spacing_ms = interval_s * 1000 / (requests * share)
        self._own = RateLimiter(
            requests=1,
            interval_s=self._spacing_ms / 1000,
            per_day=daily,
            max_wait_s=max_wait_s,
            clock=clock,
        )
        self._share = share
        self._reserve = reserve
        self._interval_ms = round(interval_s * 1000)
        self._yields_until = 0
        self._max_wait_s = max_wait_s
        self._clock = clock

    async def acquire(self, operation: str) -> None:
        """
        Wait for our turn, which comes after all others'.

        Raises:
            Throttled: it would take too long; says how long.
        """
        while wait_s := self.take():
            if wait_s > self._max_wait_s:
                raise Throttled(f"{operation}: others need what is left of the rate limit", wait_s)
            await asyncio.sleep(wait_s)
        await self._own.acquire(operation)

    def take(self) -> float:
        """Seconds that others are left alone for; 0: a request may be made, where our share has one."""
        return max(0, self._yields_until - self._clock()) / 1000

    def observe(self, status: int, headers: Mapping[str, str]) -> None:
        """Learn the limits, and whether others need what is left of them."""
        limit = _number(headers, "X-RateLimit-Max")
        self._interval_ms = _number(headers, "X-RateLimit-Interval-Milliseconds") or self._interval_ms
        if limit:
            self._spacing_ms = self._interval_ms / (limit * self._share)
        own = {
            "X-RateLimit-Max": "1",
            "X-RateLimit-Interval-Milliseconds": str(max(1, round(self._spacing_ms))),
        }
        if "Retry-After" in headers:
            own["Retry-After"] = headers["Retry-After"]
        self._own.observe(status, own)
        daily = _number(headers, "X-RateLimit-Limit-Daily")
        if self._is_scarce(limit, _number(headers, "X-RateLimit-Remaining")):
            self._yield(self._interval_ms)
        if self._is_scarce(daily, _number(headers, "X-RateLimit-Daily-Remaining")):
            self._yield(round(LOOK_AGAIN_S * 1000))

    def _is_scarce(self, limit: int | None, remaining: int | None) -> bool:
        return limit is not None and remaining is not None and remaining < limit * self._reserve

    def _yield(self, pause_ms: int) -> None:
        self._yields_until = max(self._yields_until, self._clock() + pause_ms)


def _number(headers: Mapping[str, str], name: str) -> int | None:
    text = headers.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else None
