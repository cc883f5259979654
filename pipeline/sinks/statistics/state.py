"""What the statistics sink remembers: values to be posted, when they are due, and what was posted last."""

import hashlib
from typing import Any, Final, TypeAlias, final

import msgspec

from pipeline.events import ContactEngagement, WindowMetrics
from pipeline.instants import Time
from pipeline.stage import Delete, Event, Put, Store, Stores, Write

__all__ = [
    "CONTACTS",
    "DUE",
    "PENDING",
    "POSTED",
    "STORES",
    "Cause",
    "Contact",
    "Joined",
    "Pending",
    "Posted",
    "Window",
    "cause_of",
    "contact_fields",
    "due_key",
    "next_due",
    "put",
    "removed",
]


@final
class Window(msgspec.Struct, frozen=True, kw_only=True, tag="window"):
    """A window to be posted to one location."""

    window_key: str
    metrics: WindowMetrics

    @property
    def version(self) -> str:
        """Tells this value from others of the window."""
        return str(self.metrics.revision)

    @property
    def subject(self) -> str:
        """What is posted, unique within a location."""
        return self.window_key


@final
class Contact(msgspec.Struct, frozen=True, kw_only=True, tag="contact"):
    """A contact's fields to be posted to one location."""

    contact_key: str
    contact_id: str  #: the Users API's
    engagement: ContactEngagement

    @property
    def version(self) -> str:
        """Tells these fields from others."""
        text = msgspec.json.encode(contact_fields(self.engagement), order="sorted")
        return hashlib.sha256(text).hexdigest()[:16]

    @property
    def subject(self) -> str:
        """What is posted, unique within a location."""
        return f"{self.contact_key}|{self.contact_id}"


Work: TypeAlias = Window | Contact


@final
class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """The record that a value came with: its trace goes on to the destination, its time to the outcome."""

    topic: str
    key: str
    type: str
    id: str
    received_at: int
    occurred_at: Time
    traceparent: str
    backfill: bool

    def event(self, value: Any) -> Event[Any]:
        """The record as an event again, with its *value*."""
        return Event(
            topic=self.topic,
            key=self.key,
            value=value,
            type=self.type,
            id=self.id,
            received_at=self.received_at,
            occurred_at=self.occurred_at,
            traceparent=self.traceparent,
            backfill=self.backfill,
        )


def cause_of(event: Event[Any]) -> Cause:
    """What is kept of *event*."""
    return Cause(
        topic=event.topic,
        key=event.key,
        type=event.type,
        id=event.id,
        received_at=event.received_at,
        occurred_at=event.occurred_at,
        traceparent=event.traceparent,
        backfill=event.backfill,
    )


@final
class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """The latest unposted value for one destination."""

    tenant: str
    location_id: str
    work: Work
    cause: Cause
    due_ms: int = 0  #: not before; 0 is at once
    since_ms: int = 0  #: when it was first found due and could not be posted; 0 is not yet
    attempts: int = 0
    unsure_until_ms: int = 0  #: until then a request that nobody answered may still take effect
    status: int | None = None  #: HTTP status of the last answer
    error: str | None = None  #: of the last attempt, masked

    @property
    def key(self) -> str:
        """Its key in the stores."""
        return f"{self.tenant}|{self.location_id}|{self.work.subject}"

    @property
    def event(self) -> Event[Any]:
        """The record that it came with."""
        match self.work:
            case Window():
                return self.cause.event(self.work.metrics)
            case Contact():
                return self.cause.event(self.work.engagement)


@final
class Posted(msgspec.Struct, frozen=True, kw_only=True):
    """What a destination was given last."""

    version: str
    at_ms: int


@final
class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """A contact's two halves: where it stands on the Users API, and what it did."""

    natives: tuple[tuple[str, str], ...] = ()  #: location id, contact id
    engagement: ContactEngagement | None = None
    cause: Cause | None = None  #: of the engagement


PENDING: Final[Store[Pending]] = Store("pending", Pending)
DUE: Final[Store[str]] = Store("due", str)  #: ``tenant|due|pending key`` -> pending key
POSTED: Final[Store[Posted]] = Store("posted", Posted)
CONTACTS: Final[Store[Joined]] = Store("contacts", Joined)
STORES: Final = (PENDING, DUE, POSTED, CONTACTS)


def due_key(pending: Pending) -> str:
    """Where *pending* stands in the order of what is due."""
    return f"{pending.tenant}|{pending.due_ms:015d}|{pending.key}"


def next_due(read: Stores, tenant: str, from_ms: int, to_ms: int, limit: int) -> list[Pending]:
    """At most *limit* values of *tenant* that are due in ``from_ms <= due < to_ms``, the oldest first."""
    keys = read.scan(DUE, f"{tenant}|{from_ms:015d}", f"{tenant}|{to_ms:015d}", limit)
    found = [read.get(PENDING, key) for _, key in keys]
    return [pending for pending in found if pending is not None]


def put(read: Stores, pending: Pending) -> tuple[Write, ...]:
    """Keep *pending*, in place of what was kept for its destination."""
    place = due_key(pending)
    kept: tuple[Write, ...] = (Put(PENDING, pending.key, pending), Put(DUE, place, pending.key))
    old = read.get(PENDING, pending.key)
    if old is not None and due_key(old) != place:
        return (Delete(DUE, due_key(old)), *kept)
    return kept


def removed(read: Stores, key: str) -> tuple[Write, ...]:
    """Forget what was to be posted under *key*."""
    old = read.get(PENDING, key)
    return () if old is None else (Delete(PENDING, key), Delete(DUE, due_key(old)))


def contact_fields(engagement: ContactEngagement) -> dict[str, str]:
    """The custom fields of a contact, name -> value."""
    return {
        "engagement_score": f"{engagement.score:.1f}",
        "engagement_score_at": engagement.score_at or "",
        "engagement_last_activity": engagement.last_activity_at or "",
        "engagement_sent": str(engagement.sent),
        "engagement_delivered": str(engagement.delivered),
        "engagement_failed": str(engagement.failed),
        "engagement_received": str(engagement.received),
        "engagement_replies": str(engagement.replies),
        "engagement_segments": str(engagement.segments),
        "engagement_cost": engagement.cost,
        "engagement_opt_outs": str(engagement.opt_outs),
        "engagement_opt_ins": str(engagement.opt_ins),
    }
