"""
Post engagement back to the Users API: the windows and, in the vendor's dialect, contacts' fields.

Reads    ``engagement.metrics``, ``contacts.enriched``, ``engagement.contacts``
Writes   ``statistics.posted``, one record per outcome; ``dead-letters`` for what is refused or expires
State    the latest unposted value per destination, what was posted last, contacts' joined halves
Time     due times follow from what was posted when; the wall clock is the effect's alone
Repeats  a value is posted again when its commit was lost; it then replaces itself at the destination

The stage only notes what is to be posted, so its inputs never wait for a destination. The effect has
one worker per tenant: a destination that is stuck or refuses our token holds up nobody else.
"""

import asyncio
import random
from collections.abc import Callable, Mapping

from pipeline.clients.users import UsersClient
from pipeline.effects import EffectContext, Unit
from pipeline.settings import BreakerSettings, SinkSettings, Tenant
from pipeline.sinks.statistics.posting import Poster
from pipeline.sinks.statistics.stage import Destination, Plan, stage
from pipeline.sinks.statistics.worker import Gate, Worker

__all__ = ["unit"]

_DAY_MS = 86_400_000


def unit(
    *,
    tenants: Mapping[str, Tenant],
    clients: Mapping[str, UsersClient],
    settings: SinkSettings,
    breaker: BreakerSettings,
    jitter: Callable[[], float] = random.random,
) -> Unit:
    """
    The statistics sink of *tenants*; *clients* are by location id.

    *jitter* gives random numbers, 0 ≤ x < 1, for the back-off.
    """
    plan = Plan(
        destinations=_destinations(tenants),
        kinds=frozenset(settings.dimensions),
        open_interval_ms=round(settings.open_interval_s * 1000),
        contact_interval_ms=round(settings.contact_interval_s * 1000),
        unanswered_ms=round(settings.unanswered_s * 1000),
    )
    effect = _Effect(Poster(plan, clients), breaker, settings.expire_days * _DAY_MS, jitter)
    return Unit(stage=stage(plan), effect=effect)


class _Effect:
    """One worker per tenant on each partition; what is known of a destination is the process's."""

    def __init__(
        self, poster: Poster, breaker: BreakerSettings, expire_ms: int, jitter: Callable[[], float]
    ) -> None:
        self._poster = poster
        self._gates = {tenant: Gate(breaker) for tenant in poster.plan.destinations}
        self._expire_ms = expire_ms
        self._jitter = jitter

    async def __call__(self, context: EffectContext) -> None:
        """Post what the task of *context* notes, until cancelled; see `pipeline.effects.Effect`."""
        workers = [self._worker(tenant, gate, context) for tenant, gate in self._gates.items()]
        async with asyncio.TaskGroup() as group:
            for worker in workers:
                group.create_task(worker.run(), name=f"statistics/{worker.tenant}/{context.partition}")
            while True:
                await context.changed()
                for worker in workers:
                    worker.wake.set()

    def _worker(self, tenant: str, gate: Gate, context: EffectContext) -> Worker:
        return Worker(
            tenant,
            context,
            poster=self._poster,
            gate=gate,
            expire_ms=self._expire_ms,
            jitter=self._jitter,
        )


def _destinations(tenants: Mapping[str, Tenant]) -> dict[str, Destination]:
    """Where each tenant's statistics go; tenants without a Users API location are left out."""
    return {
        name: Destination(
            dialect=tenant.dialect, locations=tuple(location.location_id for location in tenant.users)
        )
        for name, tenant in tenants.items()
        if tenant.users
    }
