"""
Sakari's facts (topic ``sakari.events``) and contacts (topic ``sakari.contacts``).

Times are `pipeline.instants.Time`; ids and decimals are strings; null means unknown.
"""

from typing import Annotated, ClassVar, TypeAlias

import msgspec

from pipeline.events.fields import (
    AccountId,
    Body,
    ContactKey,
    ConversationId,
    Country,
    Decimal,
    Email,
    Firstname,
    Lastname,
    Mobile,
    NumberHash,
    OccurredAt,
    SakariContactId,
    Tenant,
    at,
    choice,
    doc,
)
from pipeline.events.wire import Text, registered
from pipeline.instants import Time

__all__ = [
    "ContactMoved",
    "ContactOptedIn",
    "ContactOptedOut",
    "ConversationClosed",
    "ConversationStarted",
    "ListOptedIn",
    "ListOptedOut",
    "Message",
    "MessagePriced",
    "MessageReceived",
    "MessageSent",
    "MessageStatus",
    "MessageStatusChanged",
    "SakariContact",
    "SakariFact",
    "SakariOther",
    "SakariTag",
]


class MessageStatus(Text):
    """Message states of Sakari, compared case-insensitively; only the last four are terminal."""

    OTHER = "other"
    NEW = "new"
    VALIDATED = "validated"
    QUEUED = "queued"
    SENT = "sent"
    RECEIVED = "received"
    DELIVERED = "delivered"
    ERROR = "error"
    INVALID = "invalid"
    UNDELIVERED = "undelivered"


Status: TypeAlias = Annotated[
    str,
    choice(
        "State of the message as it came, in lower case; see `MessageStatus`",
        *(s for s in MessageStatus if s != "other"),
    ),
]


class Message(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One SMS as the record that implied the fact told it."""

    id: Annotated[str, doc("Sakari's id of the message", "3229518074b19d59db91d5b1", personal="none")]
    conversation_id: ConversationId | None = None
    contact_id: SakariContactId | None = None
    outgoing: Annotated[bool, doc("We wrote to the contact; false: the contact wrote to us")] = True
    status: Status = ""
    text: Annotated[str | None, doc("What was written", "See you at ten?", personal="direct")] = None
    template_id: Annotated[str | None, doc("Template it was made from", "t1", personal="none")] = None
    job_id: Annotated[str | None, doc("Job that sent it; webhooks only", "j1", personal="none")] = None
    campaign_id: Annotated[
        str | None, doc("Campaign of the job; webhooks only, where it is told", "p1", personal="none")
    ] = None
    group_id: Annotated[str | None, doc("Group of Sakari that owns it", "g1", personal="none")] = None
    number: NumberHash | None = None
    country: Country | None = None
    segments: Annotated[int | None, doc("How many SMS it was cut into", 2, unit="segments")] = None
    price: Decimal | None = None
    media: Annotated[int, doc("How many media objects it carries", 1, unit="media objects")] = 0
    source: Annotated[
        str | None, doc("What it was written with: ``created.by.source``", "api", personal="none")
    ] = None
    created_at: Annotated[Time, at("When the message was created")]
    updated_at: Annotated[Time, at("When the message last changed")]


class _Fact(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="type"):
    tenant: Tenant
    account_id: AccountId
    occurred_at: OccurredAt


class _MessageFact(_Fact, frozen=True, kw_only=True, gc=False):
    message: Annotated[Message, doc("The message as it was then")]


@registered("sakari.message.sent.v1")
class MessageSent(_MessageFact, frozen=True, kw_only=True, gc=False, tag="sakari.message.sent.v1"):
    """An outbound message exists; occurred at its created.at."""


@registered("sakari.message.received.v1")
class MessageReceived(_MessageFact, frozen=True, kw_only=True, gc=False, tag="sakari.message.received.v1"):
    """A contact wrote to us; occurred at created.at."""


@registered("sakari.message.status-changed.v1")
class MessageStatusChanged(
    _MessageFact, frozen=True, kw_only=True, gc=False, tag="sakari.message.status-changed.v1"
):
    """An outbound message reached ``status``; occurred at updated.at."""

    status: Status
    error_code: Annotated[str | None, doc("What went wrong, as a code", "MSG-001", personal="none")] = None
    error: Annotated[
        str | None, doc("What went wrong, as Sakari tells", "carrier refused", personal="direct")
    ] = None


@registered("sakari.message.priced.v1")
class MessagePriced(_MessageFact, frozen=True, kw_only=True, gc=False, tag="sakari.message.priced.v1"):
    """An outbound message's segments and price became known or changed; occurred at updated.at."""

    segments: Annotated[int, doc("How many SMS it was cut into", 2, unit="segments")]
    price: Decimal


class _ConversationFact(_Fact, frozen=True, kw_only=True, gc=False):
    conversation_id: ConversationId
    contact_id: SakariContactId | None = None
    number: NumberHash | None = None


@registered("sakari.conversation.started.v1")
class ConversationStarted(
    _ConversationFact, frozen=True, kw_only=True, gc=False, tag="sakari.conversation.started.v1"
):
    """A conversation began; occurred at its created.at."""


@registered("sakari.conversation.closed.v1")
class ConversationClosed(
    _ConversationFact, frozen=True, kw_only=True, gc=False, tag="sakari.conversation.closed.v1"
):
    """A conversation was closed; occurred at ``closed``, else at updated.at."""


class _ContactFact(_Fact, frozen=True, kw_only=True, gc=False):
    contact_id: SakariContactId


@registered("sakari.contact.opted-out.v1")
class ContactOptedOut(_ContactFact, frozen=True, kw_only=True, gc=False, tag="sakari.contact.opted-out.v1"):
    """A contact asked for no further messages."""


@registered("sakari.contact.opted-in.v1")
class ContactOptedIn(_ContactFact, frozen=True, kw_only=True, gc=False, tag="sakari.contact.opted-in.v1"):
    """A contact allowed messages again."""


@registered("sakari.list.opted-out.v1")
class ListOptedOut(_ContactFact, frozen=True, kw_only=True, gc=False, tag="sakari.list.opted-out.v1"):
    """A contact left one list; its overall opt state is unchanged."""

    list_id: Annotated[str | None, doc("Sakari's id of the list", "l1", personal="none")] = None


@registered("sakari.list.opted-in.v1")
class ListOptedIn(_ContactFact, frozen=True, kw_only=True, gc=False, tag="sakari.list.opted-in.v1"):
    """A contact joined one list again; its overall opt state is unchanged."""

    list_id: Annotated[str | None, doc("Sakari's id of the list", "l1", personal="none")] = None


@registered("sakari.contact.moved.v1")
class ContactMoved(_ContactFact, frozen=True, kw_only=True, gc=False, tag="sakari.contact.moved.v1"):
    """A contact's number changed: written under both contact keys."""

    from_key: Annotated[ContactKey, doc("Contact key before")]
    to_key: Annotated[ContactKey, doc("Contact key from now on")]


@registered("sakari.other.v1")
class SakariOther(_Fact, frozen=True, kw_only=True, gc=False, tag="sakari.other.v1"):
    """A webhook of a type we don't know, passed through."""

    event_type: Annotated[str, doc("The webhook's type, as Sakari names it", "balance", personal="none")]
    body: Body


SakariFact = (
    MessageSent
    | MessageReceived
    | MessageStatusChanged
    | MessagePriced
    | ConversationStarted
    | ConversationClosed
    | ContactOptedOut
    | ContactOptedIn
    | ListOptedOut
    | ListOptedIn
    | ContactMoved
    | SakariOther
)


class SakariTag(msgspec.Struct, frozen=True, gc=False):
    """A tag on a Sakari contact."""

    tag: Annotated[str, doc("Its name, as Sakari spells it", "VIP", personal="none")]
    visible: Annotated[bool, doc("Shown on Sakari")] = True


@registered("sakari.contact.v1")
class SakariContact(msgspec.Struct, frozen=True, kw_only=True):
    """The current state of one Sakari contact; table ``sakari.contacts``."""

    SYSTEM: ClassVar[str] = "sakari"

    tenant: Tenant
    account_id: AccountId
    contact_id: SakariContactId
    first_name: Firstname | None = None
    last_name: Lastname | None = None
    email: Email | None = None
    mobile: Mobile | None = None
    country: Country | None = None
    attributes: Annotated[
        dict[str, str], doc("Attributes of Sakari by name", {"city": "Köln"}, personal="direct")
    ] = {}
    tags: Annotated[tuple[SakariTag, ...], doc("In the order that Sakari gave them")] = ()
    lists: Annotated[tuple[str, ...], doc("Ids of the lists it stands on", ["l1"], personal="none")] = ()
    valid: Annotated[bool | None, doc("Whether Sakari holds the number for valid", True)] = None
    opted_out: Annotated[bool, doc("Wants no messages")] = False
    opted_changed_at: Annotated[Time | None, at("When opted_out last changed, as far as known")] = None
    created_at: Annotated[Time | None, at("When Sakari created the contact")] = None
    updated_at: Annotated[Time | None, at("When Sakari last changed the contact")] = None
