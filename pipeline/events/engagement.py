"""What contacts did with our messages: per contact, per window and partition, and per window."""

import msgspec

from pipeline.events.wire import registered
from pipeline.instants import Time

__all__ = ["ContactEngagement", "Measures", "Partial", "Ratios", "WindowMetrics"]


class Measures(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """The measures of one window; all additive, so the sum of the partitions' is the window's."""

    sent: int = 0
    delivered: int = 0
    failed: int = 0
    segments: int = 0
    cost: str = "0"  #: decimal, normalised: no exponent, no trailing zeros
    contacts_messaged: int = 0
    replies: int = 0
    repliers: int = 0
    reply_seconds: dict[str, int] = {}  #: bucket number -> replies; see `pipeline.histogram`
    received: int = 0
    opt_outs: int = 0
    opt_ins: int = 0
    conversations_started: int = 0
    conversations_closed: int = 0
    contacts_engaged: int = 0


class Ratios(msgspec.Struct, frozen=True, kw_only=True):
    """Ratios of a window's measures, rounded to six decimals; null where the divisor is 0."""

    delivery: float | None = None
    failure: float | None = None
    reply: float | None = None
    opt_out: float | None = None


@registered("engagement.contact.v1")
class ContactEngagement(msgspec.Struct, frozen=True, kw_only=True):
    """A contact's lifetime totals and score; table ``engagement.contacts``."""

    tenant: str
    contact_key: str
    sent: int = 0
    delivered: int = 0
    failed: int = 0
    segments: int = 0
    cost: str = "0"  #: decimal
    received: int = 0
    replies: int = 0
    opt_outs: int = 0
    opt_ins: int = 0
    conversations_started: int = 0
    conversations_closed: int = 0
    first_activity_at: Time | None = None
    last_activity_at: Time | None = None
    score: float = 0.0  #: 0–100 at ``score_at``, 0 while opted out
    score_sum: float = 0.0  #: S at ``score_at``; readers decay it with a half-life of 14 d
    score_at: Time | None = None
    opted_out: bool = False  #: on either system


@registered("engagement.partial.v1")
class Partial(msgspec.Struct, frozen=True, kw_only=True):
    """One partition's absolute share of a window; internal."""

    window_key: str
    partition: int
    measures: Measures
    revision: int = 0  #: grows with each change of this partition's share


@registered("engagement.metrics.v1")
class WindowMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """The measures of one window; ``closed`` when its grace has passed and nothing is awaited."""

    tenant: str
    dimension: (
        str  #: ``all``, ``tag:id:…``, ``tag:name:…``, ``job:…``, ``campaign:…``, ``template:…``, ``number:…``
    )
    width: str  #: ``1h`` or ``1d``
    start: Time
    end: Time
    revision: int
    closed: bool
    measures: Measures
    ratios: Ratios
    reply_seconds_p50: int | None = None  #: seconds, upper bound of its bucket, error ≤ 2 %
    reply_seconds_p90: int | None = None
    reply_seconds_p99: int | None = None
