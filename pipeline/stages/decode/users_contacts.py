"""
The Users API's contacts: created, changed, tagged, silenced, removed.

A webhook's body lacks fields that a list's item has and the other way round; what a record doesn't
carry is kept. ``ContactTagUpdate`` carries the whole list of tags, ``ContactDndUpdate`` the opt-out
of this side. A record without ``dateUpdated`` is as of its webhook's ``timestamp``.
"""

from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from pipeline.events import UsersContact, UsersContactDndUpdated, UsersContactTagsUpdated
from pipeline.identity import native_key, resource_name
from pipeline.instants import Time
from pipeline.stages.decode import users_wire as wire
from pipeline.stages.decode.contacts import News, alive_at, is_gone, merged, settle, stamp
from pipeline.stages.decode.intake import Intake, table_key
from pipeline.stages.decode.parse import as_flag, as_id, as_time, as_values, decoded, required
from pipeline.stages.decode.stores import CONTACTS, KEYS, Registers, UsersState

__all__ = ["Hook", "contact", "webhook_name"]

_TOPIC = "users.events"
_TABLE = "users.contacts"
_CONTACT = msgspec.json.Decoder(wire.Contact)
_OWN = ("dnd_all", "dnd_sms")
_NOT_CARRIED = {"tenant", "location_id", "contact_id", "dnd"}
_FIELDS = (*(name for name in UsersContact.__struct_fields__ if name not in _NOT_CARRIED), *_OWN)


class Hook(NamedTuple):
    """The webhook that a contact came with."""

    kind: str
    at: Time | None  #: its ``timestamp``
    webhook_id: str | None
    identifier: str  #: the webhook's id, else the digest of its body


def webhook_name(intake: Intake, identifier: str) -> str:
    """The `resource_name` of a webhook."""
    return resource_name("users", intake.account, "webhook", identifier)


def contact(
    intake: Intake, body: bytes | msgspec.Raw, where: str, hook: Hook | None, *, removed: bool
) -> None:
    """A contact as it is; *removed* where it was the last time; *hook* is None for a list's item."""
    given = decoded(_CONTACT, body, where)
    identifier = required(as_id(given.contact_id) or as_id(given.id), "id")
    native = native_key(intake.tenant, "u", identifier)
    intake.expect_key(native)
    state: UsersState = intake.get(CONTACTS, native) or UsersState()
    if removed:
        _remove(intake, native, identifier, state)
        return
    updated = as_time(given.date_updated, "dateUpdated") or (hook.at if hook else None)
    carried = _carried(intake, given, updated)
    alive = alive_at(intake, updated)
    if is_gone(state.registers, alive):
        key: str = intake.get(KEYS, native) or native
    else:
        key = _apply(intake, native, identifier, state, News(carried, stamp(intake, updated), alive))
    if hook:
        _tell(intake, key, identifier, hook, carried)


def _remove(intake: Intake, native: str, identifier: str, state: UsersState) -> None:
    removed_at = intake.observed_at
    registers = state.registers
    if registers.alive_at > removed_at or registers.removed_at >= removed_at:
        return
    if state.value is not None:
        key = intake.get(KEYS, native) or native
        intake.emit(_TABLE, table_key(key, identifier), None)
    intake.put(CONTACTS, native, UsersState(registers=Registers(removed_at=removed_at)))


def _apply(intake: Intake, native: str, identifier: str, state: UsersState, news: News) -> str:
    """Merge what a record carried into *state*; the contact key it then has."""
    registers = Registers() if state.registers.removed_at else state.registers
    registers, won = merged(registers, _FIELDS, news)
    dnd_all = won.get("dnd_all", state.dnd_all)
    dnd_sms = won.get("dnd_sms", state.dnd_sms)
    before = state.value
    blank = before or UsersContact(tenant=intake.tenant, location_id=intake.account, contact_id=identifier)
    shown = {name: value for name, value in won.items() if name not in _OWN}
    after = replace(blank, **shown, dnd=dnd_all or dnd_sms)
    intake.put(CONTACTS, native, UsersState(after, registers, dnd_all, dnd_sms))
    known = registers.older.get("phone", registers.stamp) != ""
    return settle(intake, native, before, after, after.phone, number_known=known)


def _tell(intake: Intake, key: str, identifier: str, hook: Hook, carried: dict[str, Any]) -> None:
    """The facts that two kinds of webhooks are."""
    at = hook.at or intake.received_at
    fact: UsersContactTagsUpdated | UsersContactDndUpdated
    if hook.kind == "ContactTagUpdate":
        word = "tags-updated"
        fact = UsersContactTagsUpdated(
            tenant=intake.tenant,
            location_id=intake.account,
            occurred_at=at,
            webhook_id=hook.webhook_id,
            contact_id=identifier,
            tags=required(carried.get("tags"), "tags"),
        )
    elif hook.kind == "ContactDndUpdate":
        word = "dnd-updated"
        silent = carried.get("dnd_all", False) or carried.get("dnd_sms", False)
        fact = UsersContactDndUpdated(
            tenant=intake.tenant,
            location_id=intake.account,
            occurred_at=at,
            webhook_id=hook.webhook_id,
            contact_id=identifier,
            dnd=silent,
        )
    else:
        return
    intake.fact(_TOPIC, key, fact, webhook_name(intake, hook.identifier), word)


def _carried(intake: Intake, given: wire.Contact, updated: Time | None) -> dict[str, Any]:
    """The fields that a record carried, as `UsersContact` has them; ``dnd`` in its two parts."""
    country = given.country if isinstance(given.country, str) else None
    carried: dict[str, Any] = {
        name: value
        for name, value in (
            ("first_name", given.first_name),
            ("last_name", given.last_name),
            ("email", given.email),
            ("country", given.country),
        )
        if value is not UNSET
    }
    if given.phone is not UNSET:
        carried["phone"] = intake.mobile(given.phone, country)
    if given.custom_fields is not UNSET:
        carried["custom_fields"] = _custom_fields(given.custom_fields or [])
    if given.tags is not UNSET:
        carried["tags"] = tuple(given.tags or ())
    if given.dnd is not UNSET:
        carried["dnd_all"] = as_flag(given.dnd, "dnd") or False
    if given.dnd_settings is not UNSET:
        sms = given.dnd_settings.SMS if given.dnd_settings else None
        carried["dnd_sms"] = sms is not None and (sms.status or "").lower() in {"active", "permanent"}
    if given.assigned_to is not UNSET:
        carried["assigned_to"] = as_id(given.assigned_to)
    created = as_time(given.date_added, "dateAdded")
    return carried | {name: at for name, at in (("created_at", created), ("updated_at", updated)) if at}


def _custom_fields(given: list[wire.CustomField]) -> dict[str, str]:
    values = {
        identifier: field.field_value if field.value is UNSET else field.value
        for field in given
        if (identifier := as_id(field.id)) is not None
    }
    return as_values({name: value for name, value in values.items() if value is not UNSET})
