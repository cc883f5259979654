"""What the pipeline tells of itself: received records, ticks, posted statistics, poll schedules, tokens."""

from typing import Annotated

import msgspec

from pipeline.events.fields import ContactKey, LocationId, Tenant, at, choice, doc
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

    at: Annotated[Time, at("Now")]


@registered("statistics.posted.v1")
class PostedStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of posting one window, or one contact's fields, to one location."""

    statistics_id: Annotated[
        str,
        doc("uuid5 of what was posted and where", "c62d4bcb-1dc6-5c4c-86e0-d0d6e617c97d", personal="none"),
    ]
    tenant: Tenant
    location_id: LocationId
    dialect: Annotated[str, choice("Which form of the API", "catalogue", "vendor")]
    outcome: Annotated[str, choice("How it ended", "posted", "rejected", "expired")]
    window_key: Annotated[
        str | None, doc("Window that was posted", "acme|all|1h|2030-01-10T08:00:00.000Z", personal="none")
    ] = None
    contact_key: Annotated[ContactKey | None, doc("Contact whose fields were posted")] = None
    revision: Annotated[int | None, doc("Revision of the window", 35, unit="revisions")] = None
    closed: Annotated[bool | None, doc("Whether the window was closed", True)] = None
    attempts: Annotated[int, doc("How often it was tried", 1, unit="attempts")] = 1
    status: Annotated[int | None, doc("HTTP status of the last answer", 201, unit="HTTP status")] = None
    error: Annotated[
        str | None, doc("What the last answer said, masked", "no answer within 30 s", personal="none")
    ] = None
    posted_at: Annotated[Time, at("When the last answer came")]


@registered("poll.state.v1")
class PollState(msgspec.Struct, frozen=True, kw_only=True):
    """Where polling one resource of one tenant stands; table ``poll.schedule``."""

    interval_s: Annotated[float, doc("Between two scans", 60.0, unit="s")]
    next_due_at: Annotated[Time, at("When the next page is due")]
    scan: Annotated[int, doc("Number of the current or last scan", 4, unit="scans")] = 0
    scan_started_at: Annotated[Time | None, at("Begin of the current scan, null between two")] = None
    cursor: Annotated[str, doc("Where the next page begins", "100", personal="none")] = ""
    seen: Annotated[int, doc("Items of this scan so far", 100, unit="items")] = 0
    completed: Annotated[int, doc("Complete scans", 3, unit="scans")] = 0
    failures: Annotated[int, doc("Failures in a row", 1, unit="failures")] = 0
    error: Annotated[
        str | None, doc("What the last failure said, masked", "no answer within 30 s", personal="none")
    ] = None


@registered("token.v1")
class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A rotated OAuth token, encrypted with a key derived from the identity secret; table ``tokens``."""

    sealed: Annotated[str, doc("The token, encrypted, Base64", "c2VhbGVk", personal="none")]
    expires_at: Annotated[Time, at("When it expires")]
    scopes: Annotated[tuple[str, ...], doc("What it is good for", ["users.readonly"], personal="none")] = ()


@registered("identity.fingerprint.v1")
class Fingerprint(msgspec.Struct, frozen=True):
    """Tells one identity secret from another without telling it; table ``meta``."""

    sha256: Annotated[str, doc("Digest that tells nothing of the secret", "cd" * 32, personal="none")]
