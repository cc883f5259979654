"""
The Users API's facts (topic ``users.events``) and its tables (``users.contacts``, ``users.tags``,
``users.users``, ``users.accounts``, ``users.statistics``).
"""

from typing import ClassVar

import msgspec

from pipeline.events.wire import registered
from pipeline.instants import Time

__all__ = [
    "LocationTag",
    "SocialAccount",
    "StatisticsSnapshot",
    "User",
    "UsersContact",
    "UsersContactDndUpdated",
    "UsersContactMoved",
    "UsersContactTagsUpdated",
    "UsersFact",
    "UsersMessageReceived",
    "UsersMessageSent",
    "UsersOther",
]


class _Fact(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="type"):
    tenant: str
    location_id: str
    occurred_at: Time
    webhook_id: str | None = None


class _ContactFact(_Fact, frozen=True, kw_only=True, gc=False):
    contact_id: str


@registered("users.contact.tags-updated.v1")
class UsersContactTagsUpdated(
    _ContactFact, frozen=True, kw_only=True, gc=False, tag="users.contact.tags-updated.v1"
):
    """A contact's tags changed; ``tags`` is the whole resulting list."""

    tags: tuple[str, ...]


@registered("users.contact.dnd-updated.v1")
class UsersContactDndUpdated(
    _ContactFact, frozen=True, kw_only=True, gc=False, tag="users.contact.dnd-updated.v1"
):
    """A contact's "do not disturb" changed: the opt-out of this side; ``dnd`` holds for SMS."""

    dnd: bool


class _MessageFact(_ContactFact, frozen=True, kw_only=True, gc=False):
    message_id: str | None = None
    conversation_id: str | None = None
    message_type: str | None = None  #: SMS, Email, …
    text: str | None = None  #: personal data
    status: str | None = None


@registered("users.message.received.v1")
class UsersMessageReceived(
    _MessageFact, frozen=True, kw_only=True, gc=False, tag="users.message.received.v1"
):
    """``InboundMessage``: a contact wrote by way of the Users API; feeds no measure."""


@registered("users.message.sent.v1")
class UsersMessageSent(_MessageFact, frozen=True, kw_only=True, gc=False, tag="users.message.sent.v1"):
    """``OutboundMessage``: the Users API sent a message; feeds no measure."""


@registered("users.contact.moved.v1")
class UsersContactMoved(_ContactFact, frozen=True, kw_only=True, gc=False, tag="users.contact.moved.v1"):
    """A contact's number changed: written under both contact keys."""

    from_key: str
    to_key: str


@registered("users.other.v1")
class UsersOther(_Fact, frozen=True, kw_only=True, gc=False, tag="users.other.v1"):
    """A webhook of a type we don't model, passed through."""

    event_type: str
    body: str  #: the JSON as it came; personal data


UsersFact = (
    UsersContactTagsUpdated
    | UsersContactDndUpdated
    | UsersMessageReceived
    | UsersMessageSent
    | UsersContactMoved
    | UsersOther
)


@registered("users.contact.v1")
class UsersContact(msgspec.Struct, frozen=True, kw_only=True):
    """The current state of one Users API contact; table ``users.contacts``."""

    SYSTEM: ClassVar[str] = "users"

    tenant: str
    location_id: str
    contact_id: str
    first_name: str | None = None  #: personal data, as is all below to ``custom_fields``
    last_name: str | None = None
    email: str | None = None
    phone: str | None = None  #: E.164
    country: str | None = None
    custom_fields: dict[str, str] = {}  #: field id -> value, JSON where it is no text
    tags: tuple[str, ...] = ()
    dnd: bool = False  #: holds for SMS: ``dnd``, or ``dndSettings.SMS`` active or permanent
    assigned_to: str | None = None
    created_at: Time | None = None
    updated_at: Time | None = None


@registered("users.tag.v1")
class LocationTag(msgspec.Struct, frozen=True, kw_only=True):
    """A location's social-planner tag with its details; table ``users.tags``."""

    tenant: str
    location_id: str
    tag_id: str
    name: str
    colour: str | None = None
    description: str | None = None
    details_id: str | None = None
    created_by: str | None = None
    created_at: Time | None = None
    updated_at: Time | None = None


@registered("users.user.v1")
class User(msgspec.Struct, frozen=True, kw_only=True):
    """An account of the Users API; table ``users.users``."""

    tenant: str
    user_id: str
    name: str | None = None  #: personal data, as are the next four
    first_name: str | None = None
    last_name: str | None = None
    email: str | None = None
    phone: str | None = None
    role: str | None = None
    type: str | None = None
    location_ids: tuple[str, ...] = ()
    deleted: bool = False


@registered("users.account.v1")
class SocialAccount(msgspec.Struct, frozen=True, kw_only=True):
    """A social profile of a location; table ``users.accounts``."""

    tenant: str
    location_id: str
    account_id: str
    profile_id: str | None = None  #: what the statistics query takes
    name: str | None = None
    platform: str | None = None
    type: str | None = None
    expired: bool = False


@registered("users.statistics.v1")
class StatisticsSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What the Users API told of a location's statistics, stamped by us; topic ``users.statistics``."""

    tenant: str
    location_id: str
    dialect: str  #: ``catalogue`` or ``vendor``
    profile_ids: tuple[str, ...] = ()
    profiles_hash: str = ""  #: 16 hex digits of the SHA-256 of the sorted profile ids
    window_start: Time | None = None
    window_end: Time
    observed_at: Time
    statistics_id: str | None = None  #: catalogue only
    metrics: str = "{}"  #: JSON object as the API gave it
