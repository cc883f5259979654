"""
What Sakari sends, as far as it is of use: webhooks on the wire, the document's, and REST items.

Source: ``openapi-1.0.1.yaml`` (components.schemas), and what the wire is seen to carry besides.
Fields are optional throughout: what must be there is checked where it is used. Ids of contacts are
text, as native keys take no others; other ids may be numbers.
"""

from typing import Any, ClassVar, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from pipeline.stages.decode.parse import Flag, Id, as_id

__all__ = [
    "Contact",
    "Conversation",
    "Envelope",
    "Holder",
    "ListOpt",
    "Message",
    "MessageHook",
    "Mobile",
    "Moment",
    "Who",
    "number_of",
]


class _Part(msgspec.Struct, frozen=True, rename="camel"):
    """Fields in camelCase, as Sakari spells them."""


class Envelope(_Part, frozen=True, gc=False):
    """A webhook: ``{accountId,eventType,payload}``, or the document's ``{eventId,type,accountId,data}``."""

    account_id: Id = None
    event_type: str | None = None
    payload: msgspec.Raw = msgspec.Raw()
    event_id: Id = None
    type: str | None = None
    data: msgspec.Raw = msgspec.Raw()


class Author(_Part, frozen=True, gc=False):
    source: str | None = None


class Moment(_Part, frozen=True, gc=False):
    """When, and by whom."""

    at: str | int | float | None = None
    by: Author | str | None = None


class Mobile(_Part, frozen=True, gc=False):
    """A number as it was typed, with its country."""

    number: Id = None
    country: str | None = None


class Ref(_Part, frozen=True, gc=False):
    id: Id = None
    campaign: "Ref | Id" = None
    campaign_id: Id = None


class Who(_Part, frozen=True, gc=False):
    """The contact of a message or conversation."""

    id: str | None = None
    mobile: Mobile | Id = None


class Within(_Part, frozen=True, gc=False):
    id: Id = None
    phone_number: Mobile | Id = None


class Failure(_Part, frozen=True, gc=False):
    code: Id = None
    description: str | None = None
    message: str | None = None


class Message(_Part, frozen=True, gc=False):
    """A message, of a webhook or of REST."""

    id: Id = None
    message: str | None = None
    template: Ref | Id = None
    status: str | None = None
    outgoing: Flag = None
    country: str | None = None
    segments: int | float | str | None = None
    price: msgspec.Raw = msgspec.Raw()
    media: list[msgspec.Raw] | None = None
    job: Ref | Id = None
    campaign: Ref | Id = None
    group: Ref | Id = None
    conversation: Within | Id = None
    phone_number: Mobile | Id = None
    contact: Who | None = None
    created: Moment | None = None
    updated: Moment | None = None
    error: Failure | str | None = None


class _MessageHook(_Part, frozen=True, gc=False, tag_field="eventType"):
    """A webhook of a message, as the wire has it."""

    account_id: Id = None
    payload: Message | None = None
    event_id: Id = None


class _Sent(_MessageHook, frozen=True, gc=False, tag="message-sent"):
    outgoing: ClassVar[bool] = True


class _Status(_MessageHook, frozen=True, gc=False, tag="message-status"):
    outgoing: ClassVar[bool] = True


class _Received(_MessageHook, frozen=True, gc=False, tag="message-received"):
    outgoing: ClassVar[bool] = False


#: Most webhooks are of messages; their kind stands before their payload, so one pass reads them whole.
MessageHook: TypeAlias = _Sent | _Status | _Received


class Conversation(_Part, frozen=True, gc=False):
    """A conversation; ``closed`` is a date-time on the wire, a boolean in the document."""

    id: Id = None
    closed: Flag = None
    contact: Who | None = None
    phone_number: Mobile | Id = None
    created: Moment | None = None
    updated: Moment | None = None


class Tag(_Part, frozen=True, gc=False):
    tag: str | None = None
    name: str | None = None
    visible: Flag = None


class ListRef(_Part, frozen=True, gc=False):
    id: Id = None
    name: str | None = None


class Contact(_Part, frozen=True):
    """A contact; what is UNSET the record did not carry."""

    id: str | None = None
    first_name: str | UnsetType | None = UNSET
    last_name: str | UnsetType | None = UNSET
    email: str | UnsetType | None = UNSET
    mobile: Mobile | Id | UnsetType = UNSET
    attributes: dict[str, Any] | UnsetType | None = UNSET
    tags: list[Tag | str] | UnsetType | None = UNSET
    lists: list[ListRef | str | int] | UnsetType | None = UNSET
    valid: Flag | UnsetType = UNSET
    created: Moment | None = None
    updated: Moment | None = None


class Holder(_Part, frozen=True):
    """The payload of an opt change, or of another, where the contact stands inside it."""

    contact: Contact | None = None
    updated: Moment | None = None


class ListOpt(_Part, frozen=True):
    """What an opt change of one list carries besides the contact."""

    list: Ref | Id = None
    list_id: Id = None


def number_of(mobile: Mobile | Id | UnsetType) -> tuple[str | None, str | None]:
    """Number and country of a number that came alone or with its country."""
    if isinstance(mobile, Mobile):
        return as_id(mobile.number), mobile.country
    return (None if isinstance(mobile, UnsetType) else as_id(mobile)), None
