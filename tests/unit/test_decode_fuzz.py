"""Whatever a sender puts into a field, decode takes it or refuses it by a `RecordError`."""

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.codec import encode
from pipeline.errors import RecordError
from pipeline.stage import NOTHING
from pipeline.stages.decode.stores import STORES
from tests.unit.decode_records import ADA, Task, at, hook, moment, sakari_contact, sakari_message, users_hook

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from((at(1), ADA, "12", "")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(("id", "at", "number", "status", "x")), inner, max_size=3)
    ),
    max_leaves=6,
)
KINDS = ("message-sent", "message-received", "conversation-closed", "contact-updated", "contact-removed")
OPTS = ("contact-opt-out", "contact-opt-in", "list-opt-out")
USERS = ("ContactUpdate", "ContactDelete", "ContactTagUpdate", "ContactDndUpdate", "InboundMessage", "Else")
RESOURCES = ("tags", "users", "accounts", "statistics", "contacts")
USERS_CONTACT: dict[str, Any] = {
    "contactId": "u1",
    "messageId": "m",
    "phone": ADA,
    "country": "US",
    "tags": ["vip"],
    "dnd": False,
    "dndSettings": {"SMS": {"status": "active"}},
    "customFields": [{"id": "f", "value": 1}],
    "dateAdded": at(1),
}
ITEM: dict[str, Any] = {
    "_id": "1",
    "id": "1",
    "tag": "VIP",
    "roles": {"role": "x"},
    "phone": ADA,
    "windowEnd": at(9),
    "dialect": "vendor",
    "profileIds": ["a"],
    "results": {},
    "updatedAt": at(2),
    "deleted": False,
}


def check_decodes(task: Task, body: bytes, **headers: Any) -> None:
    """Decode a record; all that comes of it can be written, or it is refused without the number."""
    refused: str | None = None
    try:
        outcome = task.take(body, **headers)
    except RecordError as error:
        refused, outcome = str(error), NOTHING
    assert ADA not in (refused or "")
    for emit in outcome.emit:
        emit.key.encode()
        assert emit.value is None or encode(emit.value)
    for write in outcome.writes:
        assert msgspec.msgpack.encode(getattr(write, "value", None))
        assert write.store in STORES


def changed(draw: st.DrawFn, good: dict[str, Any]) -> dict[str, Any]:
    """*good* with up to three fields replaced or left out."""
    bad = draw(st.dictionaries(st.sampled_from(sorted(good)), JSON, max_size=3))
    gone = draw(st.sets(st.sampled_from(sorted(good)), max_size=2))
    return {name: value for name, value in (good | bad).items() if name not in gone}


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_no_sakari_webhook_breaks_decode(data: st.DataObject) -> None:
    """Any value in any field of any kind of webhook."""
    more = {"closed": True, "list": {"id": "l"}, "conversation": {"id": "v"}, "updated": moment(at(5))}
    good = sakari_message() | sakari_contact() | more
    payload = data.draw(st.composite(changed)(good))
    body = hook(data.draw(st.sampled_from(KINDS + OPTS)), payload)
    check_decodes(Task(), body)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_no_users_webhook_breaks_decode(data: st.DataObject) -> None:
    """Any value in any field of any kind of webhook."""
    fields = data.draw(st.composite(changed)(USERS_CONTACT | {"timestamp": at(6), "webhookId": "w"}))
    body = users_hook(data.draw(st.sampled_from(USERS)), **fields)
    check_decodes(Task(), body, key="acme:u:u1", product="users", account="location-1")


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_no_polled_item_breaks_decode(data: st.DataObject) -> None:
    """Any value in any field of any resource."""
    item = data.draw(st.composite(changed)(ITEM))
    resource = data.draw(st.sampled_from(RESOURCES))
    headers = {"product": "users", "account": "location-1", "resource": resource, "scan": at(9)}
    check_decodes(Task(), msgspec.json.encode(item), key="acme:u:1", **headers)


@given(st.binary(max_size=60), st.sampled_from(("sakari", "users", "survey")))
@settings(max_examples=200, deadline=None)
def test_no_bytes_break_decode(body: bytes, product: str) -> None:
    """Whatever arrives is refused, or passes through."""
    check_decodes(Task(), body, product=product)
