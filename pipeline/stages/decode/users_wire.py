"""
What the Users API sends, as far as it is of use: webhooks, and items of its lists.

Source: ``webhook-event-schemas.json``, ``contacts.json``, ``social-media-posting.json``, ``users.json``.
Fields are optional throughout: what must be there is checked where it is used.
"""

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from pipeline.stages.decode.parse import Flag, Id

__all__ = ["Account", "Contact", "Envelope", "Message", "Statistics", "Tag", "User"]

When = str | int | float | None


class _Part(msgspec.Struct, frozen=True, rename="camel"):
    """Fields in camelCase, as the Users API spells them."""


class Envelope(_Part, frozen=True, gc=False):
    """What every webhook has beside the event's own fields, which stand here or under ``data``."""

    type: str | None = None
    timestamp: When = None
    webhook_id: Id = None
    location_id: Id = None
    data: msgspec.Raw = msgspec.Raw()


class _Channel(_Part, frozen=True, gc=False):
    status: str | None = None


class _DndSettings(msgspec.Struct, frozen=True, gc=False):
    SMS: _Channel | None = None


class CustomField(_Part, frozen=True):
    id: Id = None
    value: Any = UNSET
    field_value: Any = UNSET


class Contact(_Part, frozen=True):
    """A contact; what is UNSET the record did not carry."""

    id: str | None = None
    contact_id: str | None = None
    first_name: str | UnsetType | None = UNSET
    last_name: str | UnsetType | None = UNSET
    email: str | UnsetType | None = UNSET
    phone: Id | UnsetType = UNSET
    country: str | UnsetType | None = UNSET
    custom_fields: list[CustomField] | UnsetType | None = UNSET
    tags: list[str] | UnsetType | None = UNSET
    dnd: Flag | UnsetType = UNSET
    dnd_settings: _DndSettings | UnsetType | None = UNSET
    assigned_to: Id | UnsetType = UNSET
    date_added: When = None
    date_updated: When = None


class Message(_Part, frozen=True, gc=False):
    """``InboundMessage`` or ``OutboundMessage``; it carries no phone number."""

    contact_id: str | None = None
    message_id: Id = None
    conversation_id: Id = None
    message_type: str | None = None
    body: str | None = None
    status: str | None = None
    date_added: When = None


class Tag(_Part, frozen=True):
    """A location's social-planner tag, merged with its details."""

    _id: Id = msgspec.field(default=None, name="_id")
    id: Id = None
    tag: str | None = None
    name: str | None = None
    location_id: Id = None
    colour: str | None = None
    color: str | None = None
    description: str | None = None
    details_id: Id = None
    created_by: Id = None
    deleted: Flag = None
    created_at: When = None
    updated_at: When = None


class Roles(_Part, frozen=True):
    type: str | None = None
    role: str | None = None
    location_ids: list[str] | None = None


class User(_Part, frozen=True):
    """A person who works with the Users API."""

    id: Id = None
    name: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    email: str | None = None
    phone: Id = None
    roles: Roles | None = None
    deleted: Flag = None


class Account(_Part, frozen=True):
    """A social profile of a location."""

    id: Id = None
    profile_id: Id = None
    oauth_id: Id = None
    name: str | None = None
    platform: str | None = None
    type: str | None = None
    is_expired: Flag = None
    deleted: Flag = None


class Statistics(_Part, frozen=True):
    """A statistics snapshot as the poller wraps it."""

    dialect: str | None = None
    location_id: Id = None
    profile_ids: list[str] | None = None
    observed_at: When = None
    window_start: When = None
    window_end: When = None
    statistics_id: Id = None
    results: msgspec.Raw = msgspec.Raw()
