"""The person on both systems (``contacts.enriched``) and what they did (``activity.enriched``)."""

import msgspec

from pipeline.events.other import SourceEvent
from pipeline.events.sakari import SakariFact
from pipeline.events.users import UsersFact
from pipeline.events.wire import registered
from pipeline.instants import Time

__all__ = ["Activity", "ContactTag", "EnrichedContact", "Fact", "NativeContact"]

Fact = SakariFact | UsersFact | SourceEvent


class ContactTag(msgspec.Struct, frozen=True, kw_only=True):
    """
    A tag on a contact: on which systems it stands, and the location tag that it matches.

    ``name`` is the location tag's where one matched, else as the contact's system spells it;
    ``folded`` is it trimmed and case-folded, what names are compared by.
    """

    name: str
    folded: str
    systems: tuple[str, ...]  #: ``sakari``, ``users``; sorted
    tag_id: str | None = None
    location_id: str | None = None
    colour: str | None = None
    description: str | None = None


class NativeContact(msgspec.Struct, frozen=True, kw_only=True):
    """One system's own contact that the person consists of."""

    system: str  #: ``sakari`` or ``users``
    account_id: str  #: Sakari account or Users API location
    contact_id: str
    updated_at: Time | None = None


@registered("contacts.enriched.v1")
class EnrichedContact(msgspec.Struct, frozen=True, kw_only=True):
    """A person, joined over both systems by contact key; the newest ``updated_at`` leads the names."""

    tenant: str
    contact_key: str
    first_name: str | None = None  #: personal data, as are the next four
    last_name: str | None = None
    email: str | None = None
    mobile: str | None = None  #: E.164
    country: str | None = None
    natives: tuple[NativeContact, ...] = ()  #: sorted by system, account, id
    tags: tuple[ContactTag, ...] = ()  #: sorted by folded name, then tag id
    opted_out: bool = False  #: on Sakari
    dnd: bool = False  #: on the Users API
    updated_at: Time | None = None  #: the newest of the natives


@registered("activity.enriched.v1")
class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """One fact with the contact and its tags as they were known when it was enriched."""

    tenant: str
    contact_key: str
    fact_id: str  #: ``ce_id`` of the fact
    event: Fact
    contact: EnrichedContact | None = None
