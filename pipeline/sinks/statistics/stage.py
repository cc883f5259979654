"""The pure half of the statistics sink: note what is to be posted, where, and not before when."""

from collections.abc import Mapping
from typing import Any, final

import msgspec

from pipeline.events import ContactEngagement, EnrichedContact, WindowMetrics
from pipeline.headers import is_quiet
from pipeline.sinks.statistics.state import (
    CONTACTS,
    PENDING,
    POSTED,
    STORES,
    Contact,
    Joined,
    Pending,
    Posted,
    Window,
    Work,
    cause_of,
    put,
    removed,
)
from pipeline.stage import NOTHING, Delete, Event, Outcome, Put, Stage, Stores, Write

__all__ = ["Destination", "Plan", "stage"]


@final
class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """Where a tenant's statistics go."""

    dialect: str  #: ``catalogue`` or ``vendor``
    locations: tuple[str, ...]


@final
class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is posted: *destinations* by tenant, *kinds* of dimensions, and how often at most."""

    destinations: Mapping[str, Destination]
    kinds: frozenset[str]
    open_interval_ms: int
    contact_interval_ms: int
    unanswered_ms: int  #: so long after it was given up, an unanswered request may still take effect
    is_quiet: bool = False  #: whether nothing is posted that was not waiting already

    def interval_ms(self, work: Work) -> int:
        """How long after a value the next one waits; a closed window does not."""
        match work:
            case Window():
                return 0 if work.metrics.closed else self.open_interval_ms
            case Contact():
                return self.contact_interval_ms


def stage(plan: Plan) -> Stage:
    """
    The stage ``statistics``; its step touches nothing but its stores.

    A record of a replay changes what is known, and what waits to be posted anyway; nothing else is posted.
    """
    quiet = msgspec.structs.replace(plan, is_quiet=True)

    def step(read: Stores, event: Event[Any]) -> Outcome:
        return noted(quiet if is_quiet(event.headers) else plan, read, event)

    def noted(plan: Plan, read: Stores, event: Event[Any]) -> Outcome:
        match event.value:
            case WindowMetrics():
                return _windowed(plan, read, event)
            case EnrichedContact() as contact:
                natives = tuple(
                    (native.account_id, native.contact_id)
                    for native in contact.natives
                    if native.system == "users"
                )
                return _contact(plan, read, event, natives)
            case ContactEngagement():
                return _engaged(plan, read, event)
            case None if event.topic == "contacts.enriched":
                return _contact(plan, read, event, ())
            case None if event.topic == "engagement.contacts":
                return _erased(read, event)
            case _:
                return NOTHING

    return Stage(
        name="statistics",
        inputs=("engagement.metrics", "contacts.enriched", "engagement.contacts"),
        outputs=("statistics.posted",),
        stores=STORES,
        step=step,
    )


def _windowed(plan: Plan, read: Stores, event: Event[WindowMetrics]) -> Outcome:
    """Note the window for each of the tenant's locations."""
    metrics = event.value
    destination = plan.destinations.get(metrics.tenant)
    if destination is None or metrics.dimension.partition(":")[0] not in plan.kinds:
        return NOTHING
    if destination.dialect == "vendor" and metrics.width != "1d":
        return NOTHING
    writes: list[Write] = []
    for location_id in destination.locations:
        pending = Pending(
            tenant=metrics.tenant,
            location_id=location_id,
            work=Window(window_key=event.key, metrics=metrics),
            cause=cause_of(event),
        )
        writes += _noted(plan, read, pending)
    return Outcome(writes=tuple(writes))


def _contact(plan: Plan, read: Stores, event: Event[Any], natives: tuple[tuple[str, str], ...]) -> Outcome:
    """Where the contact stands on the Users API changed, perhaps."""
    tenant = event.key.partition(":")[0]
    destination = plan.destinations.get(tenant)
    if destination is None or destination.dialect != "vendor":
        return NOTHING
    wanted = tuple(native for native in natives if native[0] in destination.locations)
    old = read.get(CONTACTS, event.key) or Joined()
    writes: list[Write] = []
    for location_id, contact_id in set(old.natives) - set(wanted):
        gone = f"{tenant}|{location_id}|{event.key}|{contact_id}"
        writes += [*removed(read, gone), Delete(POSTED, gone)]
    joined = msgspec.structs.replace(old, natives=wanted)
    return Outcome(writes=(*writes, *_joined(plan, read, event.key, old, joined)))


def _engaged(plan: Plan, read: Stores, event: Event[ContactEngagement]) -> Outcome:
    """The contact did something."""
    destination = plan.destinations.get(event.value.tenant)
    if destination is None or destination.dialect != "vendor":
        return NOTHING
    old = read.get(CONTACTS, event.key) or Joined()
    if old.engagement is not None and _older(event.value, old.engagement):
        # Redriven: what has come since is newer, but was perhaps never posted.
        return Outcome(writes=_joined(plan, read, event.key, Joined(), old))
    joined = msgspec.structs.replace(old, engagement=event.value, cause=cause_of(event))
    return Outcome(writes=_joined(plan, read, event.key, old, joined))


def _erased(read: Stores, event: Event[None]) -> Outcome:
    """What the contact did is to be forgotten, and not to be posted any more."""
    old = read.get(CONTACTS, event.key)
    if old is None:
        return NOTHING
    tenant = event.key.partition(":")[0]
    waiting = [f"{tenant}|{location}|{event.key}|{contact_id}" for location, contact_id in old.natives]
    left = Put(CONTACTS, event.key, Joined(natives=old.natives)) if old.natives else None
    return Outcome(
        (
            left or Delete(CONTACTS, event.key),
            *(write for place in waiting for write in removed(read, place)),
        )
    )


def _older(engagement: ContactEngagement, than: ContactEngagement) -> bool:
    return (engagement.last_activity_at or "") < (than.last_activity_at or "")


def _joined(plan: Plan, read: Stores, key: str, old: Joined, joined: Joined) -> tuple[Write, ...]:
    """Keep both halves, and note what they amount to for each native contact."""
    writes: list[Write] = []
    if not joined.natives and joined.engagement is None:
        writes.append(Delete(CONTACTS, key))
    elif joined != old:
        writes.append(Put(CONTACTS, key, joined))
    if joined.engagement is None or joined.cause is None:
        return tuple(writes)
    for location_id, contact_id in joined.natives:
        pending = Pending(
            tenant=joined.engagement.tenant,
            location_id=location_id,
            work=Contact(contact_key=key, contact_id=contact_id, engagement=joined.engagement),
            cause=joined.cause,
        )
        writes += _noted(plan, read, pending)
    return tuple(writes)


def _noted(plan: Plan, read: Stores, pending: Pending) -> tuple[Write, ...]:
    """Keep *pending* unless its destination has it already, or something newer waits."""
    posted = read.get(POSTED, pending.key)
    waiting = read.get(PENDING, pending.key)
    if plan.is_quiet and waiting is None:
        return ()
    if posted is not None and _covers(posted.version, pending.work):
        if isinstance(pending.work, Window):
            return ()
        if waiting is None or not waiting.unsure_until_ms:
            return removed(read, pending.key)
    due = 0 if posted is None else _due(plan, posted, pending.work)
    if waiting is None:
        return put(read, msgspec.structs.replace(pending, due_ms=due))
    if _covers(waiting.work.version, pending.work):
        return ()
    # A value that cannot be posted just now waits on, whatever becomes of it meanwhile.
    kept = msgspec.structs.replace(
        waiting,
        work=pending.work,
        cause=pending.cause,
        due_ms=waiting.due_ms if waiting.attempts else min(due, waiting.due_ms),
    )
    return put(read, kept)


def _covers(version: str, work: Work) -> bool:
    """Whether *version* is *work*'s, or for a window a later one."""
    match work:
        case Window():
            return work.metrics.revision <= int(version)
        case Contact():
            return work.version == version


def _due(plan: Plan, posted: Posted, work: Work) -> int:
    interval = plan.interval_ms(work)
    return posted.at_ms + interval if interval else 0
