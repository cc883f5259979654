"""Decode's facts and contacts of the Users API."""

from typing import Any

import orjson
import pytest

from pipeline.errors import RecordError
from pipeline.events import UsersContact, UsersOther
from tests.unit.decode_records import ADA, ADA_KEY, BOB, BOB_KEY, LOCATION, Task, at, names, users_hook

ROW = f"{ADA_KEY}|u1"


def contact(task: Task, key: str = ROW) -> UsersContact:
    """The contact's row in its table."""
    row = task.table("users.contacts")[key]
    assert isinstance(row, UsersContact)
    return row


def test_a_contact_is_written_as_typed_state() -> None:
    """Without ``dateUpdated`` it is as of the webhook's timestamp."""
    fields = {"firstName": "Ada", "phone": ADA, "country": "US", "tags": ["vip"], "assignedTo": "x"}
    custom = [{"id": "f1", "value": "a"}, {"id": "f2", "value": [1]}, {"id": "f3", "value": None}]
    task = Task()
    task.users(users_hook("ContactCreate", **fields, customFields=custom, dateAdded=at(1)))
    assert contact(task) == UsersContact(
        tenant="acme",
        location_id=LOCATION,
        contact_id="u1",
        first_name="Ada",
        phone=ADA,
        country="US",
        custom_fields={"f1": "a", "f2": "[1]"},
        tags=("vip",),
        assigned_to="x",
        created_at=at(1),
        updated_at=at(6),
    )


def test_a_body_under_data_is_the_same() -> None:
    """Some webhooks keep the event's own fields apart."""
    flat, nested = Task(), Task()
    flat.users(users_hook("ContactCreate", phone=ADA))
    head = {"type": "ContactCreate", "timestamp": at(6), "webhookId": "w1", "locationId": LOCATION}
    nested.users(orjson.dumps(head | {"data": {"id": "u1", "phone": ADA}}))
    assert contact(flat) == contact(nested)


def test_a_repeated_webhook_is_dropped() -> None:
    """Its id says that it came before, whatever it holds."""
    task = Task()
    task.users(users_hook("ContactCreate", phone=ADA))
    assert task.users(users_hook("ContactCreate", phone=BOB), received_at=at(12)).emit == ()


def test_a_tag_update_is_a_fact_and_state() -> None:
    """Its tags are the whole list."""
    task = Task()
    task.users(users_hook("ContactCreate", phone=ADA, tags=["vip", "old"]))
    task.users(users_hook("ContactTagUpdate", webhookId="w2", timestamp=at(7), tags=["vip"]))
    assert contact(task).tags == ("vip",)
    assert [(type(f).__name__, f.tags, f.occurred_at) for f in task.facts()] == [
        ("UsersContactTagsUpdated", ("vip",), at(7))
    ]


@pytest.mark.parametrize(
    ("fields", "silent"),
    [
        ({"dnd": True}, True),
        ({"dnd": False, "dndSettings": {"SMS": {"status": "permanent"}}}, True),
        ({"dnd": False, "dndSettings": {"SMS": {"status": "inactive"}}}, False),
        ({"dnd": False, "dndSettings": {"Email": {"status": "active"}}}, False),
        ({"dndSettings": None}, False),
    ],
)
def test_dnd_is_what_holds_for_sms(fields: dict[str, Any], silent: bool) -> None:
    """Silence on e-mail does not stop an SMS."""
    task = Task()
    task.users(users_hook("ContactDndUpdate", phone=ADA, **fields))
    assert (contact(task).dnd, task.facts()[0].dnd) == (silent, silent)


def test_a_webhook_without_dnd_settings_keeps_them() -> None:
    """A tag update says nothing of single channels."""
    task = Task()
    settings = {"SMS": {"status": "active"}}
    task.users(users_hook("ContactDndUpdate", phone=ADA, dnd=False, dndSettings=settings))
    task.users(users_hook("ContactTagUpdate", webhookId="w2", timestamp=at(7), dnd=False, tags=[]))
    assert contact(task).dnd is True


def test_a_listed_contact_without_a_time_counts_from_the_start_of_its_scan() -> None:
    """A webhook of before the scan is older, one of after is newer."""
    task = Task()
    task.users(users_hook("ContactUpdate", phone=ADA, firstName="Before"))
    task.users_poll("contacts", {"id": "u1", "firstName": "Listed"}, scan=at(8))
    task.users(users_hook("ContactUpdate", webhookId="w2", timestamp=at(7), firstName="Between"))
    assert contact(task).first_name == "Listed"


def test_a_deleted_contact_leaves_a_tombstone() -> None:
    """And a late update does not bring it back."""
    task = Task()
    task.users(users_hook("ContactCreate", phone=ADA))
    task.users(users_hook("ContactDelete", webhookId="w2"), received_at=at(8))
    late = users_hook("ContactUpdate", webhookId="w3", timestamp=at(7), phone=ADA)
    assert task.users(late, received_at=at(9)).emit == ()
    assert task.table("users.contacts") == {}


def test_a_changed_number_moves_the_contact() -> None:
    """The old row is deleted, the new one written, and both keys are told."""
    task = Task()
    task.users(users_hook("ContactCreate", phone=ADA))
    task.users(users_hook("ContactUpdate", webhookId="w2", timestamp=at(7), phone=BOB))
    assert list(task.table("users.contacts")) == [f"{BOB_KEY}|u1"]
    assert names(task.facts()) == ["UsersContactMoved", "UsersContactMoved"]


def test_messages_are_facts_under_the_contact_s_key() -> None:
    """They carry no number: the key is the stored one; one message is told once."""
    task = Task()
    task.users(users_hook("ContactCreate", phone=ADA))
    told = {"contactId": "u1", "messageId": "m1", "body": "hi", "messageType": "SMS", "dateAdded": at(5)}
    task.users(users_hook("InboundMessage", webhookId="w2", **told))
    task.users(users_hook("InboundMessage", webhookId="w3", **told))
    task.users(users_hook("OutboundMessage", webhookId="w4", **told | {"messageId": "m2"}))
    assert names(task.facts()) == ["UsersMessageReceived", "UsersMessageSent"]
    assert {emit.key for outcome in task.outcomes[1:] for emit in outcome.emit} == {ADA_KEY}
    assert (task.facts()[0].text, task.facts()[0].occurred_at) == ("hi", at(5))


def test_facts_before_the_number_is_known_are_told_to_have_moved() -> None:
    """A contact that was known by a message only moves from its native key."""
    task = Task()
    task.users(users_hook("InboundMessage", contactId="u1", messageId="m1"))
    task.users(users_hook("ContactCreate", webhookId="w2", phone=ADA))
    assert names(task.facts()) == ["UsersMessageReceived", "UsersContactMoved", "UsersContactMoved"]
    assert task.facts()[1].from_key == "acme:u:u1"


def test_another_type_passes_through() -> None:
    """What is not modelled is kept as it came."""
    task = Task()
    body = users_hook("OpportunityCreate")
    task.users(body, "acme:u:-:u1")
    assert [(type(f), f.event_type, f.body) for f in task.facts()] == [
        (UsersOther, "OpportunityCreate", body.decode())
    ]


def test_without_a_webhook_id_content_identifies() -> None:
    """The same body again is the same fact."""
    task = Task()
    for _ in range(2):
        task.users(users_hook("ContactTagUpdate", webhookId=None, phone=ADA, tags=["vip"]))
    assert names(task.facts()) == ["UsersContactTagsUpdated"]


def unverified(task: Task, body: bytes) -> None:
    """An unsigned webhook of a tenant that takes them."""
    task.users(body, "open:u:u1", tenant="open", account="location-9", verified=False)


def test_an_unsigned_webhook_changes_no_contact() -> None:
    """It passes, and keeps no signed one of its id away."""
    task = Task()
    body = users_hook("ContactDndUpdate", locationId="location-9", phone=ADA, dnd=True)
    unverified(task, body)
    assert (names(task.facts()), task.tables) == (["UsersOther"], {})
    task.users(body, "open:u:u1", tenant="open", account="location-9")
    assert names(task.facts()) == ["UsersOther", "UsersContactDndUpdated"]


def test_an_unsigned_webhook_is_refused_unless_the_tenant_takes_them() -> None:
    """The default is to refuse."""
    with pytest.raises(RecordError, match="signature"):
        Task().users(users_hook("ContactCreate", phone=ADA), verified=False)


@pytest.mark.parametrize(
    ("body", "reason", "field"),
    [
        (b"{", "unreadable", "body"),
        (b"[]", "invalid", "body"),
        (users_hook("ContactCreate", locationId="other"), "foreign-account", "locationId"),
        (users_hook("ContactCreate", timestamp="soon"), "invalid", "timestamp"),
        (users_hook("ContactCreate", id=None), "invalid", "id"),
        (users_hook("ContactCreate", tags="vip"), "invalid", "tags"),
        (users_hook("ContactCreate", tags=[1]), "invalid", "tags"),
        (users_hook("ContactCreate", dnd="sometimes"), "invalid", "dnd"),
        (users_hook("ContactTagUpdate"), "invalid", "tags"),
        (users_hook("InboundMessage", id="x"), "invalid", "contactId"),
        (b'{"locationId":"location-1"}', "invalid", "type"),
    ],
)
def test_bad_webhooks_are_refused_by_field(body: bytes, reason: str, field: str) -> None:
    """Each error names its field."""
    with pytest.raises(RecordError, match=field) as caught:
        Task().users(body)
    assert caught.value.reason == reason
