"""The sample's conversations: single messages and campaigns, their receipts and prices, replies, closings."""

from collections.abc import Iterable
from functools import partial
from typing import Final

from pipeline.sandbox.state import Change, Hook, Json
from pipeline.sandbox.traffic_plot import Actor, Planned, Plot
from pipeline.sandbox.traffic_time import Era
from pipeline.sandbox.world import Person

__all__ = ["begin", "close", "inbound", "outbound", "send_campaign"]

#: what becomes of a message, and how often in a hundred
_FATES: Final = {"delivered": 70, "error": 7, "undelivered": 5, "invalid": 3, "never": 11, "corrected": 4}
_FAILURES: Final = {
    "error": {"code": "MSG-003", "description": "Carrier refused the message"},
    "invalid": {"code": "MSG-010", "description": "Number cannot be reached"},
    "undelivered": {"code": "MSG-005", "description": "Handset is off"},
}
_PRICES: Final = (0.0079, 0.0083, 0.012, 0.051)  #: of one segment
_TEXTS: Final = (
    "Your order is ready.",
    "Grüße aus dem Laden 🎉",
    "See you tomorrow at ten?",
    "50% off, today only",
)
_ANSWERS: Final = ("Yes, thanks", "no", "Wann genau?", "👍", "ok!", "call me")
_AUDIENCE: Final = 6


def writable(person: Person) -> bool:
    """Whether a message may be sent to the person."""
    return person.sakari_id is not None and not person.opted_out


def outbound(plot: Plot) -> Iterable[Planned]:
    """One message to somebody; some of them belong to a job of their own."""
    actor = plot.anybody(writable)
    if actor is None:
        return ()
    job = {"id": actor.tenant.account.ids.hexadecimal()} if plot.chance(0.25) else None
    template = plot.rng.choice(actor.tenant.templates) if plot.chance(0.3) else None
    return _send(plot, actor, job, template)


def begin(plot: Plot) -> Iterable[Planned]:
    """A message to two people of each tenant in the hour whose windows close first, before anything else."""
    return [
        each
        for tenant in plot.world.tenants.values()
        for person in [one for one in tenant.people if one.era is Era.CLOSING and writable(one)][:2]
        for each in _send(plot, Actor(tenant, person), None, None)
    ]


def send_campaign(plot: Plot) -> Iterable[Planned]:
    """One job of a campaign to several people."""
    tenant = plot.rng.choice(list(plot.world.tenants.values()))
    campaign = tenant.account.campaigns[plot.rng.choice(tenant.campaigns)]
    job = {"id": tenant.account.ids.hexadecimal(), "campaign": {"id": campaign["id"]}}
    audience = [person for person in plot.rng.sample(tenant.people, _AUDIENCE) if writable(person)]
    return [
        each for person in audience for each in _send(plot, Actor(tenant, person), job, campaign["template"])
    ]


def inbound(plot: Plot) -> Iterable[Planned]:
    """Somebody writes unasked, or long after they were written to."""
    actor = plot.anybody(lambda person: person.sakari_id is not None)
    return _receive(plot, actor, None, plot.now_ms) if actor else ()


def close(plot: Plot) -> Iterable[Planned]:
    """A conversation is closed; the next message begins another."""
    actor = plot.anybody(lambda person: bool(person.conversations))
    if actor is None:
        return ()
    conversation_id = actor.person.conversations.pop(0)
    change = actor.tenant.account.close_conversation(conversation_id, at=plot.at(actor))
    plot.recorder.conversation(actor.tenant, change.value)
    return [_roughly(plot, hook) for hook in change.hooks]


def _send(plot: Plot, actor: Actor, job: Json | None, template: str | None) -> list[Planned]:
    account, person = actor.tenant.account, actor.person
    assert person.sakari_id is not None
    change = account.add_message(
        contact_id=person.sakari_id,
        outgoing=True,
        text=plot.rng.choice(_TEXTS),
        at=plot.at(actor),
        number_id=plot.rng.choice(list(account.numbers)) if plot.chance(0.3) else None,
        job=job,
        template=template,
        status="queued" if plot.chance(0.8) else "sent",
        segments=plot.rng.choice((1, 1, 1, 2, 3)),
    )
    _note(plot, actor, change)
    _plan_receipts(plot, actor, change.value)
    if plot.chance(0.4):
        plan = partial(_receive, plot, actor, change.value["conversation"]["id"])
        for _ in range(plot.rng.choice((1, 1, 1, 2, 3))):
            plot.later(actor, plot.between_ms(1, 25), plan)
    return [_roughly(plot, hook) for hook in change.hooks]


def _plan_receipts(plot: Plot, actor: Actor, message: Json) -> None:
    """Let the message be sent, then meet its fate, then perhaps be priced anew."""
    price = round(message["segments"] * plot.rng.choice(_PRICES), 4)
    after_ms = plot.between_ms(0.2, 1.5)
    receipt = partial(_receipt, plot, actor, message["id"])
    if plot.chance(0.75):
        plot.later(actor, after_ms, partial(receipt, "sent", price))
    fate = plot.rng.choices(list(_FATES), list(_FATES.values()))[0]
    if fate == "never":
        return
    after_ms += plot.between_ms(0.5, 5)
    if fate == "corrected":
        plot.later(actor, after_ms, partial(receipt, "error", price))
        after_ms += plot.between_ms(0.5, 4)
        fate = "delivered"
    plot.later(actor, after_ms, partial(receipt, fate, price))
    if plot.chance(0.06):
        plot.later(actor, after_ms + plot.between_ms(0.5, 3), partial(receipt, fate, round(price + 0.001, 4)))


def _receipt(
    plot: Plot, actor: Actor, message_id: str, status: str, price: float, _now_ms: int
) -> list[Planned]:
    change = actor.tenant.account.set_status(
        message_id, status, at=plot.at(actor), error=_FAILURES.get(status), price=price
    )
    plot.recorder.message(actor.tenant, change.value)
    return [_roughly(plot, hook) for hook in change.hooks]


def _receive(plot: Plot, actor: Actor, conversation_id: str | None, _now_ms: int) -> list[Planned]:
    """The person writes; some who live in the past have come to the present by then."""
    person = actor.person
    if person.sakari_id is None:
        return []
    if person.era is not Era.NOW and plot.chance(0.15):
        person.offset_ms = 0
    says_stop = not person.untimed and not person.opted_out and plot.chance(0.03)
    change = actor.tenant.account.add_message(
        contact_id=person.sakari_id,
        outgoing=False,
        text="STOP" if says_stop else plot.rng.choice(_ANSWERS),
        at=plot.at(actor),
        conversation_id=conversation_id if conversation_id in person.conversations else None,
    )
    _note(plot, actor, change)
    if says_stop:
        person.opted_out = True
        plot.recorder.sakari_contact(actor.tenant, actor.tenant.account.contact(person.sakari_id))
    return [_roughly(plot, hook) for hook in change.hooks]


def _note(plot: Plot, actor: Actor, change: Change) -> None:
    plot.recorder.message(actor.tenant, change.value)
    conversation_id = change.value["conversation"]["id"]
    if conversation_id not in actor.person.conversations:
        actor.person.conversations.append(conversation_id)
        plot.recorder.conversation(actor.tenant, actor.tenant.account.conversation(conversation_id))


def _roughly(plot: Plot, hook: Hook) -> Planned:
    """*hook*, now and then late or told again, as carriers do."""
    return Planned(
        hook,
        delay_s=plot.rng.uniform(1, 6) if plot.chance(0.04) else 0.0,
        again_s=plot.rng.uniform(0, 4) if plot.chance(0.03) else None,
    )
