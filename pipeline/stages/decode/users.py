"""
The Users API's records: which kind each is, and whom to give it to.

A webhook is a flat JSON object, or has the event's own fields under ``data``. One whose ``webhookId``
came before is dropped. One that nobody signed passes as `UsersOther`, if the tenant takes such at
all: it changes no contact and no opt-out, and its ``webhookId`` keeps no signed one away.
"""

import hashlib

import msgspec

from pipeline.errors import RecordError
from pipeline.events import UsersMessageReceived, UsersMessageSent, UsersOther
from pipeline.identity import native_key, resource_name
from pipeline.instants import Time
from pipeline.stages.decode import resources, users_contacts
from pipeline.stages.decode import users_wire as wire
from pipeline.stages.decode.contacts import contact_key
from pipeline.stages.decode.intake import Intake
from pipeline.stages.decode.parse import as_id, as_time, body_text, decoded, required
from pipeline.stages.decode.stores import KEYS
from pipeline.stages.decode.users_contacts import Hook, webhook_name

__all__ = ["take"]

_TOPIC = "users.events"
_ENVELOPE = msgspec.json.Decoder(wire.Envelope)
_MESSAGE = msgspec.json.Decoder(wire.Message)
_MESSAGES: dict[str, tuple[type[UsersMessageReceived | UsersMessageSent], str]] = {
    "InboundMessage": (UsersMessageReceived, "received"),
    "OutboundMessage": (UsersMessageSent, "sent"),
}
_CONTACTS = {"ContactCreate", "ContactUpdate", "ContactDelete", "ContactTagUpdate", "ContactDndUpdate"}


def take(intake: Intake) -> None:
    """
    Decode one of the Users API's records.

    Raises:
        RecordError: it cannot be read, lacks what it must have, is of a foreign location, or is
            unsigned and the tenant takes none such.
    """
    if not intake.polled:
        _webhook(intake)
        return
    intake.own(None, intake.terms.locations, "header account")
    if intake.record.resource == "contacts":
        removed = intake.record.change == "removed"
        users_contacts.contact(intake, intake.record.body, "item", None, removed=removed)
    else:
        resources.take(intake)


def _webhook(intake: Intake) -> None:
    envelope = decoded(_ENVELOPE, intake.record.body)
    kind = required(envelope.type, "type")
    models = kind in _CONTACTS or kind in _MESSAGES
    location = as_id(envelope.location_id) or intake.record.account
    if location or models:
        intake.own(location, intake.terms.locations, "locationId")
    at = as_time(envelope.timestamp, "timestamp")
    webhook_id = as_id(envelope.webhook_id)
    if not intake.record.verified:
        _unverified(intake, kind, webhook_id, at)
        return
    identifier = webhook_id or hashlib.sha256(intake.record.body).hexdigest()
    if webhook_id and not intake.news(webhook_name(intake, webhook_id), at or intake.received_at, ("",)):
        return
    hook = Hook(kind, at, webhook_id, identifier)
    nested = bytes(envelope.data).startswith(b"{")
    where, told = ("data", bytes(envelope.data)) if nested else ("", intake.record.body)
    if kind in _CONTACTS:
        users_contacts.contact(intake, told, where, hook, removed=kind == "ContactDelete")
    elif kind in _MESSAGES:
        _message(intake, told, where, hook)
    else:
        _other(intake, hook)


def _unverified(intake: Intake, kind: str, webhook_id: str | None, at: Time | None) -> None:
    if not intake.terms.accept_unverified:
        raise RecordError("unverified", "the webhook has no valid signature, and the tenant takes none such")
    identifier = webhook_id or hashlib.sha256(intake.record.body).hexdigest()
    _other(intake, Hook(kind, at, webhook_id, f"unverified:{identifier}"))


def _message(intake: Intake, body: bytes | msgspec.Raw, where: str, hook: Hook) -> None:
    given = decoded(_MESSAGE, body, where)
    contact_id = required(as_id(given.contact_id), "contactId")
    native = native_key(intake.tenant, "u", contact_id)
    intake.expect_key(native)
    fact, word = _MESSAGES[hook.kind]
    message_id = as_id(given.message_id)
    added = as_time(given.date_added, "dateAdded")
    value = fact(
        tenant=intake.tenant,
        location_id=intake.account,
        occurred_at=added or hook.at or intake.received_at,
        webhook_id=hook.webhook_id,
        contact_id=contact_id,
        message_id=message_id,
        conversation_id=as_id(given.conversation_id),
        message_type=given.message_type,
        text=given.body,
        status=given.status,
    )
    if message_id:
        name = resource_name("users", intake.account, "message", message_id)
    else:
        name = webhook_name(intake, hook.identifier)
    intake.fact(_TOPIC, contact_key(intake, native, None), value, name, word)


def _other(intake: Intake, hook: Hook) -> None:
    value = UsersOther(
        tenant=intake.tenant,
        location_id=intake.account,
        occurred_at=hook.at or intake.received_at,
        webhook_id=hook.webhook_id,
        event_type=hook.kind,
        body=body_text(intake.record.body),
    )
    key = intake.get(KEYS, intake.event.key) or intake.event.key
    intake.fact(_TOPIC, key, value, webhook_name(intake, hook.identifier), f"other:{hook.kind}")
