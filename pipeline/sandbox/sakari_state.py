"""Sakari's data: accounts with contacts, conversations, messages, templates, campaigns and subscriptions."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

from pipeline.sandbox.ids import Ids, wire_time
from pipeline.sandbox.state_types import Change, Hook, Json, found

__all__ = [
    "API_CONSUMER",
    "EVENT_TYPES",
    "OPT_IN_WORDS",
    "OPT_OUT_ERROR",
    "OPT_OUT_WORDS",
    "SakariAccount",
    "SakariState",
    "Subscription",
]

#: union of the three lists of event types that exist (FACTS §1)
EVENT_TYPES: Final = (
    "message-sent",
    "message-status",
    "message-received",
    "conversation-started",
    "conversation-closed",
    "contact-created",
    "contact-updated",
    "contact-removed",
    "contact-opt-out",
    "contact-opt-in",
    "list-opt-out",
    "list-opt-in",
)
#: alone in an inbound message they block the contact, or bring it back (FACTS §1, vendor's page)
OPT_OUT_WORDS: Final = frozenset({"STOP", "CANCEL", "END", "OPTOUT", "OPT-OUT", "QUIT", "UNSUBSCRIBE"})
OPT_IN_WORDS: Final = frozenset({"START", "UNSTOP"})
#: what a blocked contact carries (components.schemas.Error of the vendor's document)
OPT_OUT_ERROR: Final = {"code": "CONT-010", "description": "Contact has requested no further communication"}
API_CONSUMER: Final = {
    "id": "u1",
    "firstName": "API",
    "lastName": "Consumer",
    "name": "API Consumer",
    "source": "api",
    "subSource": "v1",
}
_IDENTIFIERS: Final = ("id", "firstName", "lastName", "email", "mobile")


@dataclass(frozen=True, slots=True)
class Subscription:
    """One callback URL; an empty tuple of event types means all."""

    id: str
    url: str
    event_types: tuple[str, ...] = ()

    def wants(self, kind: str) -> bool:
        """Whether events of *kind* are sent here."""
        return not self.event_types or kind in self.event_types


@dataclass(slots=True, kw_only=True)
class SakariAccount:
    """One account; every dictionary is by native id, in order of creation."""

    id: str
    name: str
    client_id: str
    client_secret: str
    ids: Ids
    pagination: Literal["totalCount", "hasNext"] = "totalCount"  #: both renderings exist
    send_answer: Literal["current", "older"] = "current"  #: shape of ``messages.send``'s data
    subscription_answer: Literal["document", "page"] = "document"  #: ``{url,…}`` or ``{id,type,…}``
    webhook_shape: Literal["wire", "document"] = "wire"  #: or the document's ``Event{eventId,…}``
    opt_times: bool = True  #: whether opt payloads carry ``created`` and ``updated``
    numbers: dict[str, Json] = field(default_factory=dict)
    contacts: dict[str, Json] = field(default_factory=dict)
    conversations: dict[str, Json] = field(default_factory=dict)
    messages: dict[str, Json] = field(default_factory=dict)
    templates: dict[str, Json] = field(default_factory=dict)
    campaigns: dict[str, Json] = field(default_factory=dict)
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    group: Json = field(default_factory=dict)
    _open: dict[tuple[str, str], str] = field(default_factory=dict)
    _by_mobile: dict[str, str] = field(default_factory=dict)

    # -- contacts ----------------------------------------------------------------------------------

    def put_contact(self, fields: Json, *, at: datetime, contact_id: str | None = None) -> Change:
        """
        Create a contact, or merge *fields* (wire names: firstName, lastName, email, mobile, tags, attributes)
        into the one with *contact_id*; sends contact-created or contact-updated.
        """
        known = self.contacts.get(contact_id or "")
        identity = contact_id or self.ids.hexadecimal()
        stamp = _stamp(at)
        contact = {"valid": True, "tags": [], "attributes": {}, **(known or {}), **fields, "id": identity}
        contact |= {"created": (known or {}).get("created", stamp), "updated": stamp}
        self._store_contact(contact, known)
        kind = "contact-updated" if known else "contact-created"
        return Change(contact, (self._hook(kind, identity, contact, at),))

    def set_contact_tags(self, contact_id: str, tags: Iterable[str], *, at: datetime) -> Change:
        """Replace a contact's tags by visible ones named *tags*."""
        wire = [{"tag": tag, "visible": True} for tag in tags]
        return self.put_contact({"tags": wire}, at=at, contact_id=self.contact(contact_id)["id"])

    def remove_contact(self, contact_id: str, *, at: datetime) -> Change:
        """Remove a contact; its messages stay. Sends contact-removed with the contact as it was."""
        contact = self.contact(contact_id)
        del self.contacts[contact_id]
        if self._by_mobile.get(_digits(contact)) == contact_id:
            del self._by_mobile[_digits(contact)]
        removed = {**contact, "updated": _stamp(at)}
        return Change(removed, (self._hook("contact-removed", contact_id, removed, at),))

    def set_opt(self, contact_id: str, *, out: bool, at: datetime) -> Change:
        """Block a contact or bring it back; sends contact-opt-out or -in, also when nothing changed."""
        known = self.contact(contact_id)
        contact = {name: value for name, value in known.items() if name != "error"}
        contact |= {"updated": _stamp(at)} | ({"error": dict(OPT_OUT_ERROR)} if out else {})
        self._store_contact(contact, known)
        told = contact if self.opt_times else _without(contact, "created", "updated")
        kind = "contact-opt-out" if out else "contact-opt-in"
        return Change(contact, (self._hook(kind, contact_id, told, at),))

    def is_opted_out(self, contact_id: str) -> bool:
        """Whether the contact is blocked now."""
        return bool(self.contact(contact_id).get("error", {}).get("code") == OPT_OUT_ERROR["code"])

    def contact(self, contact_id: str) -> Json:
        """
        The contact as it is now.

        Raises:
            Missing: there is none, or it was removed.
        """
        return found(self.contacts, "contact", contact_id)

    def contact_with_mobile(self, number: str) -> Json | None:
        """The contact whose mobile has the digits of *number*, however it is punctuated."""
        identity = self._by_mobile.get(_digits({"mobile": {"number": number}}))
        return self.contacts.get(identity or "")

    def _store_contact(self, contact: Json, known: Json | None) -> None:
        if known and self._by_mobile.get(_digits(known)) == known["id"]:
            del self._by_mobile[_digits(known)]
        self.contacts[contact["id"]] = contact
        if digits := _digits(contact):
            self._by_mobile[digits] = contact["id"]

    # -- messages and conversations ----------------------------------------------------------------

    def add_message(
        self,
        *,
        contact_id: str,
        outgoing: bool,
        text: str,
        at: datetime,
        number_id: str | None = None,
        conversation_id: str | None = None,
        job: Json | None = None,
        template: str | None = None,
        status: str | None = None,
        segments: int = 1,
        price: float = 0.0,
        media: tuple[Json, ...] = (),
    ) -> Change:
        """
        Add a message to the contact's open conversation, or to *conversation_id*, or to a new one.

        *job* is ``{"id": …}``, with ``"campaign": {"id": …}`` where a campaign sent it. Sends
        conversation-started when one begins, then message-sent or message-received, then contact-opt-out or
        -in when an inbound text is one of the opt words alone.
        """
        number = found(self.numbers, "phone number", number_id or next(iter(self.numbers)))
        contact = _identifiers(self.contact(contact_id))
        started = self._conversation(contact, number, conversation_id, at)
        stamp = _stamp(at)
        message: Json = {
            "id": self.ids.hexadecimal(),
            "accountId": self.id,
            "type": "mms" if media else "sms",
            "message": text,
            "status": status or ("queued" if outgoing else "received"),
            "outgoing": outgoing,
            "country": number["country"],
            "segments": segments,
            "price": price,
            "read": False,
            "operational": False,
            "media": list(media),
            "group": self.group,
            "conversation": {"id": started.id},
            "contact": contact,
            "number": number["id"],
            "created": stamp,
            "updated": stamp,
        }
        message |= {
            name: value for name, value in (("job", job), ("template", template)) if value is not None
        }
        self.messages[message["id"]] = message
        self._touch(message, at)
        kind = "message-sent" if outgoing else "message-received"
        hooks = (*started.hooks, self._message_hook(kind, message, at))
        return Change(message, hooks + (() if outgoing else self._opt_word(contact_id, text, at)))

    def set_status(
        self,
        message_id: str,
        status: str,
        *,
        at: datetime,
        error: Json | None = None,
        segments: int | None = None,
        price: float | None = None,
    ) -> Change:
        """Move a message to *status* (an *error* is ``{code, description}``); sends message-status."""
        known = self.message(message_id)
        told = {"error": error, "segments": segments, "price": price}
        given = {name: value for name, value in told.items() if value is not None}
        message = {**known, **given, "status": status, "updated": _stamp(at)}
        self.messages[message_id] = message
        return Change(message, (self._message_hook("message-status", message, at),))

    def close_conversation(self, conversation_id: str, *, at: datetime) -> Change:
        """Close a conversation; sends conversation-closed. The contact's next message starts another."""
        known = self.conversation(conversation_id)
        conversation = {**known, "closed": wire_time(at), "updated": _stamp(at)}
        self.conversations[conversation_id] = conversation
        self._open.pop((known["contact"]["id"], known["phoneNumber"]["id"]), None)
        subject = known["contact"]["id"]
        return Change(conversation, (self._hook("conversation-closed", subject, conversation, at),))

    def message(self, message_id: str) -> Json:
        """
        The message as it is now.

        Raises:
            Missing: there is none.
        """
        return found(self.messages, "message", message_id)

    def conversation(self, conversation_id: str) -> Json:
        """
        The conversation as it is now.

        Raises:
            Missing: there is none.
        """
        return found(self.conversations, "conversation", conversation_id)

    def message_payload(self, message: Json) -> Json:
        """*message* as a webhook's ``payload`` carries it (FACTS §1)."""
        contact = self.contacts.get(message["contact"]["id"]) or message["contact"]
        conversation = self.conversations[message["conversation"]["id"]]
        number = self.numbers[message["number"]]
        told = {
            "id": conversation["id"],
            **({"closed": conversation["closed"]} if "closed" in conversation else {}),
            "group": {"id": self.group["id"]},
            "phoneNumber": {name: number[name] for name in ("id", "number", "country")},
        }
        kept = _without(message, "number")
        return {**kept, "conversation": told, "contact": _identifiers(contact, "created", "updated")}

    def message_item(self, message: Json) -> Json:
        """*message* as ``messages.fetchAll`` lists it: no job, our number as a string."""
        kept = _without(message, "number", "job", "accountId", "group", "type", "operational", "country")
        contact = self.contacts.get(message["contact"]["id"]) or message["contact"]
        number = self.numbers[message["number"]]["number"]
        return {**kept, "contact": _identifiers(contact), "phoneNumber": number}

    def conversation_item(self, conversation: Json) -> Json:
        """*conversation* with its contact as it is now and its last message, as REST answers it."""
        contact = self.contacts.get(conversation["contact"]["id"]) or conversation["contact"]
        last = self.messages.get(conversation.get("lastMessage", ""))
        told = {**conversation, "contact": _identifiers(contact), "unread": []}
        return {**told, "lastMessage": self.message_item(last)} if last else _without(told, "lastMessage")

    def _conversation(self, contact: Json, number: Json, asked: str | None, at: datetime) -> Change:
        key = (contact["id"], number["id"])
        identity = asked or self._open.get(key)
        if identity is not None:
            return Change(self.conversation(identity))
        stamp = _stamp(at)
        conversation: Json = {
            "id": self.ids.hexadecimal(),
            "contact": contact,
            "phoneNumber": {**number, "active": True},
            "group": {"id": self.group["id"]},
            "created": stamp,
            "updated": stamp,
        }
        self.conversations[conversation["id"]] = conversation
        self._open[key] = conversation["id"]
        hook = self._hook("conversation-started", contact["id"], conversation, at)
        return Change(conversation, (hook,))

    def _touch(self, message: Json, at: datetime) -> None:
        identity = message["conversation"]["id"]
        changed = {"lastMessage": message["id"], "updated": _stamp(at)}
        self.conversations[identity] = {**self.conversations[identity], **changed}

    def _opt_word(self, contact_id: str, text: str, at: datetime) -> tuple[Hook, ...]:
        word = text.strip().upper()
        if word not in OPT_OUT_WORDS | OPT_IN_WORDS:
            return ()
        return self.set_opt(contact_id, out=word in OPT_OUT_WORDS, at=at).hooks

    # -- templates, campaigns, subscriptions -------------------------------------------------------

    def put_template(self, fields: Json, *, template_id: str | None = None) -> Change:
        """Create a template (name, template, type), or merge *fields* into one."""
        return _put(self.templates, fields, template_id or self.ids.hexadecimal())

    def put_campaign(self, fields: Json, *, campaign_id: str | None = None) -> Change:
        """Create a campaign (name, template, trigger, filters), or merge *fields* into one."""
        return _put(self.campaigns, fields, campaign_id or self.ids.hexadecimal())

    def subscribe(self, url: str, event_types: Iterable[str] = ()) -> Subscription:
        """Call *url* on events of these types (none: all); a repeated URL replaces its former entry."""
        known = self.subscriptions.get(url)
        identity = known.id if known else self.ids.hexadecimal()
        self.subscriptions[url] = Subscription(identity, url, tuple(event_types))
        return self.subscriptions[url]

    def unsubscribe(self, url: str) -> None:
        """
        Call *url* no more.

        Raises:
            Missing: it is not subscribed.
        """
        found(self.subscriptions, "webhook", url)
        del self.subscriptions[url]

    def add_number(self, number: str, country: str) -> Json:
        """Give the account a phone number of its own (E.164) to send from."""
        identity = self.ids.hexadecimal()
        self.numbers[identity] = {"id": identity, "number": number, "country": country}
        return self.numbers[identity]

    # -- webhooks ----------------------------------------------------------------------------------

    def _message_hook(self, kind: str, message: Json, at: datetime) -> Hook:
        return self._hook(kind, message["contact"]["id"], self.message_payload(message), at)

    def _hook(self, kind: str, subject: str, payload: Json, at: datetime) -> Hook:
        told = _without(payload, "lastMessage") if kind.startswith("conversation") else payload
        body: Json = {"accountId": self.id, "eventType": kind, "payload": told}
        if self.webhook_shape == "document":
            body = {"eventId": self.ids.hexadecimal(), "type": kind, "accountId": self.id, "data": told}
        return Hook(product="sakari", owner=self.id, kind=kind, subject=subject, at=at, body=body)


@dataclass(slots=True)
class SakariState:
    """All Sakari accounts."""

    ids: Ids
    accounts: dict[str, SakariAccount] = field(default_factory=dict)

    def add_account(self, *, name: str, country: str = "US", number: str = "+12025550100") -> SakariAccount:
        """Open an account with made-up credentials and one phone number of its own (E.164)."""
        ids = Ids(f"{self.ids.secret()} {name}")
        account = SakariAccount(
            id=self.ids.hexadecimal(),
            name=name,
            client_id=self.ids.uuid(),
            client_secret=self.ids.secret(),
            ids=ids,
            group={"id": ids.hexadecimal(), "name": "Default"},
        )
        account.add_number(number, country)
        self.accounts[account.id] = account
        return account

    def account(self, account_id: str) -> SakariAccount:
        """
        The account with this id.

        Raises:
            Missing: there is none.
        """
        return found(self.accounts, "account", account_id)


def _put(into: dict[str, Json], fields: Json, identity: str) -> Change:
    into[identity] = {**into.get(identity, {}), **fields, "id": identity}
    return Change(into[identity])


def _stamp(at: datetime) -> Json:
    return {"at": wire_time(at), "by": API_CONSUMER}


def _without(resource: Json, *names: str) -> Json:
    return {name: value for name, value in resource.items() if name not in names}


def _identifiers(contact: Json, *more: str) -> Json:
    return {name: contact[name] for name in (*_IDENTIFIERS, *more) if name in contact}


def _digits(contact: Json) -> str:
    return "".join(filter(str.isdigit, (contact.get("mobile") or {}).get("number", "")))
