"""
What holds for the contacts of both systems: whose record wins, which contact key they have.

Each field keeps the newest value that any record carried, so that records may come in any order and
a webhook that lacks a field takes nothing away. A record's stamp is its ``updated.at``, else when it
was observed; of equal times the later observation wins. A contact is there if it was known to exist
after it was last removed.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

from msgspec import UnsetType

from pipeline.events import ContactMoved, SakariContact, UsersContact, UsersContactMoved
from pipeline.identity import fact_id
from pipeline.instants import Time
from pipeline.stages.decode.intake import Intake, table_key
from pipeline.stages.decode.parse import Id
from pipeline.stages.decode.sakari_wire import Mobile, number_of
from pipeline.stages.decode.stores import CONTACTS, KEYS, Registers

__all__ = ["WEAK", "News", "alive_at", "contact_key", "is_gone", "merged", "settle", "stamp", "tell_moved"]

#: Begins stamps that are older than all others: of what is told beside the point.
WEAK = Time("0000-00-00T00:00:00.000Z")


class News(NamedTuple):
    """What one record tells of a contact."""

    carried: dict[str, Any]  #: the fields that it carried
    stamp: str  #: its place among the contact's records
    alive_at: str  #: until when, at least, the contact existed


def stamp(intake: Intake, true_at: Time | None) -> str:
    """The place of the record among those of its contact; *true_at* None: as of its observation."""
    observed = intake.observed_at
    return f"{true_at or observed}{observed}"


def alive_at(intake: Intake, true_at: Time | None) -> str:
    """Until when, at least, the record shows that its contact existed; never after its arrival."""
    observed = intake.observed_at
    shown = max(true_at or observed, observed) if intake.polled else true_at or observed
    return min(shown, intake.received_at)


def is_gone(registers: Registers, shown_alive_at: str) -> bool:
    """Whether the contact was removed at or after *shown_alive_at*."""
    return registers.removed_at != "" and shown_alive_at <= registers.removed_at


def merged(registers: Registers, names: Collection[str], news: News) -> tuple[Registers, dict[str, Any]]:
    """
    Let each field that *news* carries win over older values; *names* are all fields there are.

    Returns the registers after it, and the fields that won.
    """
    carried, new, shown = news
    alive = max(registers.alive_at, shown)
    if new >= registers.stamp:
        older = {name: registers.older.get(name, registers.stamp) for name in names if name not in carried}
        return Registers(new, older, alive), carried
    won = {
        name: value for name, value in carried.items() if new >= registers.older.get(name, registers.stamp)
    }
    return Registers(registers.stamp, registers.older | dict.fromkeys(won, new), alive), won


def contact_key(intake: Intake, native: str, number: Mobile | Id | UnsetType) -> str:
    """
    The contact key for what is no contact record: the stored one, else the payload's mobile's, else *native*.

    A native key that stands in for an unknown number gives way to the first number, told as a move.
    """
    stored: str | None = intake.get(KEYS, native)
    if stored is not None and stored != native:
        return stored
    mobile = intake.mobile(*number_of(number))
    key = intake.keys.contact(intake.tenant, mobile) if mobile else native
    if stored is None:
        intake.put(KEYS, native, key)
    elif key != stored:
        if intake.get(CONTACTS, native) is not None:
            return stored
        intake.put(KEYS, native, key)
        tell_moved(intake, native.split(":", 2)[2], stored, key, intake.observed_at)
    return key


def settle(
    intake: Intake,
    native: str,
    before: SakariContact | UsersContact | None,
    after: SakariContact | UsersContact,
    mobile: str | None,
    *,
    number_known: bool,
) -> str:
    """
    Publish the contact as it is *after* the record, under its contact key, which is returned.

    *number_known* says whether any record carried its number (*mobile* may be None all the same).
    """
    was: str | None = intake.get(KEYS, native)
    own = intake.keys.contact(intake.tenant, mobile) if mobile else native
    now = own if number_known or was is None else was
    table = f"{after.SYSTEM}.contacts"
    if now != was:
        intake.put(KEYS, native, now)
        if was is not None:
            if before is not None:
                intake.emit(table, table_key(was, after.contact_id), None)
            tell_moved(intake, after.contact_id, was, now, after.updated_at or intake.observed_at)
    if now != was or after != before:
        intake.emit(table, table_key(now, after.contact_id), after, after.updated_at)
    return now


def tell_moved(intake: Intake, contact_id: str, was: str, now: str, at: Time) -> None:
    """Tell under both contact keys that the contact's number changed."""
    system, account = intake.record.product, intake.account
    fact: ContactMoved | UsersContactMoved
    if system == "sakari":
        fact = ContactMoved(
            tenant=intake.tenant,
            account_id=account,
            occurred_at=at,
            contact_id=contact_id,
            from_key=was,
            to_key=now,
        )
    else:
        fact = UsersContactMoved(
            tenant=intake.tenant,
            location_id=account,
            occurred_at=at,
            contact_id=contact_id,
            from_key=was,
            to_key=now,
        )
    for side, key in (("from", was), ("to", now)):
        identifier = fact_id(system, account, "contact", contact_id, f"moved:{was}:{now}:{at}:{side}")
        intake.tell(f"{system}.events", key, fact, identifier)
