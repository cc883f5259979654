"""What the pipeline tells of itself: received records, ticks, posted statistics, poll schedules, tokens."""

import msgspec

from pipeline.events.wire import registered
from pipeline.instants import Time

__all__ = ["Fingerprint", "PollState", "PostedStatistics", "Received", "Tick", "Token"]


class Received(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    A raw record of ``sources.received``: *body* is the Kafka value as it came, the rest its headers.

    For a webhook the body is the HTTP body. For a poll it is one item as the API listed it; what the
    item does not carry itself (location, times of the scan) stands in the headers.
    """

    body: bytes
    source: str  #: ``webhook``, ``poll`` or ``backfill``
    product: str  #: ``sakari``, ``users``, or the name of a configured source
    resource: str  #: ``webhook``, or what was polled: see `pipeline.sources.poller`
    tenant: str  #: ``-`` where unknown
    account: str = ""  #: Sakari account or Users API location; of a webhook as the receiver found it
    verified: bool = False
    change: str = ""  #: ``removed`` for the last known item of what is gone
    scan_started_at: int = 0  #: ms; polls only


@registered("clock.tick.v1")
class Tick(msgspec.Struct, frozen=True):
    """Time, as stages see it."""

    at: Time


@registered("statistics.posted.v1")
class PostedStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of posting one window, or one contact's fields, to one location."""

    statistics_id: str
    tenant: str
    location_id: str
    dialect: str  #: ``catalogue`` or ``vendor``
    outcome: str  #: ``posted``, ``rejected`` or ``expired``
    window_key: str | None = None
    contact_key: str | None = None
    revision: int | None = None
    closed: bool | None = None
    attempts: int = 1
    status: int | None = None  #: HTTP status of the last answer
    error: str | None = None  #: masked
    posted_at: Time


@registered("poll.state.v1")
class PollState(msgspec.Struct, frozen=True, kw_only=True):
    """Where polling one resource of one tenant stands; table ``poll.schedule``."""

    interval_s: float
    next_due_at: Time
    scan: int = 0  #: number of the current or last scan
    scan_started_at: Time | None = None  #: None between scans
    cursor: str = ""  #: where the next page begins
    seen: int = 0  #: items of this scan so far
    completed: int = 0  #: complete scans
    failures: int = 0  #: consecutive
    error: str | None = None  #: of the last failure, masked


@registered("token.v1")
class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A rotated OAuth token, encrypted with a key derived from the identity secret; table ``tokens``."""

    sealed: str
    expires_at: Time
    scopes: tuple[str, ...] = ()


@registered("identity.fingerprint.v1")
class Fingerprint(msgspec.Struct, frozen=True):
    """Tells one identity secret from another without telling it; table ``meta``."""

    sha256: str
