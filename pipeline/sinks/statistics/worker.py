"""
One worker per tenant and partition: post what is due, and wait for what is not.

The breaker is the tenant's, shared by its workers. A failed value goes back into the queue behind a wait
of its own, so that one that always fails does not keep the others from being tried.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple

import structlog

from pipeline.clients.breaker import Breaker, Circuit, GiveUp, TryAgain, backoff_s, verdict
from pipeline.effects import EffectContext
from pipeline.errors import BrokerError, Rejected, Unavailable, UpstreamError
from pipeline.logs import mask
from pipeline.settings import BreakerSettings
from pipeline.sinks.statistics import outcomes
from pipeline.sinks.statistics.posting import Poster
from pipeline.sinks.statistics.state import Pending, next_due
from pipeline.stage import Outcome, Stores

__all__ = ["Gate", "Worker"]

log = structlog.get_logger()

#: How many values of a tenant are on their way at a time.
PARALLEL: Final = 8
#: How many due values are looked at in a round: also those that have expired.
LOOKED_AT: Final = 16
#: After Kafka failed us, so long until the next attempt, in seconds.
BROKER_PAUSE_S: Final = 1.0
#: Beyond every due time, in ms.
NEVER_MS: Final = 10**15 - 1


class Gate:
    """The breaker of one tenant, as it stands now, and its *slots*: a stuck one takes no more connections."""

    def __init__(self, settings: BreakerSettings) -> None:
        self.breaker = Breaker(settings=settings)
        self.slots = asyncio.Semaphore(PARALLEL)


class Attempt(NamedTuple):
    """How an attempt ended: a status (None: the destination holds something newer), or an error."""

    pending: Pending
    status: int | None = None
    error: UpstreamError | None = None


class Worker:
    """Posts what is due for *tenant* on the partition of *context*."""

    def __init__(
        self,
        tenant: str,
        context: EffectContext,
        *,
        poster: Poster,
        gate: Gate,
        expire_ms: int,
        jitter: Callable[[], float],
    ) -> None:
        self.tenant = tenant
        self.wake = asyncio.Event()
        self._context = context
        self._poster = poster
        self._gate = gate
        self._expire_ms = expire_ms
        self._jitter = jitter

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            self.wake.clear()
            if not await self.round():
                await self._rest()

    async def round(self) -> bool:
        """Deal with what is due now; whether there was anything to do."""
        now = self._context.now()
        due = next_due(self._context.read, self.tenant, 0, now + 1, LOOKED_AT)
        expired = [each for each in due if self._is_expired(each, now)]
        await self._commit([(each, self._expire(each)) for each in expired])
        alive = [each for each in due if not self._is_expired(each, now)]
        circuit = self._gate.breaker.circuit(now / 1000)
        if circuit is Circuit.OPEN:
            waiting = [each for each in alive if not each.since_ms] if self._held_up else []
            await self._commit([(each, self._stamp(each, now)) for each in waiting])
            return bool(expired or waiting)
        batch = alive[: 1 if circuit is Circuit.HALF_OPEN else PARALLEL]
        if batch:
            await self._post(batch)
        return bool(expired or batch)

    @property
    def _held_up(self) -> bool:
        """Whether the tenant fails for longer than a hiccup."""
        breaker = self._gate.breaker
        return breaker.failures >= breaker.settings.failures_to_open

    def _is_expired(self, pending: Pending, now: int) -> bool:
        return bool(pending.since_ms) and now - pending.since_ms > self._expire_ms

    async def _post(self, batch: Sequence[Pending]) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._attempt(each), name=f"statistics/post/{self.tenant}")
                for each in batch
            ]
        attempts = [task.result() for task in tasks]
        self._judge(attempts)
        await self._commit([(each.pending, self._change(each)) for each in attempts])

    async def _attempt(self, pending: Pending) -> Attempt:
        async with self._gate.slots:
            try:
                return Attempt(pending, await self._poster.post(pending, self._context.now()))
            except UpstreamError as error:
                return Attempt(pending, error=error)

    def _judge(self, attempts: Sequence[Attempt]) -> None:
        """Tell the breaker: a tenant fails as a whole only when nothing succeeds, or when it says wait."""
        verdicts = [verdict(each.error) for each in attempts if each.error is not None]
        failed = [each for each in verdicts if isinstance(each, TryAgain)]
        wishes = [each.after_s for each in failed if each.after_s is not None]
        now_s = self._context.now() / 1000
        before = self._gate.breaker
        if failed and (wishes or len(failed) == len(attempts)):
            wish = max(wishes, default=None)
            self._gate.breaker = before.failed(now_s, jitter=self._jitter(), after_s=wish)
        else:
            self._gate.breaker = before.succeeded()
        self._tell(before, self._gate.breaker, [each for each in attempts if each.error is not None])

    def _tell(self, before: Breaker, after: Breaker, failed: Sequence[Attempt]) -> None:
        threshold = after.settings.failures_to_open
        if before.failures < threshold <= after.failures:
            log.warning("tenant.held_up", tenant=self.tenant, error=mask(str(failed[0].error)))
        elif after.failures < threshold <= before.failures:
            log.info("tenant.recovered", tenant=self.tenant)

    def _change(self, attempt: Attempt) -> Callable[[Stores], Outcome]:
        pending, status, error = attempt
        plan, now = self._poster.plan, self._context.now()
        if error is None:
            if status is None:
                return partial(outcomes.dropped, pending=pending, plan=plan, at_ms=now)
            return partial(outcomes.posted, pending=pending, plan=plan, at_ms=now, status=status)
        match verdict(error):
            case GiveUp(refused):
                text = mask(str(error))
                log.warning("statistics.rejected", tenant=self.tenant, status=refused, error=text)
                return partial(
                    outcomes.rejected, pending=pending, plan=plan, at_ms=now, status=refused, error=text
                )
            case TryAgain():
                return self._postpone(pending, error)

    def _postpone(self, pending: Pending, error: UpstreamError) -> Callable[[Stores], Outcome]:
        now = self._context.now()
        breaker = self._gate.breaker
        own = backoff_s(pending.attempts + 1, breaker.settings, self._jitter())
        wait_s = max(own, breaker.wait_s(now / 1000))
        return partial(
            outcomes.postponed,
            pending=pending,
            due_ms=now + round(wait_s * 1000),
            at_ms=now,
            attempts=pending.attempts + 1,
            error=mask(str(error)),
            status=error.status if isinstance(error, Rejected) else None,
            unsure_until_ms=now + self._poster.plan.unanswered_ms if isinstance(error, Unavailable) else 0,
        )

    def _stamp(self, pending: Pending, now: int) -> Callable[[Stores], Outcome]:
        """It is due and cannot be tried: from now on it may expire."""
        return partial(
            outcomes.postponed,
            pending=pending,
            due_ms=now,
            at_ms=now,
            attempts=pending.attempts,
            error=pending.error,
            status=pending.status,
        )

    def _expire(self, pending: Pending) -> Callable[[Stores], Outcome]:
        return partial(outcomes.expired, pending=pending, plan=self._poster.plan, at_ms=self._context.now())

    async def _commit(self, changes: Sequence[tuple[Pending, Callable[[Stores], Outcome]]]) -> None:
        """Commit all *changes* at once, so that they share a transaction."""
        if not changes:
            return
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._committed(each, change), name=f"statistics/commit/{self.tenant}")
                for each, change in changes
            ]
        if not all(task.result() for task in tasks):
            await asyncio.sleep(BROKER_PAUSE_S)

    async def _committed(self, pending: Pending, change: Callable[[Stores], Outcome]) -> bool:
        try:
            await self._context.commit(change, cause=pending.event)
        except BrokerError as error:
            # It is still in the queue, and is posted again: a repeat replaces.
            log.warning("statistics.uncommitted", tenant=self.tenant, error=str(error))
            return False
        return True

    async def _rest(self) -> None:
        """Wait until something is due that may be tried, or the state changes."""
        now = self._context.now()
        first = next_due(self._context.read, self.tenant, 0, NEVER_MS, 1)
        if not first:
            await self.wake.wait()
            return
        wait_s = max((first[0].due_ms - now) / 1000, self._gate.breaker.wait_s(now / 1000), 0.001)
        await _within(wait_s, self.wake.wait())


async def _within(seconds: float, waiting: Awaitable[Any]) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await waiting
