"""
The Users API's facts (topic ``users.events``) and its tables (``users.contacts``, ``users.tags``,
``users.users``, ``users.accounts``, ``users.statistics``).
"""

from typing import Annotated, ClassVar

import msgspec

from pipeline.events.fields import (
    Body,
    ContactKey,
    ConversationId,
    Country,
    Email,
    Firstname,
    Lastname,
    LocationId,
    Mobile,
    OccurredAt,
    Tenant,
    UsersContactId,
    at,
    choice,
    doc,
)
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
    tenant: Tenant
    location_id: LocationId
    occurred_at: OccurredAt
    webhook_id: Annotated[
        str | None,
        doc("Id of the webhook that told it", "c11393f3-53a2-41db-b020-ffb841fb2e63", personal="none"),
    ] = None


class _ContactFact(_Fact, frozen=True, kw_only=True, gc=False):
    contact_id: UsersContactId


@registered("users.contact.tags-updated.v1")
class UsersContactTagsUpdated(
    _ContactFact, frozen=True, kw_only=True, gc=False, tag="users.contact.tags-updated.v1"
):
    """A contact's tags changed; ``tags`` is the whole resulting list."""

    tags: Annotated[tuple[str, ...], doc("Ids or names, as they came", ["VIP"], personal="none")]


@registered("users.contact.dnd-updated.v1")
class UsersContactDndUpdated(
    _ContactFact, frozen=True, kw_only=True, gc=False, tag="users.contact.dnd-updated.v1"
):
    """A contact's "do not disturb" changed: the opt-out of this side; ``dnd`` holds for SMS."""

    dnd: Annotated[bool, doc("Wants no messages")]


class _MessageFact(_ContactFact, frozen=True, kw_only=True, gc=False):
    message_id: Annotated[str | None, doc("The Users API's id of it", "x1", personal="none")] = None
    conversation_id: ConversationId | None = None
    message_type: Annotated[str | None, choice("What kind of message", "SMS", "Email")] = None
    text: Annotated[str | None, doc("What was written", "hello", personal="direct")] = None
    status: Annotated[str | None, doc("Its state, as it came", "delivered", personal="none")] = None


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

    from_key: Annotated[ContactKey, doc("Contact key before")]
    to_key: Annotated[ContactKey, doc("Contact key from now on")]


@registered("users.other.v1")
class UsersOther(_Fact, frozen=True, kw_only=True, gc=False, tag="users.other.v1"):
    """A webhook of a type we don't model, passed through."""

    event_type: Annotated[
        str, doc("The webhook's type, as the Users API names it", "NoteCreate", personal="none")
    ]
    body: Body


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

    tenant: Tenant
    location_id: LocationId
    contact_id: UsersContactId
    first_name: Firstname | None = None
    last_name: Lastname | None = None
    email: Email | None = None
    phone: Mobile | None = None
    country: Country | None = None
    custom_fields: Annotated[
        dict[str, str],
        doc("Field id to value, which is JSON where it is no text", {"f1": "blue"}, personal="direct"),
    ] = {}
    tags: Annotated[tuple[str, ...], doc("Ids or names, as they came", ["VIP"], personal="none")] = ()
    dnd: Annotated[bool, doc("Wants no SMS: ``dnd``, or ``dndSettings.SMS`` active or permanent")] = False
    assigned_to: Annotated[
        str | None, doc("Id of the user it is assigned to", "k4FyG9bfM5yhceX5Va6J", personal="pseudonym")
    ] = None
    created_at: Annotated[Time | None, at("When the Users API created the contact")] = None
    updated_at: Annotated[Time | None, at("When the Users API last changed the contact")] = None


@registered("users.tag.v1")
class LocationTag(msgspec.Struct, frozen=True, kw_only=True):
    """A location's social-planner tag with its details; table ``users.tags``."""

    tenant: Tenant
    location_id: LocationId
    tag_id: Annotated[str, doc("Its id", "79fbd11e5d726cbb170dd3ea", personal="none")]
    name: Annotated[str, doc("Its name", "VIP", personal="none")]
    colour: Annotated[str | None, doc("Its colour", "#c0392b", personal="none")] = None
    description: Annotated[str | None, doc("What it is for", "Answers within the hour", personal="none")] = (
        None
    )
    details_id: Annotated[str | None, doc("Id of its details", "d1", personal="none")] = None
    created_by: Annotated[
        str | None, doc("Id of who made it", "k4FyG9bfM5yhceX5Va6J", personal="pseudonym")
    ] = None
    created_at: Annotated[Time | None, at("When it was made")] = None
    updated_at: Annotated[Time | None, at("When it last changed")] = None


@registered("users.user.v1")
class User(msgspec.Struct, frozen=True, kw_only=True):
    """An account of the Users API; table ``users.users``."""

    tenant: Tenant
    user_id: Annotated[str, doc("The user's id", "k4FyG9bfM5yhceX5Va6J", personal="pseudonym")]
    name: Annotated[str | None, doc("Full name", "Grace Sample", personal="direct")] = None
    first_name: Firstname | None = None
    last_name: Lastname | None = None
    email: Email | None = None
    phone: Mobile | None = None
    role: Annotated[str | None, choice("What the user may do", "admin", "user")] = None
    type: Annotated[str | None, choice("Where that holds", "account", "agency")] = None
    location_ids: Annotated[
        tuple[str, ...], doc("Locations the user works in", ["ct879RBiJHkPI19NH5nT"], personal="none")
    ] = ()
    deleted: Annotated[bool, doc("Deleted on the Users API, but still told of")] = False


@registered("users.account.v1")
class SocialAccount(msgspec.Struct, frozen=True, kw_only=True):
    """A social profile of a location; table ``users.accounts``."""

    tenant: Tenant
    location_id: LocationId
    account_id: Annotated[str, doc("Its id", "profile-1", personal="none")]
    profile_id: Annotated[
        str | None, doc("Id that statistics are asked for by", "PKCpcx7xYffnmLUvQBd3", personal="none")
    ] = None
    name: Annotated[str | None, doc("Its name on the platform", "Acme", personal="direct")] = None
    platform: Annotated[str | None, doc("Which network", "facebook", personal="none")] = None
    type: Annotated[str | None, doc("What it is there", "page", personal="none")] = None
    expired: Annotated[bool, doc("Must be connected anew")] = False


@registered("users.statistics.v1")
class StatisticsSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What the Users API told of a location's statistics, stamped by us; topic ``users.statistics``."""

    tenant: Tenant
    location_id: LocationId
    dialect: Annotated[str, choice("Which form of the API", "catalogue", "vendor")]
    profile_ids: Annotated[
        tuple[str, ...], doc("Profiles asked for", ["PKCpcx7xYffnmLUvQBd3"], personal="none")
    ] = ()
    profiles_hash: Annotated[
        str,
        doc(
            "First 16 hex digits of the SHA-256 of the sorted profile ids",
            "feab1677faf417c5",
            personal="none",
        ),
    ] = ""
    window_start: Annotated[Time | None, at("Begin of the window")] = None
    window_end: Annotated[Time, at("End of the window")]
    observed_at: Annotated[Time, at("When it was asked")]
    statistics_id: Annotated[
        str | None, doc("Id in the API; catalogue only", "1681f276d48667579ac58296", personal="none")
    ] = None
    metrics: Annotated[str, doc("JSON object as the API gave it", '{"likes":3}', personal="none")] = "{}"
