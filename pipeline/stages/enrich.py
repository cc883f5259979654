"""
Join each person's contacts of both systems, with their tags, and put them beside every fact.

Reads    ``redactions``  key: contact key or native key; who was erased, and is left out
         ``users.tags.by-partition``  key: tenant : tag id
         ``sakari.contacts``, ``users.contacts``  key: contact key | native id
         ``sakari.events``, ``users.events``, ``sources.events``  key: contact key
Writes   ``contacts.enriched``  compacted, one record per change, a tombstone when no contact is left
         ``activity.enriched``  one record per fact
State    the location tags under each label, the native contacts of each person, the contact last
         published, which people hold which label, how many fan-outs are running, who was erased
Time     none; the newest ``updated_at`` of a person's contacts leads
Repeats  a redelivered table record changes nothing; a redelivered fact gives the same activity under
         the same id; any order of different table keys ends in the same contacts

A *label* is what a contact tag and a location tag meet under: the tenant and a text, trimmed and
case-folded. A location tag stands under two labels, its id and its name. When it changes, everybody
who holds one of its labels, before or after, is joined again by a cursor, a chunk at a time. Until
these are through, facts of the tenant join anew too, so that what an activity says never depends on
how far a cursor has come.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Literal, TypeAlias
from urllib.parse import quote, unquote

import msgspec

from pipeline.errors import RecordError
from pipeline.events import (
    Activity,
    ContactTag,
    EnrichedContact,
    Fact,
    LocationTag,
    NativeContact,
    Redaction,
    SakariContact,
    UsersContact,
)
from pipeline.instants import Time
from pipeline.stage import NOTHING, Cursor, Delete, Emit, Event, Outcome, Put, Stage, Store, Stores, Write
from pipeline.stages.redactions import REDACTED, is_redacted, remembered

__all__ = ["STAGE"]

#: People joined again in one call of a cursor; below the 500 outputs and well within the 20 ms of a call.
CHUNK = 200

#: The character after "|": the end of a scan over ``<label>|…``.
AFTER_BAR = "}"


class Native(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """What the join needs of one native contact of either system."""

    system: Literal["sakari", "users"]
    account_id: str  #: Sakari account or Users API location
    contact_id: str
    updated_at: Time  #: empty when unknown, so that any known time is newer
    first_name: str | None
    last_name: str | None
    email: str | None
    mobile: str | None
    country: str | None
    tags: tuple[str, ...]  #: as the system spells them, trimmed, none empty
    silent: bool  #: opted out of Sakari, "do not disturb" on the Users API


Natives: TypeAlias = tuple[Native, ...]
Found: TypeAlias = tuple[LocationTag, ...]

#: label -> the location tags whose id or name it is, by tag id
TAGS: Store[Found] = Store("tags", Found)
#: contact key -> its native contacts, by system, account and id
NATIVES: Store[Natives] = Store("natives", Natives)
#: contact key -> as last published
CONTACTS: Store[EnrichedContact] = Store("contacts", EnrichedContact)
#: label|contact key -> True: this person has a tag of that label
HOLDERS: Store[bool] = Store("holders", bool)
#: tenant -> how many cursors are on their way; absent when none
FAN_OUTS: Store[int] = Store("fan-outs", int)


def _step(read: Stores, event: Event[Any]) -> Outcome:
    """
    What one record changes.

    Raises:
        RecordError: the key of a table record is not that of its value.
    """
    match event.topic:
        case "users.tags.by-partition":
            return _tag_changed(read, event)
        case "sakari.contacts" | "users.contacts":
            return _contact_changed(read, event)
        case "redactions":
            return _redacted(read, event)
        case _:
            return _fact_enriched(read, event)


def _fact_enriched(read: Stores, event: Event[Fact]) -> Outcome:
    """The activity of a fact; while tags change, its contact first joined with them."""
    if is_redacted(read, event.key):
        return NOTHING
    fact = event.value
    contact = read.get(CONTACTS, event.key)
    change = NOTHING
    if contact is not None and contact.tags and read.get(FAN_OUTS, contact.tenant) is not None:
        joined = _join(event.key, read.get(NATIVES, event.key) or (), _tags_in(read))
        change = _published(event.key, contact, joined)
        contact = joined
    activity = Activity(
        tenant=fact.tenant, contact_key=event.key, fact_id=event.id, event=fact, contact=contact
    )
    emit = Emit("activity.enriched", event.key, activity, occurred_at=fact.occurred_at)
    # The activity stands first: its derived id holds its index, which must not depend on the change.
    return Outcome(change.writes, (emit, *change.emit))


def _contact_changed(read: Stores, event: Event[SakariContact | UsersContact | None]) -> Outcome:
    """One native contact came, changed or went: join its person again and keep the index of labels."""
    key, contact_id = _table_key(event)
    if is_redacted(read, key):
        return NOTHING
    old = read.get(NATIVES, key) or ()
    system: Literal["sakari", "users"] = "sakari" if event.topic == "sakari.contacts" else "users"
    others = [n for n in old if (n.system, n.contact_id) != (system, contact_id)]
    new = _natives(others if event.value is None else [*others, _native(event.value)])
    if new == old:
        return NOTHING
    kept: Write = Put(NATIVES, key, new) if new else Delete(NATIVES, key)
    change = _published(key, read.get(CONTACTS, key), _join(key, new, _tags_in(read)))
    return Outcome((kept, *_reindexed(key, old, new), *change.writes), change.emit)


def _redacted(read: Stores, event: Event[Redaction | None]) -> Outcome:
    """Somebody was erased: forget them and say that they are gone; a tombstone lets them in again."""
    kept, key = remembered(event), event.key
    old = read.get(NATIVES, key)
    if event.value is None or old is None:
        return Outcome(kept)
    writes = (*kept, Delete(NATIVES, key), *_reindexed(key, old, ()), Delete(CONTACTS, key))
    gone = Emit("contacts.enriched", key, None, occurred_at=event.value.erased_at)
    return Outcome(writes, (gone,))


def _tag_changed(read: Stores, event: Event[LocationTag | None]) -> Outcome:
    """One location tag came, changed or went: put it under its labels and send cursors to the holders."""
    tenant, _, tag_id = event.key.partition(":")
    new = event.value
    if not tag_id or (new is not None and (new.tenant, new.tag_id) != (tenant, tag_id)):
        raise RecordError("wrong-key", "the key of a location tag is tenant:tag id")
    old = _tag(read, tenant, tag_id)
    if new == old:
        return NOTHING
    before, after = _labels_of(old), _labels_of(new)
    writes = [
        _moved(read, label, tag_id, new if label in after else None) for label in sorted(before | after)
    ]
    if _shown(old) == _shown(new):
        return Outcome(tuple(writes))
    held = [label for label in sorted(before | after) if _is_held(read, label)]
    if held:
        writes.append(Put(FAN_OUTS, tenant, (read.get(FAN_OUTS, tenant) or 0) + len(held)))
    return Outcome(tuple(writes), more=tuple(Cursor(label) for label in held))


def _resume(read: Stores, cursor: Cursor) -> Outcome:
    """
    Join the next holders of a label again; publish those that changed.

    Each is joined with what stands now, so a tag that changes again meanwhile, a contact that comes
    or goes, or a second cursor over the same label all end in the same contacts.
    """
    label, at = cursor.job, cursor.at
    start = f"{label}|{at}\0" if at else f"{label}|"
    holders = [key[len(label) + 1 :] for key, _ in read.scan(HOLDERS, start, label + AFTER_BAR, CHUNK)]
    tags_in = _tags_in(read)
    changes = [
        _published(key, read.get(CONTACTS, key), _join(key, read.get(NATIVES, key) or (), tags_in))
        for key in holders
    ]
    ended = len(holders) < CHUNK
    return Outcome(
        tuple(write for change in changes for write in change.writes)
        + ((_fan_out_ended(read, label.partition("|")[0]),) if ended else ()),
        tuple(emit for change in changes for emit in change.emit),
        more=() if ended else (Cursor(label, holders[-1]),),
    )


def _published(key: str, last: EnrichedContact | None, joined: EnrichedContact | None) -> Outcome:
    """Publish *joined* if it is not what was published *last*; None is a tombstone."""
    if joined == last:
        return NOTHING
    kept: Write = Delete(CONTACTS, key) if joined is None else Put(CONTACTS, key, joined)
    return Outcome((kept,), (Emit("contacts.enriched", key, joined),))


# ---- labels


@lru_cache(maxsize=65_536)
def _folded(text: str) -> str:
    """What names are compared by."""
    return text.strip().casefold()


@lru_cache(maxsize=65_536)
def _label(tenant: str, text: str) -> str:
    """``tenant|<folded text, percent-encoded>``: plain ASCII without another bar, so it can be scanned."""
    return f"{tenant}|{quote(_folded(text), safe='')}"


def _labels_of(tag: LocationTag | None) -> frozenset[str]:
    """The labels that *tag* stands under: its id and its name."""
    return frozenset(_label(tag.tenant, text) for text in (tag.tag_id, tag.name)) if tag else frozenset()


def _tag(read: Stores, tenant: str, tag_id: str) -> LocationTag | None:
    """The location tag *tag_id* as it stands."""
    found = read.get(TAGS, _label(tenant, tag_id)) or ()
    return next((tag for tag in found if tag.tag_id == tag_id), None)


def _moved(read: Stores, label: str, tag_id: str, tag: LocationTag | None) -> Write:
    """What stands under *label* once *tag* does; None takes *tag_id* away."""
    others = [found for found in read.get(TAGS, label) or () if found.tag_id != tag_id]
    found = sorted([*others, tag] if tag else others, key=lambda one: one.tag_id)
    return Put(TAGS, label, tuple(found)) if found else Delete(TAGS, label)


def _shown(tag: LocationTag | None) -> tuple[str | None, ...]:
    """What contacts show of *tag*, or are matched by."""
    return (tag.name, tag.location_id, tag.colour, tag.description) if tag else ()


def _is_held(read: Stores, label: str) -> bool:
    return any(True for _ in read.scan(HOLDERS, f"{label}|", label + AFTER_BAR, 1))


def _reindexed(key: str, old: Natives, new: Natives) -> list[Write]:
    """Make the index hold exactly the labels of *new* for the person *key*."""
    before, after = _labels_held(key, old), _labels_held(key, new)
    gone: list[Write] = [Delete(HOLDERS, f"{label}|{key}") for label in sorted(before - after)]
    return gone + [Put(HOLDERS, f"{label}|{key}", True) for label in sorted(after - before)]


def _labels_held(key: str, natives: Natives) -> set[str]:
    tenant = key.partition(":")[0]
    return {_label(tenant, text) for native in natives for text in native.tags}


def _fan_out_ended(read: Stores, tenant: str) -> Write:
    left = (read.get(FAN_OUTS, tenant) or 1) - 1
    return Put(FAN_OUTS, tenant, left) if left else Delete(FAN_OUTS, tenant)


# ---- native contacts


def _table_key(event: Event[SakariContact | UsersContact | None]) -> tuple[str, str]:
    """The contact key and the native contact id of a contacts table's record."""
    key, _, encoded = event.key.rpartition("|")
    contact_id = unquote(encoded)
    if not key or (event.value is not None and event.value.contact_id != contact_id):
        raise RecordError("wrong-key", "the key of a contact is contact key|contact id")
    return key, contact_id


def _native(contact: SakariContact | UsersContact) -> Native:
    """What the join needs of *contact*."""
    if isinstance(contact, SakariContact):
        account, mobile, silent = contact.account_id, contact.mobile, contact.opted_out
        texts = tuple(tag.tag for tag in contact.tags)
    else:
        account, mobile, silent = contact.location_id, contact.phone, contact.dnd
        texts = contact.tags
    return Native(
        system="sakari" if isinstance(contact, SakariContact) else "users",
        account_id=account,
        contact_id=contact.contact_id,
        updated_at=contact.updated_at or Time(""),
        first_name=contact.first_name,
        last_name=contact.last_name,
        email=contact.email,
        mobile=mobile,
        country=contact.country,
        tags=tuple(stripped for text in texts if (stripped := text.strip())),
        silent=silent,
    )


def _natives(natives: Iterable[Native]) -> Natives:
    return tuple(sorted(natives, key=lambda native: (native.system, native.account_id, native.contact_id)))


# ---- the join


def _tags_in(read: Stores) -> Callable[[str], Found]:
    """Looks up what stands under a label, each at most once."""
    known: dict[str, Found] = {}

    def under(label: str) -> Found:
        if label not in known:
            known[label] = read.get(TAGS, label) or ()
        return known[label]

    return under


def _join(key: str, natives: Natives, tags_in: Callable[[str], Found]) -> EnrichedContact | None:
    """The person whom *natives* are; None without any. Of equal ``updated_at`` the first leads."""
    if not natives:
        return None
    ranked = sorted(natives, key=lambda native: native.updated_at, reverse=True)
    named = next((native for native in ranked if native.first_name or native.last_name), ranked[0])
    tenant = key.partition(":")[0]
    return EnrichedContact(
        tenant=tenant,
        contact_key=key,
        first_name=named.first_name,
        last_name=named.last_name,
        email=next((native.email for native in ranked if native.email), None),
        mobile=next((native.mobile for native in ranked if native.mobile), None),
        country=next((native.country for native in ranked if native.country), None),
        natives=tuple(_shown_native(native) for native in natives),
        tags=_joined_tags(tenant, ranked, tags_in),
        opted_out=any(native.silent for native in natives if native.system == "sakari"),
        dnd=any(native.silent for native in natives if native.system == "users"),
        updated_at=ranked[0].updated_at or None,
    )


def _shown_native(native: Native) -> NativeContact:
    return NativeContact(
        system=native.system,
        account_id=native.account_id,
        contact_id=native.contact_id,
        updated_at=native.updated_at or None,
    )


def _joined_tags(
    tenant: str, ranked: list[Native], tags_in: Callable[[str], Found]
) -> tuple[ContactTag, ...]:
    """The tags of all of *ranked*, each once; of several spellings the leading contact's is shown."""
    locations = frozenset(native.account_id for native in ranked if native.system == "users")
    joined: dict[tuple[str, str], ContactTag] = {}
    for native in ranked:
        for text in native.tags:
            matched = _matched(text, tags_in(_label(tenant, text)), locations)
            tag = _contact_tag(text, matched, native.system)
            place = (tag.folded, tag.tag_id or "")
            joined[place] = _also_on(joined[place], native.system) if place in joined else tag
    return tuple(joined[place] for place in sorted(joined))


def _matched(text: str, found: Found, locations: frozenset[str]) -> LocationTag | None:
    """
    The location tag among *found* that *text* means: the one with that id, else one of that name.

    Of several with one name: one of the person's own *locations* first, then the smallest tag id.
    """
    by_id = next((tag for tag in found if tag.tag_id == text), None)
    if by_id is not None:
        return by_id
    named = (tag for tag in found if _folded(tag.name) == _folded(text))
    return min(named, key=lambda tag: (tag.location_id not in locations, tag.tag_id), default=None)


def _contact_tag(text: str, matched: LocationTag | None, system: str) -> ContactTag:
    if matched is None:
        return ContactTag(name=text, folded=_folded(text), systems=(system,))
    return ContactTag(
        name=matched.name,
        folded=_folded(matched.name),
        systems=(system,),
        tag_id=matched.tag_id,
        location_id=matched.location_id,
        colour=matched.colour,
        description=matched.description,
    )


def _also_on(tag: ContactTag, system: str) -> ContactTag:
    if system in tag.systems:
        return tag
    return msgspec.structs.replace(tag, systems=tuple(sorted({*tag.systems, system})))


STAGE = Stage(
    name="enrich",
    inputs=(
        "redactions",
        "users.tags.by-partition",
        "sakari.contacts",
        "users.contacts",
        "sakari.events",
        "users.events",
        "sources.events",
    ),
    outputs=("contacts.enriched", "activity.enriched"),
    stores=(TAGS, NATIVES, CONTACTS, HOLDERS, FAN_OUTS, REDACTED),
    step=_step,
    resume=_resume,
)
