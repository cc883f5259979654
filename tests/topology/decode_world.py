"""
Consistent histories of one Sakari contact, one Users API contact and one location tag, as records.

Every record is true of the moment that it is of; which of them are sent, how partial they are, when
they arrive and how often is free. So whatever order they are taken in, one end is right.
"""

from typing import Any, NamedTuple

import orjson
from hypothesis import strategies as st

from pipeline.instants import Time, from_ms
from pipeline.testing import EPOCH_MS, Driver
from tests.unit.decode_records import ACCOUNT, ADA, BOB, LOCATION, moment

NAMES = st.sampled_from(("Ada", "Adele", "Ann"))
TAGS = st.lists(st.sampled_from(("vip", "new", "old")), unique=True, max_size=2)
NUMBERS = st.sampled_from((ADA, BOB, "12"))
#: Time between one change of the world and the next, in ms.
STEP = 60_000


class Sent(NamedTuple):
    """One record of ``sources.received``."""

    key: str
    body: bytes
    received_at: int
    headers: dict[str, str]


def time(step: float) -> Time:
    """When the world made its *step*."""
    return from_ms(EPOCH_MS + round(step * STEP))


def send(driver: Driver, records: list[Sent]) -> None:
    """Put *records* on their topic, in this order; arrival times stay those of the records."""
    for record in records:
        driver.send(
            "sources.received", record.key, record.body, at=record.received_at, headers=record.headers
        )


def _webhook(product: str, key: str, body: dict[str, Any], step: float) -> Sent:
    headers = {"source": "webhook", "product": product, "resource": "webhook", "tenant": "acme"}
    received_at = EPOCH_MS + round(step * STEP)
    return Sent(key, orjson.dumps(body), received_at, headers | {"account": "", "verified": "true"})


def _poll(
    product: str, resource: str, key: str, item: dict[str, Any], step: float, *, change: str = ""
) -> Sent:
    account = ACCOUNT if product == "sakari" else LOCATION
    headers = {"source": "poll", "product": product, "resource": resource, "tenant": "acme"}
    headers |= {"account": account, "verified": "true", "scan_started_at": time(step)}
    headers |= {"change": change} if change else {}
    return Sent(key, orjson.dumps(item), EPOCH_MS + round((step + 0.1) * STEP), headers)


@st.composite
def sakari_records(draw: st.DrawFn) -> list[Sent]:
    """A contact that is edited, moves, opts out and back in, perhaps goes; and its messages."""
    records: list[Sent] = []
    contact: dict[str, Any] = {"id": "c1", "created": moment(time(0)), "attributes": {}, "lists": []}
    for step in range(1, draw(st.integers(2, 5))):
        changed = {
            "firstName": draw(NAMES),
            "mobile": {"number": draw(NUMBERS), "country": "US"},
            "tags": [{"tag": tag} for tag in draw(TAGS)],
        }
        contact |= changed | {"updated": moment(time(step))}
        records += draw(_sightings(contact, step))
    records += draw(_opts(contact))
    for number in range(draw(st.integers(0, 3))):
        records += draw(_message(f"m{number}", contact))
    if draw(st.booleans()):
        body = {"accountId": ACCOUNT, "eventType": "contact-removed", "payload": contact}
        records.append(_webhook("sakari", "acme:s:c1", body, 20))
        records.append(_poll("sakari", "contacts", "acme:s:c1", contact, 21, change="removed"))
    return records


@st.composite
def _sightings(draw: st.DrawFn, contact: dict[str, Any], step: int) -> list[Sent]:
    """A poll of the contact as it is, and webhooks that carry part of it and arrive whenever."""
    records = [_poll("sakari", "contacts", "acme:s:c1", contact, step + 0.5)]
    for number in range(draw(st.integers(0, 2))):
        left_out = draw(st.sets(st.sampled_from(("firstName", "mobile", "tags", "attributes"))))
        payload = {name: value for name, value in contact.items() if name not in left_out}
        body = {"accountId": ACCOUNT, "eventType": "contact-updated", "payload": payload}
        delay = draw(st.integers(0, 30))
        records.append(_webhook("sakari", "acme:s:c1", body, step + delay + 0.01 * (number + 1)))
    return records


@st.composite
def _opts(draw: st.DrawFn, contact: dict[str, Any]) -> list[Sent]:
    """Opt changes with their times, in turn."""
    records = []
    for number in range(draw(st.integers(0, 3))):
        kind = "contact-opt-in" if number % 2 else "contact-opt-out"
        payload = contact | {"updated": moment(time(6 + number))}
        body = {"accountId": ACCOUNT, "eventType": kind, "payload": payload}
        records.append(_webhook("sakari", "acme:s:c1", body, 7 + number))
    return records


@st.composite
def _message(draw: st.DrawFn, identifier: str, contact: dict[str, Any]) -> list[Sent]:
    """One outbound message through its states, each by webhook, poll or both."""
    records = []
    for step, status in enumerate(("queued", "sent", draw(st.sampled_from(("delivered", "error"))))):
        message = {
            "id": identifier,
            "status": status,
            "outgoing": True,
            "segments": 1,
            "price": 0.0079 if step else None,
            "contact": {"id": "c1", "mobile": contact.get("mobile")},
            "created": moment(time(0)),
            "updated": moment(time(step)),
        }
        body = {"accountId": ACCOUNT, "eventType": "message-status", "payload": message}
        if draw(st.booleans()):
            records.append(_webhook("sakari", "acme:s:c1", body, 10 + step))
        if draw(st.booleans()):
            records.append(_poll("sakari", "messages", "acme:s:c1", message, 10 + step))
    return records


@st.composite
def users_records(draw: st.DrawFn) -> list[Sent]:
    """A contact of the Users API that is edited, tagged, silenced and perhaps goes."""
    records: list[Sent] = []
    contact: dict[str, Any] = {"id": "u1", "dateAdded": time(0), "dndSettings": {}}
    for step in range(1, draw(st.integers(2, 6))):
        contact |= {"firstName": draw(NAMES), "phone": draw(NUMBERS), "country": "US", "tags": draw(TAGS)}
        status = draw(st.sampled_from(("active", "inactive", "permanent")))
        contact |= {"dnd": draw(st.booleans()), "dndSettings": {"SMS": {"status": status}}}
        item = contact | {"dateUpdated": time(step)}
        records.append(_poll("users", "contacts", "acme:u:u1", item, step + 0.5))
        kind = draw(st.sampled_from(("ContactUpdate", "ContactTagUpdate", "ContactDndUpdate")))
        shown = dict(contact)
        if kind != "ContactDndUpdate":
            del shown["dndSettings"]
        head = {"type": kind, "timestamp": time(step), "webhookId": f"w{step}", "locationId": LOCATION}
        records.append(_webhook("users", "acme:u:u1", head | shown, step + draw(st.integers(0, 30)) + 0.2))
    if draw(st.booleans()):
        head = {"type": "ContactDelete", "timestamp": time(30), "webhookId": "w", "locationId": LOCATION}
        records.append(_webhook("users", "acme:u:u1", head | contact, 40))
    return records


@st.composite
def tag_records(draw: st.DrawFn) -> list[Sent]:
    """A location tag that is renamed and perhaps goes."""
    records = []
    tag: dict[str, Any] = {"_id": "t1", "createdAt": time(0)}
    for step in range(1, draw(st.integers(2, 5))):
        tag |= {"tag": f"tag {step}", "updatedAt": time(step), "deleted": False}
        records.append(_poll("users", "tags", "acme:u:-:t1", tag, step + 0.5))
    gone = draw(st.sampled_from(("", "deleted", "removed")))
    if gone == "deleted":
        records.append(_poll("users", "tags", "acme:u:-:t1", tag | {"deleted": True}, 9))
    elif gone == "removed":
        records.append(_poll("users", "tags", "acme:u:-:t1", tag, 9, change="removed"))
    return records


@st.composite
def worlds(draw: st.DrawFn) -> list[Sent]:
    """All three, in the order of their arrival."""
    records = draw(sakari_records()) + draw(users_records()) + draw(tag_records())
    return sorted(records, key=lambda record: record.received_at)
