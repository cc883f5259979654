"""
Sakari's records: which kind each is, and whom to give it to.

Webhooks come as ``{accountId,eventType,payload}``, or as the document's
``{eventId,type,accountId,data}`` with its stale names of types. What no one here knows passes through
as `SakariOther`.
"""

import hashlib

import msgspec

from pipeline.errors import RecordError
from pipeline.events import SakariOther
from pipeline.identity import resource_name
from pipeline.stages.decode import messages, sakari_contacts
from pipeline.stages.decode import sakari_wire as wire
from pipeline.stages.decode.intake import Intake
from pipeline.stages.decode.parse import as_id, body_text, decoded, invalid
from pipeline.stages.decode.stores import KEYS

__all__ = ["take"]

_ENVELOPE = msgspec.json.Decoder(wire.Envelope)
_MESSAGE_HOOK = msgspec.json.Decoder(wire.MessageHook)
_MESSAGE = msgspec.json.Decoder(wire.Message)

#: The document's names -> those on the wire (``account`` tells a balance).
_STALE = {"account": "balance", "messageStatus": "message-status", "messageIncoming": "message-received"}
#: Kind of message webhook -> whether it is outgoing, where the message doesn't say.
_MESSAGES = {"message-sent": True, "message-status": True, "message-received": False}
_CONVERSATIONS = {"conversation-started": False, "conversation-closed": True}
_CONTACTS = {"contact-created", "contact-updated", "contact-removed"}
_OPTS = {"contact-opt-out": True, "contact-opt-in": False}
_LIST_OPTS = {"list-opt-out": True, "list-opt-in": False}


def take(intake: Intake) -> None:
    """
    Decode one of Sakari's records.

    Raises:
        RecordError: it cannot be read, lacks what it must have, or is of a foreign account.
    """
    if intake.polled:
        _polled(intake)
    elif not _message_hook(intake):
        _webhook(intake)


def _polled(intake: Intake) -> None:
    record = intake.record
    intake.own(None, intake.terms.accounts, "header account")
    match record.resource:
        case "contacts":
            sakari_contacts.contact(intake, record.body, "item", removed=record.change == "removed")
        case _ if record.change == "removed":
            pass  # that a message or conversation is no longer listed takes back no fact
        case "messages":
            messages.message(intake, decoded(_MESSAGE, record.body, "item"), "item", None, None)
        case "conversations":
            messages.conversation(intake, record.body, "item")
        case _:
            raise RecordError("unknown-resource", "header resource: is none that Sakari has")


def _message_hook(intake: Intake) -> bool:
    """
    Decode a webhook of a message in its usual form, in one pass.

    Returns whether it was one; `_webhook` reads every other, and says what is wrong with it.
    """
    try:
        hook = _MESSAGE_HOOK.decode(intake.record.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    if hook.payload is None:
        return False
    intake.own(as_id(hook.account_id), intake.terms.accounts, "accountId")
    messages.message(intake, hook.payload, "payload", hook.outgoing, as_id(hook.event_id))
    return True


def _webhook(intake: Intake) -> None:
    envelope = decoded(_ENVELOPE, intake.record.body)
    intake.own(as_id(envelope.account_id), intake.terms.accounts, "accountId")
    told = envelope.event_type or envelope.type
    if not told:
        raise invalid("eventType", "is missing")
    kind = _STALE.get(told, told)
    event_id = as_id(envelope.event_id)
    where = "data" if envelope.data and not envelope.payload else "payload"
    payload = envelope.payload or envelope.data or msgspec.Raw(b"null")
    if (outgoing := _MESSAGES.get(kind)) is not None:
        messages.message(intake, decoded(_MESSAGE, payload, where), where, outgoing, event_id)
    elif (closed := _CONVERSATIONS.get(kind)) is not None:
        messages.conversation(intake, payload, where, is_closed=closed)
    elif kind in _CONTACTS:
        sakari_contacts.contact(intake, payload, where, removed=kind == "contact-removed")
    elif (out := _OPTS.get(kind)) is not None:
        sakari_contacts.opt(intake, payload, where, out=out)
    elif (out := _LIST_OPTS.get(kind)) is not None:
        sakari_contacts.list_opt(intake, payload, where, out=out)
    else:
        _other(intake, kind, event_id)


def _other(intake: Intake, kind: str, event_id: str | None) -> None:
    body = body_text(intake.record.body)
    value = SakariOther(
        tenant=intake.tenant,
        account_id=intake.account,
        occurred_at=intake.received_at,
        event_type=kind,
        body=body,
    )
    identifier = event_id or hashlib.sha256(intake.record.body).hexdigest()
    key = intake.get(KEYS, intake.event.key) or intake.event.key
    name = resource_name("sakari", intake.account, "event", identifier)
    intake.fact("sakari.events", key, value, name, kind)
