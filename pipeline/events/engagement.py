"""What contacts did with our messages: per contact, per window and partition, and per window."""

from typing import Annotated

import msgspec

from pipeline.events.fields import ContactKey, Decimal, Tenant, at, choice, doc
from pipeline.events.wire import registered
from pipeline.instants import Time

__all__ = ["ContactEngagement", "Measures", "Partial", "Ratios", "WindowMetrics"]


class Measures(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """The measures of one window; all additive, so the sum of the partitions' is the window's."""

    sent: Annotated[int, doc("Outbound messages created in the window", 10, unit="messages")] = 0
    delivered: Annotated[int, doc("Of those, delivered", 8, unit="messages")] = 0
    failed: Annotated[int, doc("Of those, error, invalid or undelivered", 1, unit="messages")] = 0
    segments: Annotated[int, doc("SMS that those were cut into", 12, unit="segments")] = 0
    cost: Annotated[Decimal, doc("What those cost")] = "0"
    contacts_messaged: Annotated[int, doc("Distinct contacts written to", 7, unit="contacts")] = 0
    replies: Annotated[int, doc("Inbound messages that answer those", 3, unit="messages")] = 0
    repliers: Annotated[int, doc("Distinct contacts who answered", 2, unit="contacts")] = 0
    reply_seconds: Annotated[
        dict[str, int],
        doc(
            "Bucket number of `pipeline.histogram` to replies that took that long",
            {"12": 1},
            unit="messages",
            personal="none",
        ),
    ] = {}
    received: Annotated[int, doc("Inbound messages", 4, unit="messages")] = 0
    opt_outs: Annotated[int, doc("Contacts who asked for no more", 1, unit="facts")] = 0
    opt_ins: Annotated[int, doc("Contacts who allowed messages again", 1, unit="facts")] = 0
    conversations_started: Annotated[int, doc("Conversations begun", 2, unit="conversations")] = 0
    conversations_closed: Annotated[int, doc("Conversations closed", 1, unit="conversations")] = 0
    contacts_engaged: Annotated[int, doc("Distinct contacts who wrote", 2, unit="contacts")] = 0


class Ratios(msgspec.Struct, frozen=True, kw_only=True):
    """Ratios of a window's measures, rounded to six decimals; null where the divisor is 0."""

    delivery: Annotated[float | None, doc("delivered / sent", 0.8, unit="1")] = None
    failure: Annotated[float | None, doc("failed / sent", 0.1, unit="1")] = None
    reply: Annotated[float | None, doc("repliers / contacts_messaged", 0.285714, unit="1")] = None
    opt_out: Annotated[float | None, doc("opt_outs / contacts_messaged", 0.142857, unit="1")] = None


@registered("engagement.contact.v1")
class ContactEngagement(msgspec.Struct, frozen=True, kw_only=True):
    """A contact's lifetime totals and score; table ``engagement.contacts``."""

    tenant: Tenant
    contact_key: ContactKey
    sent: Annotated[int, doc("Messages we sent", 3, unit="messages")] = 0
    delivered: Annotated[int, doc("Of those, delivered", 2, unit="messages")] = 0
    failed: Annotated[int, doc("Of those, error, invalid or undelivered", 1, unit="messages")] = 0
    segments: Annotated[int, doc("SMS that those were cut into", 4, unit="segments")] = 0
    cost: Annotated[Decimal, doc("What those cost")] = "0"
    received: Annotated[int, doc("Messages the contact wrote", 2, unit="messages")] = 0
    replies: Annotated[int, doc("Of those, answers to ours", 1, unit="messages")] = 0
    opt_outs: Annotated[int, doc("How often the contact asked for no more", 1, unit="facts")] = 0
    opt_ins: Annotated[int, doc("How often the contact allowed messages again", 1, unit="facts")] = 0
    conversations_started: Annotated[int, doc("Conversations begun", 1, unit="conversations")] = 0
    conversations_closed: Annotated[int, doc("Conversations closed", 1, unit="conversations")] = 0
    first_activity_at: Annotated[Time | None, at("When the first fact happened")] = None
    last_activity_at: Annotated[Time | None, at("When the last fact happened")] = None
    score: Annotated[float, doc("0 to 100 at score_at; 0 while opted out", 67.03, unit="points")] = 0.0
    score_sum: Annotated[
        float, doc("S at score_at: 100·(1 − e^(−S)) is the score; halves every 14 days", 1.11, unit="1")
    ] = 0.0
    score_at: Annotated[Time | None, at("When score and score_sum hold")] = None
    opted_out: Annotated[bool, doc("Wants no messages on either system")] = False


@registered("engagement.partial.v1")
class Partial(msgspec.Struct, frozen=True, kw_only=True):
    """One partition's absolute share of a window; internal."""

    window_key: Annotated[
        str, doc("tenant|dimension|width|start", "acme|all|1h|2030-01-10T08:00:00.000Z", personal="none")
    ]
    partition: Annotated[int, doc("Whose share it is", 1, unit="partition number")]
    measures: Annotated[Measures, doc("The share, absolute")]
    revision: Annotated[int, doc("Grows with each change of this share", 3, unit="revisions")] = 0


@registered("engagement.metrics.v1")
class WindowMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """The measures of one window; ``closed`` when its grace has passed and nothing is awaited."""

    tenant: Tenant
    dimension: Annotated[
        str,
        doc(
            "What is counted: ``all``, ``tag:id:…``, ``tag:name:…``, ``job:…``, ``campaign:…``, "
            "``template:…`` or ``number:…``, values percent-encoded",
            "tag:name:vip",
            personal="none",
        ),
    ]
    width: Annotated[str, choice("An hour, or a day of the tenant's", "1h", "1d")]
    start: Annotated[Time, at("Begin of the window")]
    end: Annotated[Time, at("End of the window, not part of it")]
    revision: Annotated[int, doc("Grows with each change of the window", 35, unit="revisions")]
    closed: Annotated[bool, doc("Final but for corrections")]
    measures: Annotated[Measures, doc("What was counted")]
    ratios: Annotated[Ratios, doc("What follows from it")]
    reply_seconds_p50: Annotated[
        int | None, doc("Half of the replies took at most this; error ≤ 2 %", 4, unit="s")
    ] = None
    reply_seconds_p90: Annotated[int | None, doc("90 % of the replies likewise", 7, unit="s")] = None
    reply_seconds_p99: Annotated[int | None, doc("99 % of the replies likewise", 7, unit="s")] = None
