"""
Sakari's contacts: created, changed, removed, opted out and back in.

Sakari's REST contact does not say whether it is opted out, so the opt state is kept here, by opt
webhooks alone: the latest opt change wins, of two at one time the opt-out. An opt change without a
time counts as of its arrival, and only when it changes the state. What an opt payload tells of the
contact beside it fills gaps and outdates nothing.
"""

from typing import Any

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from pipeline.events import (
    ContactOptedIn,
    ContactOptedOut,
    ListOptedIn,
    ListOptedOut,
    SakariContact,
    SakariTag,
)
from pipeline.identity import native_key, resource_name
from pipeline.instants import Time
from pipeline.stages.decode import sakari_wire as wire
from pipeline.stages.decode.contacts import WEAK, News, alive_at, contact_key, is_gone, merged, settle, stamp
from pipeline.stages.decode.intake import Intake, table_key
from pipeline.stages.decode.parse import (
    as_flag,
    as_id,
    as_time,
    as_values,
    decoded,
    required,
)
from pipeline.stages.decode.stores import CONTACTS, KEYS, Registers, SakariState

__all__ = ["contact", "list_opt", "opt"]

_TOPIC = "sakari.events"
_TABLE = "sakari.contacts"
_CONTACT = msgspec.json.Decoder(wire.Contact)
_HOLDER = msgspec.json.Decoder(wire.Holder)
_LIST_OPT = msgspec.json.Decoder(wire.ListOpt)
_NOT_CARRIED = {"tenant", "account_id", "contact_id", "opted_out", "opted_changed_at"}
_FIELDS = tuple(name for name in SakariContact.__struct_fields__ if name not in _NOT_CARRIED)


def contact(intake: Intake, body: bytes | msgspec.Raw, where: str, *, removed: bool) -> None:
    """A contact as it is; *removed* where it was the last time."""
    given, updated = _contact(body, where)
    identifier = required(as_id(given.id), f"{where}.id")
    native = native_key(intake.tenant, "s", identifier)
    intake.expect_key(native)
    state: SakariState = intake.get(CONTACTS, native) or SakariState()
    if removed:
        _remove(intake, native, identifier, state)
        return
    carried = _carried(intake, given, updated, where)
    alive = alive_at(intake, updated)
    if not is_gone(state.registers, alive):
        _apply(intake, native, identifier, state, News(carried, stamp(intake, updated), alive))


def _remove(intake: Intake, native: str, identifier: str, state: SakariState) -> None:
    removed_at = intake.observed_at
    registers = state.registers
    if registers.alive_at > removed_at or registers.removed_at >= removed_at:
        return
    if state.value is not None:
        key = intake.get(KEYS, native) or native
        intake.emit(_TABLE, table_key(key, identifier), None)
    intake.put(CONTACTS, native, replace(state, value=None, registers=Registers(removed_at=removed_at)))


def _apply(intake: Intake, native: str, identifier: str, state: SakariState, news: News) -> str:
    """Merge what a record carried into *state*; the contact key it then has."""
    registers = Registers() if state.registers.removed_at else state.registers
    registers, won = merged(registers, _FIELDS, news)
    before = state.value
    blank = before or SakariContact(tenant=intake.tenant, account_id=intake.account, contact_id=identifier)
    opted = {"opted_out": state.opted_out, "opted_changed_at": Time(state.opted_changed_at) or None}
    after = replace(blank, **won, **opted)
    intake.put(CONTACTS, native, replace(state, value=after, registers=registers))
    known = registers.older.get("mobile", registers.stamp) != ""
    return settle(intake, native, before, after, after.mobile, number_known=known)


def opt(intake: Intake, body: msgspec.Raw, where: str, *, out: bool) -> None:
    """A contact opted out, or back in."""
    given, updated = _contact(body, where)
    identifier = required(as_id(given.id), f"{where}.id")
    native = native_key(intake.tenant, "s", identifier)
    intake.expect_key(native)
    state: SakariState = intake.get(CONTACTS, native) or SakariState()
    at = updated or intake.received_at
    wins = at > state.opted_changed_at or (at == state.opted_changed_at and out)
    if updated is None and not (wins and out != state.opted_out):
        return
    if wins:
        state = replace(state, opted_out=out, opted_changed_at=at)
    if state.registers.removed_at:
        intake.put(CONTACTS, native, state)
        key: str = intake.get(KEYS, native) or native
    else:
        carried = _carried(intake, given, updated, where)
        news = News(carried, f"{WEAK}{intake.received_at}", "")
        key = _apply(intake, native, identifier, state, news)
    fact, kind = (ContactOptedOut, "opted-out") if out else (ContactOptedIn, "opted-in")
    value = fact(tenant=intake.tenant, account_id=intake.account, occurred_at=at, contact_id=identifier)
    name = resource_name("sakari", intake.account, "contact", identifier)
    intake.fact(_TOPIC, key, value, name, f"{kind}:{at}")


def list_opt(intake: Intake, body: msgspec.Raw, where: str, *, out: bool) -> None:
    """A contact left one list, or joined it again: a fact, no change of its opt state."""
    given, updated = _contact(body, where)
    listed = decoded(_LIST_OPT, body, where)
    identifier = required(as_id(given.id), f"{where}.id")
    native = native_key(intake.tenant, "s", identifier)
    intake.expect_key(native)
    key = contact_key(intake, native, given.mobile)
    inside = listed.list.id if isinstance(listed.list, wire.Ref) else listed.list
    list_id = as_id(inside) or as_id(listed.list_id)
    at = updated or intake.received_at
    fact, kind = (ListOptedOut, "list-opted-out") if out else (ListOptedIn, "list-opted-in")
    value = fact(
        tenant=intake.tenant,
        account_id=intake.account,
        occurred_at=at,
        contact_id=identifier,
        list_id=list_id,
    )
    name = resource_name("sakari", intake.account, "contact", identifier)
    intake.fact(_TOPIC, key, value, name, f"{kind}:{list_id or ''}:{at}")


def _contact(body: bytes | msgspec.Raw, where: str) -> tuple[wire.Contact, Time | None]:
    """The contact that a payload is or holds, and the time of its change, if told."""
    outer = decoded(_HOLDER, body, where)
    if outer.contact is None or not outer.contact.id:
        given = decoded(_CONTACT, body, where)
        return given, _updated_at(given, where)
    own = as_time(outer.updated.at, f"{where}.updated.at") if outer.updated else None
    return outer.contact, own or _updated_at(outer.contact, f"{where}.contact")


def _updated_at(given: wire.Contact, where: str) -> Time | None:
    return as_time(given.updated.at, f"{where}.updated.at") if given.updated else None


def _carried(intake: Intake, given: wire.Contact, updated: Time | None, where: str) -> dict[str, Any]:
    """The fields that a record carried, as `SakariContact` has them."""
    carried: dict[str, Any] = {
        name: value
        for name, value in (
            ("first_name", given.first_name),
            ("last_name", given.last_name),
            ("email", given.email),
        )
        if value is not UNSET
    }
    if given.mobile is not UNSET:
        number, country = wire.number_of(given.mobile)
        carried |= {"mobile": intake.mobile(number, country), "country": country}
    if given.attributes is not UNSET:
        carried["attributes"] = as_values(given.attributes or {})
    if given.tags is not UNSET:
        carried["tags"] = _tags(given.tags or [], where)
    if given.lists is not UNSET:
        carried["lists"] = _lists(given.lists or [])
    if given.valid is not UNSET:
        carried["valid"] = as_flag(given.valid, f"{where}.valid")
    created = as_time(given.created.at, f"{where}.created.at") if given.created else None
    return carried | {name: at for name, at in (("created_at", created), ("updated_at", updated)) if at}


def _tags(given: list[wire.Tag | str], where: str) -> tuple[SakariTag, ...]:
    tags = []
    for tag in given:
        if isinstance(tag, str):
            tags.append(SakariTag(tag))
        elif name := tag.tag or tag.name:
            tags.append(SakariTag(name, as_flag(tag.visible, f"{where}.tags.visible") is not False))
    return tuple(tags)


def _lists(given: list[wire.ListRef | str | int]) -> tuple[str, ...]:
    ids = (as_id(item) if isinstance(item, str | int) else as_id(item.id) or item.name for item in given)
    return tuple(identifier for identifier in ids if identifier)
