"""What happens to the sample's people besides messages: tags, edits, opt changes, comings and goings."""

from collections.abc import Iterable
from typing import Final

from pipeline.sandbox.state import Change, Hook, Json
from pipeline.sandbox.traffic_plot import Actor, Planned, Plot, planned
from pipeline.sandbox.world import (
    Person,
    add_person,
    full_name,
    sakari_tags,
    users_phone,
    users_tags,
)

__all__ = [
    "arrive",
    "change_number",
    "edit",
    "leave",
    "leave_list",
    "opt",
    "opt_untimed",
    "switch_dnd",
    "tag_at_sakari",
    "tag_at_users",
    "talk_at_users",
]

#: who leaves or changes number has been quiet for so long, so that nothing of theirs is on its way
_QUIET_MS: Final = 20_000
#: who is new stays at least so long that a scan sees them: else only a webhook, which may be lost, could tell
#: that they are gone
_UNKNOWN_MS: Final = 60_000


def tag_at_sakari(plot: Plot) -> Iterable[Planned]:
    """Somebody's tags at Sakari are replaced."""
    actor = plot.anybody(_on_sakari)
    if actor is None or actor.person.sakari_id is None:
        return ()
    tags = sakari_tags(plot.rng)
    change = actor.tenant.account.set_contact_tags(actor.person.sakari_id, tags, at=plot.at(actor))
    return _sakari(plot, actor, change)


def tag_at_users(plot: Plot) -> Iterable[Planned]:
    """Somebody's tags at the Users API are replaced."""
    actor = plot.anybody(_on_users)
    if actor is None or actor.person.users_id is None:
        return ()
    location, at = actor.tenant.location, plot.users_at(actor)
    tags = users_tags(plot.rng, actor.tenant.location_tags.values())
    if plot.chance(0.5):
        return _users(plot, actor, location.set_contact_tags(actor.person.users_id, tags, at=at))
    change = location.put_contact({"tags": tags}, at=at, contact_id=actor.person.users_id)
    return _users(plot, actor, change)


def edit(plot: Plot) -> Iterable[Planned]:
    """Somebody gets another name and e-mail address on one of the systems."""
    if plot.chance(0.5):
        actor = plot.anybody(_on_sakari)
        return _put_sakari(plot, actor, full_name(plot.rng)) if actor else ()
    actor = plot.anybody(_on_users)
    return _put_users(plot, actor, full_name(plot.rng)) if actor else ()


def change_number(plot: Plot) -> Iterable[Planned]:
    """Somebody's mobile changes, on one system or on both."""
    actor = plot.anybody(lambda person: _on_sakari(person) and _quiet(plot, person))
    mobile = actor.tenant.numbers.draw(plot.rng) if actor else None
    if actor is None or mobile is None:
        return ()
    changes = _put_sakari(plot, actor, {"mobile": mobile})
    if actor.person.users_id is not None and plot.chance(0.6):
        changes += _put_users(plot, actor, users_phone(mobile, plot.rng))
    return changes


def opt(plot: Plot) -> Iterable[Planned]:
    """Somebody opts out, or back in; the payload carries the time."""
    timed = [
        Actor(tenant, person)
        for tenant in plot.world.tenants.values()
        for person in tenant.people
        if _on_sakari(person) and not person.untimed
    ]
    out = [actor for actor in timed if actor.person.opted_out]
    actor = plot.rng.choice(out if out and plot.chance(0.4) else timed)
    return _opt(plot, actor, ordered=False)


def opt_untimed(plot: Plot) -> Iterable[Planned]:
    """The same without a time in the payload: nothing may overtake it."""
    actor = plot.anybody(lambda person: _on_sakari(person) and person.untimed)
    if actor is None:
        return ()
    actor.tenant.account.opt_times = False
    changes = _opt(plot, actor, ordered=True)
    actor.tenant.account.opt_times = True
    return changes


def leave_list(plot: Plot) -> Iterable[Planned]:
    """Somebody leaves or joins one list: their overall opt state is unchanged."""
    actor = plot.anybody(_on_sakari)
    if actor is None or actor.person.sakari_id is None:
        return ()
    account = actor.tenant.account
    contact = account.contact(actor.person.sakari_id)
    kind = "list-opt-out" if plot.chance(0.6) else "list-opt-in"
    payload: Json = {**contact, "list": {"id": "5be9ab25b4ef210f55290001", "name": "Offers"}}
    body = {"accountId": account.id, "eventType": kind, "payload": payload}
    at = plot.at(actor)
    return [
        Planned(Hook(product="sakari", owner=account.id, kind=kind, subject=contact["id"], at=at, body=body))
    ]


def switch_dnd(plot: Plot) -> Iterable[Planned]:
    """Somebody's "do not disturb" is switched at the Users API."""
    actor = plot.anybody(_on_users)
    if actor is None or actor.person.users_id is None:
        return ()
    location = actor.tenant.location
    is_on = bool(location.contact(actor.person.users_id)["dnd"])
    return _users(
        plot, actor, location.set_dnd(actor.person.users_id, dnd=not is_on, at=plot.users_at(actor))
    )


def talk_at_users(plot: Plot) -> Iterable[Planned]:
    """A message by way of the Users API; no measure counts it."""
    actor = plot.anybody(_on_users)
    if actor is None or actor.person.users_id is None:
        return ()
    change = actor.tenant.location.add_message(
        actor.person.users_id, inbound=plot.chance(0.5), text="Hello", at=plot.users_at(actor)
    )
    return planned(change.hooks)


def arrive(plot: Plot) -> Iterable[Planned]:
    """Somebody new."""
    tenant = plot.rng.choice(list(plot.world.tenants.values()))
    person, changes = add_person(tenant, plot.rng, at_ms=plot.now_ms)
    person.users_clock_ms = plot.now_ms
    person.busy_until_ms = plot.now_ms + _UNKNOWN_MS
    tenant.people.append(person)
    actor = Actor(tenant, person)
    told: list[Planned] = []
    for change in changes:
        told += (_sakari if change.id == person.sakari_id else _users)(plot, actor, change)
    return told


def leave(plot: Plot) -> Iterable[Planned]:
    """Somebody is removed from one system, or from both."""
    actor = plot.anybody(lambda person: _quiet(plot, person))
    if actor is None:
        return ()
    tenant, person = actor.tenant, actor.person
    told: list[Planned] = []
    both = plot.chance(0.5)
    if person.users_id is not None and (both or person.sakari_id is None):
        change = tenant.location.remove_contact(person.users_id, at=plot.users_at(actor))
        plot.recorder.users_contact(tenant, change.value, removed=True)
        told += planned(change.hooks)
        person.users_id = None
    elif person.sakari_id is not None:
        told += _leave_sakari(plot, actor, person.sakari_id)
    if both and person.sakari_id is not None:
        told += _leave_sakari(plot, actor, person.sakari_id)
    if person.sakari_id is None and person.users_id is None:
        tenant.people.remove(person)
    return told


def _leave_sakari(plot: Plot, actor: Actor, contact_id: str) -> list[Planned]:
    change = actor.tenant.account.remove_contact(contact_id, at=plot.at(actor))
    plot.recorder.sakari_contact(actor.tenant, change.value, removed=True)
    actor.person.sakari_id = None
    actor.person.conversations.clear()
    return planned(change.hooks)


def _opt(plot: Plot, actor: Actor, *, ordered: bool) -> list[Planned]:
    person = actor.person
    assert person.sakari_id is not None
    person.opted_out = not person.opted_out
    change = actor.tenant.account.set_opt(person.sakari_id, out=person.opted_out, at=plot.at(actor))
    return _sakari(plot, actor, change, ordered=ordered)


def _put_sakari(plot: Plot, actor: Actor, fields: Json) -> list[Planned]:
    contact_id = actor.person.sakari_id
    change = actor.tenant.account.put_contact(fields, at=plot.at(actor), contact_id=contact_id)
    return _sakari(plot, actor, change)


def _put_users(plot: Plot, actor: Actor, fields: Json) -> list[Planned]:
    contact_id = actor.person.users_id
    change = actor.tenant.location.put_contact(fields, at=plot.users_at(actor), contact_id=contact_id)
    return _users(plot, actor, change)


def _sakari(plot: Plot, actor: Actor, change: Change, *, ordered: bool = False) -> list[Planned]:
    plot.recorder.sakari_contact(actor.tenant, change.value)
    return planned(change.hooks, ordered=ordered)


def _users(plot: Plot, actor: Actor, change: Change) -> list[Planned]:
    plot.recorder.users_contact(actor.tenant, change.value)
    return planned(change.hooks)


def _on_sakari(person: Person) -> bool:
    return person.sakari_id is not None


def _on_users(person: Person) -> bool:
    return person.users_id is not None


def _quiet(plot: Plot, person: Person) -> bool:
    return person.busy_until_ms + _QUIET_MS < plot.now_ms
