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
    )
    # Shared by the tasks of this process: the destination is one, however many partitions post to it.
    gates = {tenant: Gate(breaker) for tenant in plan.destinations}
    poster = Poster(plan, clients)

    async def effect(context: EffectContext) -> None:
        workers = [
            Worker(
                tenant,
                context,
                poster=poster,
                gate=gates[tenant],
                expire_ms=settings.expire_days * _DAY_MS,
                jitter=jitter,
            )
            for tenant in plan.destinations
        ]
        async with asyncio.TaskGroup() as group:
            for worker in workers:
                group.create_task(worker.run(), name=f"statistics/{worker.tenant}/{context.partition}")
            while True:
                await context.changed()
                for worker in workers:
                    worker.wake.set()

    return Unit(stage=stage(plan), effect=effect)


def _destinations(tenants: Mapping[str, Tenant]) -> dict[str, Destination]:
    """Where each tenant's statistics go; tenants without a Users API location are left out."""
    return {
        name: Destination(
            dialect=tenant.dialect, locations=tuple(location.location_id for location in tenant.users)
        )
        for name, tenant in tenants.items()
        if tenant.users
    }
