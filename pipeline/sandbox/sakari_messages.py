"""Sakari's messages and conversations operations."""

import re
from collections.abc import Iterator
from typing import Final

from pipeline.sandbox.http_app import Answer, Call, Refusal
from pipeline.sandbox.sakari_contacts import INVALID_MOBILE, existing_or_new, invalid_mobile
from pipeline.sandbox.sakari_paging import AccountOperation, done, listed
from pipeline.sandbox.sakari_state import OPT_OUT_ERROR, SakariAccount
from pipeline.sandbox.state import Hook, Json

__all__ = ["OPERATIONS"]

PRICE_A_SEGMENT: Final = 0.0125
_PLACEHOLDER: Final = re.compile(r"\{\{\{\s*(?:contact\.)?(\w+)\s*\}\}\}")


def fetch_all(account: SakariAccount, call: Call) -> Answer:
    """``messages.fetchAll``: all, or those of one contact or conversation."""
    contact, conversation = call.query.get("contactId"), call.query.get("conversationId")
    if contact is None and conversation is None:
        return listed(account, call, account.messages.values(), account.message_item)
    found = [
        message
        for message in account.messages.values()
        if contact in (None, message["contact"]["id"])
        and conversation in (None, message["conversation"]["id"])
    ]
    return listed(account, call, found, account.message_item)


def fetch(account: SakariAccount, call: Call) -> Answer:
    """``messages.fetch``."""
    return Answer(200, done(account.message_item(account.message(call.params["messageId"]))))


def send(account: SakariAccount, call: Call) -> Answer:
    """
    ``messages.send``: to contacts (by id or mobile), conversations or a filter on tags. There is no
    idempotency key: the same request twice sends twice. Each message starts as ``queued``.
    """
    body = call.json()
    text, template = _text(account, body)
    hooks: list[Hook] = []
    valid: list[Json] = []
    invalid: list[Json] = []
    for contact in _recipients(account, body, call, hooks):
        (invalid if "error" in contact else valid).append(contact)
    job = {"id": account.ids.hexadecimal()}
    messages = []
    for contact in valid:
        rendered = _rendered(text, contact)
        segments = _segments(rendered)
        change = account.add_message(
            contact_id=contact["id"],
            outgoing=True,
            text=rendered,
            at=call.now,
            job=job,
            template=template,
            segments=segments,
            price=segments * PRICE_A_SEGMENT,
            media=tuple(body.get("media") or ()),
        )
        messages.append(change.value)
        hooks.extend(change.hooks)
    return Answer(200, done(_summary(account, messages, invalid, job["id"])), tuple(hooks))


def fetch_conversations(account: SakariAccount, call: Call) -> Answer:
    """``conversations.fetchAll``."""
    return listed(account, call, account.conversations.values(), account.conversation_item)


def fetch_conversation(account: SakariAccount, call: Call) -> Answer:
    """``conversations.fetch``."""
    found = account.conversation(call.params["conversationId"])
    return Answer(200, done(account.conversation_item(found)))


def close_conversation(account: SakariAccount, call: Call) -> Answer:
    """``conversations.close``."""
    change = account.close_conversation(call.params["conversationId"], at=call.now)
    return Answer(200, done(account.conversation_item(change.value)), change.hooks)


def _text(account: SakariAccount, body: Json) -> tuple[str, str | None]:
    """The text to send and the id of its template, where the request names one instead of a text."""
    given = body.get("template") or ""
    if not isinstance(given, str) or not (given or body.get("media")):
        raise Refusal(400, "A message needs a template or media", "MSG-001")
    stored = account.templates.get(given)
    return (str(stored.get("template", "")), given) if stored else (given, None)


def _recipients(account: SakariAccount, body: Json, call: Call, hooks: list[Hook]) -> Iterator[Json]:
    """Those to send to, each once; with ``error`` those who cannot be sent to. New ones are created."""
    seen: set[str] = set()
    for contact in _asked(account, body, call, hooks):
        if contact.get("id") not in seen:
            yield contact
        seen.add(contact.get("id", ""))


def _asked(account: SakariAccount, body: Json, call: Call, hooks: list[Hook]) -> Iterator[Json]:
    for given in body.get("contacts") or ():
        yield _contact(account, given, call, hooks)
    for identity in body.get("conversations") or ():
        conversation = account.conversations.get(identity)
        if conversation is None:
            raise Refusal(404, "Invalid conversation id", "CONV-001")
        yield _sendable(account, conversation["contact"]["id"])
    wanted = set((body.get("filters") or {}).get("tags") or ())
    for contact in list(account.contacts.values()) if wanted else ():
        if wanted & {tag["tag"] for tag in contact["tags"]}:
            yield _sendable(account, contact["id"])


def _contact(account: SakariAccount, given: Json, call: Call, hooks: list[Hook]) -> Json:
    if given.get("id"):
        return _sendable(account, str(given["id"]))
    if invalid_mobile(given):
        return {**given, "valid": False, "error": dict(INVALID_MOBILE)}
    known = account.contact_with_mobile(given["mobile"]["number"])
    if known is None:
        change = existing_or_new(account, {k: v for k, v in given.items() if k != "id"}, call, "append")
        hooks.extend(change.hooks)
        known = change.value
    return _sendable(account, known["id"])


def _sendable(account: SakariAccount, identity: str) -> Json:
    contact = account.contacts.get(identity)
    if contact is None:
        return {
            "id": identity,
            "valid": False,
            "error": {"code": "CONT-003", "description": "Unknown contact"},
        }
    if account.is_opted_out(identity):
        return {**contact, "error": dict(OPT_OUT_ERROR)}
    return contact


def _summary(account: SakariAccount, messages: list[Json], invalid: list[Json], job_id: str) -> Json:
    items = [account.message_item(message) for message in messages]
    told: Json = {"messages": items, "jobId": job_id}
    told["estimatedPrice"] = sum(message["price"] for message in messages)
    if account.send_answer == "older":
        return told | {"queued": len(items)}
    return told | {"requested": len(items) + len(invalid), "valid": len(items), "invalid": invalid}


def _rendered(text: str, contact: Json) -> str:
    fields = {**contact.get("attributes", {}), **contact}
    return _PLACEHOLDER.sub(lambda found: str(fields.get(found[1], "")), text)


def _segments(text: str) -> int:
    """SMS parts: 160 characters for one, 153 each for several; 70 and 67 outside ASCII."""
    single, several = (160, 153) if text.isascii() else (70, 67)
    return 1 if len(text) <= single else -(-len(text) // several)


OPERATIONS: Final = (
    AccountOperation("messages.fetchAll", "GET", "/messages", fetch_all),
    AccountOperation("messages.send", "POST", "/messages", send),
    AccountOperation("messages.fetch", "GET", "/messages/{messageId}", fetch),
    AccountOperation("conversations.fetchAll", "GET", "/conversations", fetch_conversations),
    AccountOperation("conversations.fetch", "GET", "/conversations/{conversationId}", fetch_conversation),
    AccountOperation(
        "conversations.close", "PUT", "/conversations/{conversationId}/close", close_conversation
    ),
)
