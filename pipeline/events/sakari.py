"""
Sakari's facts (topic ``sakari.events``) and contacts (topic ``sakari.contacts``).

Times are `pipeline.instants.Time`; ids and decimals are strings; null means unknown.
"""

from typing import ClassVar

import msgspec

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


class Message(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One SMS as the record that implied the fact told it."""

    id: str
    conversation_id: str | None = None
    contact_id: str | None = None  #: Sakari's contact id
    outgoing: bool = True
    status: str = ""  #: as it came, lower case; see `MessageStatus`
    text: str | None = None  #: personal data
    template_id: str | None = None
    job_id: str | None = None  #: webhooks only
    campaign_id: str | None = None  #: webhooks only, where the job's campaign is told
    group_id: str | None = None
    number: str | None = None  #: HMAC of our own E.164 number, 32 hex digits
    country: str | None = None
    segments: int | None = None
    price: str | None = None  #: decimal
    media: int = 0  #: how many media objects
    source: str | None = None  #: ``created.by.source``
    created_at: Time
    updated_at: Time


class _Fact(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="type"):
    tenant: str
    account_id: str
    occurred_at: Time


class _MessageFact(_Fact, frozen=True, kw_only=True, gc=False):
    message: Message


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

    status: str  #: as it came, lower case; see `MessageStatus`
    error_code: str | None = None
    error: str | None = None


@registered("sakari.message.priced.v1")
class MessagePriced(_MessageFact, frozen=True, kw_only=True, gc=False, tag="sakari.message.priced.v1"):
    """An outbound message's segments and price became known or changed; occurred at updated.at."""

    segments: int
    price: str  #: decimal


class _ConversationFact(_Fact, frozen=True, kw_only=True, gc=False):
    conversation_id: str
    contact_id: str | None = None
    number: str | None = None  #: HMAC of our own E.164 number, 32 hex digits


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
    contact_id: str


@registered("sakari.contact.opted-out.v1")
class ContactOptedOut(_ContactFact, frozen=True, kw_only=True, gc=False, tag="sakari.contact.opted-out.v1"):
    """A contact asked for no further messages."""


@registered("sakari.contact.opted-in.v1")
class ContactOptedIn(_ContactFact, frozen=True, kw_only=True, gc=False, tag="sakari.contact.opted-in.v1"):
    """A contact allowed messages again."""


@registered("sakari.list.opted-out.v1")
class ListOptedOut(_ContactFact, frozen=True, kw_only=True, gc=False, tag="sakari.list.opted-out.v1"):
    """A contact left one list; its overall opt state is unchanged."""

    list_id: str | None = None


@registered("sakari.list.opted-in.v1")
class ListOptedIn(_ContactFact, frozen=True, kw_only=True, gc=False, tag="sakari.list.opted-in.v1"):
    """A contact joined one list again; its overall opt state is unchanged."""

    list_id: str | None = None


@registered("sakari.contact.moved.v1")
class ContactMoved(_ContactFact, frozen=True, kw_only=True, gc=False, tag="sakari.contact.moved.v1"):
    """A contact's number changed: written under both contact keys."""

    from_key: str
    to_key: str


@registered("sakari.other.v1")
class SakariOther(_Fact, frozen=True, kw_only=True, gc=False, tag="sakari.other.v1"):
    """A webhook of a type we don't know, passed through."""

    event_type: str
    body: str  #: the JSON as it came; personal data


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

    tag: str
    visible: bool = True


@registered("sakari.contact.v1")
class SakariContact(msgspec.Struct, frozen=True, kw_only=True):
    """The current state of one Sakari contact; table ``sakari.contacts``."""

    SYSTEM: ClassVar[str] = "sakari"

    tenant: str
    account_id: str
    contact_id: str
    first_name: str | None = None  #: personal data, as is all below to ``attributes``
    last_name: str | None = None
    email: str | None = None
    mobile: str | None = None  #: E.164
    country: str | None = None
    attributes: dict[str, str] = {}
    tags: tuple[SakariTag, ...] = ()
    lists: tuple[str, ...] = ()
    valid: bool | None = None
    opted_out: bool = False
    opted_changed_at: Time | None = None  #: when ``opted_out`` last changed, as far as known
    created_at: Time | None = None
    updated_at: Time | None = None
