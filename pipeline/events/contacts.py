"""The person on both systems (``contacts.enriched``) and what they did (``activity.enriched``)."""

from typing import Annotated, Any, TypeAlias

import msgspec

from pipeline.events.fields import (
    Body,
    ContactKey,
    Country,
    Email,
    Firstname,
    Lastname,
    Mobile,
    OccurredAt,
    Tenant,
    at,
    choice,
    doc,
)
from pipeline.events.other import SourceEvent
from pipeline.events.sakari import SakariFact
from pipeline.events.users import UsersFact
from pipeline.events.wire import UNKNOWN, registered
from pipeline.instants import Time

__all__ = [
    "Activity",
    "ContactTag",
    "EnrichedContact",
    "Fact",
    "NativeContact",
    "UnknownFact",
    "with_unknown_fact",
]


class UnknownFact(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="type", tag=UNKNOWN):
    """A fact of a type that came after this version: readers skip it, or take it from its JSON."""

    tenant: Tenant
    occurred_at: OccurredAt
    fact_type: Annotated[str, doc("Its ``type``", "sakari.message.read.v1", personal="none")]
    body: Body


Fact: TypeAlias = SakariFact | UsersFact | SourceEvent | UnknownFact


class ContactTag(msgspec.Struct, frozen=True, kw_only=True):
    """
    A tag on a contact: on which systems it stands, and the location tag that it matches.

    ``name`` is the location tag's where one matched, else as the contact's system spells it;
    ``folded`` is it trimmed and case-folded, what names are compared by.
    """

    name: Annotated[str, doc("Its name", "VIP", personal="none")]
    folded: Annotated[str, doc("Its name, trimmed and case-folded", "vip", personal="none")]
    systems: Annotated[tuple[str, ...], doc("Where it stands, sorted", ["sakari", "users"], personal="none")]
    tag_id: Annotated[
        str | None, doc("Location tag that it matches", "79fbd11e5d726cbb170dd3ea", personal="none")
    ] = None
    location_id: Annotated[
        str | None, doc("Location of that tag", "ct879RBiJHkPI19NH5nT", personal="none")
    ] = None
    colour: Annotated[str | None, doc("Colour of that tag", "#c0392b", personal="none")] = None
    description: Annotated[
        str | None, doc("What that tag is for", "Answers within the hour", personal="none")
    ] = None


class NativeContact(msgspec.Struct, frozen=True, kw_only=True):
    """One system's own contact that the person consists of."""

    system: Annotated[str, choice("Which system", "sakari", "users")]
    account_id: Annotated[
        str, doc("Sakari account or Users API location", "6b2a54fc7d6a626848ce44b3", personal="none")
    ]
    contact_id: Annotated[str, doc("Its id there", "d1ad8558c56b41a196d9f80e", personal="pseudonym")]
    updated_at: Annotated[Time | None, at("When it last changed there")] = None


@registered("contacts.enriched.v1")
class EnrichedContact(msgspec.Struct, frozen=True, kw_only=True):
    """A person, joined over both systems by contact key; the newest ``updated_at`` leads the names."""

    tenant: Tenant
    contact_key: ContactKey
    first_name: Firstname | None = None
    last_name: Lastname | None = None
    email: Email | None = None
    mobile: Mobile | None = None
    country: Country | None = None
    natives: Annotated[
        tuple[NativeContact, ...], doc("Contacts the person consists of, sorted by system, account, id")
    ] = ()
    tags: Annotated[tuple[ContactTag, ...], doc("Sorted by folded name, then tag id")] = ()
    opted_out: Annotated[bool, doc("Wants no messages on Sakari")] = False
    dnd: Annotated[bool, doc("Wants no SMS on the Users API")] = False
    updated_at: Annotated[Time | None, at("When the newest of the natives changed")] = None


@registered("activity.enriched.v1")
class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """One fact with the contact and its tags as they were known when it was enriched."""

    tenant: Tenant
    contact_key: ContactKey
    fact_id: Annotated[str, doc("``ce_id`` of the fact", "ab" * 32, personal="none")]
    event: Annotated[Fact, doc("The fact; its field ``type`` says which")]
    contact: Annotated[EnrichedContact | None, doc("The person; null where none was known")] = None


class _AnyFact(msgspec.Struct):
    """What every fact has, whatever its type."""

    type: str
    tenant: str
    occurred_at: Time


class _AnyActivity(msgspec.Struct):
    """An `Activity` whose fact is not looked into."""

    tenant: str
    contact_key: str
    fact_id: str
    event: msgspec.Raw
    contact: EnrichedContact | None = None


_ANY_FACT = msgspec.json.Decoder(_AnyFact)
_ANY_ACTIVITY = msgspec.json.Decoder(_AnyActivity)
_KNOWN: frozenset[Any] = frozenset(member.__struct_config__.tag for member in Fact.__args__)


def with_unknown_fact(raw: bytes) -> Activity | None:
    """The `Activity` in *raw*, which could not be read; None unless that was for its fact's type alone."""
    try:
        told = _ANY_ACTIVITY.decode(raw)
        fact = _ANY_FACT.decode(told.event)
        body = bytes(told.event).decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if fact.type in _KNOWN:
        return None
    event = UnknownFact(tenant=fact.tenant, occurred_at=fact.occurred_at, fact_type=fact.type, body=body)
    return Activity(
        tenant=told.tenant,
        contact_key=told.contact_key,
        fact_id=told.fact_id,
        event=event,
        contact=told.contact,
    )
