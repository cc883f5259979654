"""What the sandboxes send, against the vendors' event schemas and examples."""

import json
from pathlib import Path
from typing import Any

from pipeline.sandbox.sakari_state import SakariAccount
from pipeline.sandbox.state import Hook, SandboxState
from tests.contract.sandbox_world import AT
from tests.contract.vendor_docs import plain

Json = dict[str, Any]
#: beside the event's fields (FACTS §2); the schemas name only some of them
HEAD = {"type", "timestamp", "webhookId", "appId", "versionId", "locationId"}
TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "boolean": bool,
    "array": list,
    "object": dict,
    "number": (int, float),
}


def users_hooks() -> list[Hook]:
    """One webhook of each kind that the Users API's sandbox sends."""
    location = SandboxState().users.add_location("Main street")
    contact = location.put_contact({"firstName": "Ada", "phone": "+12025550101"}, at=AT)
    changes = [
        contact,
        location.put_contact({"lastName": "Example"}, at=AT, contact_id=contact.id),
        location.set_contact_tags(contact.id, ["vip"], at=AT),
        location.set_dnd(contact.id, dnd=True, at=AT),
        location.add_message(contact.id, inbound=True, text="Hi", at=AT),
        location.add_message(contact.id, inbound=False, text="Hi", at=AT),
        location.remove_contact(contact.id, at=AT),
    ]
    return [hook for change in changes for hook in change.hooks]


def received(account: SakariAccount) -> Json:
    """The body of a message-received webhook from a contact with all fields, in a closed conversation."""
    mobile = {"number": "+12025550101", "country": "US"}
    fields = {"firstName": "Ada", "lastName": "Example", "email": "ada@example.com", "mobile": mobile}
    contact = account.put_contact(fields, at=AT)
    first = account.add_message(contact_id=contact.id, outgoing=False, text="Hi", at=AT)
    conversation = account.close_conversation(first.value["conversation"]["id"], at=AT)
    again = account.add_message(
        contact_id=contact.id,
        outgoing=False,
        text="Hi",
        at=AT,
        conversation_id=conversation.id,
        job={"id": "5c112b3a4ee4e0605ae80001"},
    )
    return dict(again.hooks[-1].body)


def shape(value: Any) -> Any:
    """*value* with every leaf replaced by the name of its type."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value[:1]]
    return (
        "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__
    )


def beyond(known: Any, given: Any, path: str = "") -> list[str]:
    """The paths of *known* that *given* lacks or has with another type."""
    if not isinstance(known, dict):
        return [] if known == given or isinstance(known, list) else [path]
    if not isinstance(given, dict):
        return [path]
    return [each for name in known for each in beyond(known[name], given.get(name), f"{path}.{name}")]


def test_users_webhooks_are_as_the_vendors_schemas(vendor_docs: Path) -> None:
    """Each kind sent is in the vendor's event schemas, with no unknown field and every type right."""
    schemas = json.loads((vendor_docs / "users-api" / "webhook-event-schemas.json").read_text())
    for hook in users_hooks():
        properties = plain(schemas[hook.kind], closed=True)["properties"]
        assert set(hook.body) - HEAD <= set(properties), hook.kind
        assert set(hook.body) >= HEAD
        for name in set(hook.body) & set(properties):
            assert isinstance(hook.body[name], TYPES[properties[name]["type"]]), (hook.kind, name)


def test_a_tag_update_has_the_examples_fields(vendor_docs: Path) -> None:
    """ContactTagUpdate carries what the vendor's example carries, except what this contact has not."""
    example = json.loads(
        (vendor_docs / "examples" / "highlevel-webhook-ContactTagUpdate.example.json").read_text()
    )
    body = next(hook.body for hook in users_hooks() if hook.kind == "ContactTagUpdate")
    assert beyond(shape(example), shape(body)) == [".email", ".country", ".assignedTo"]


def test_a_received_message_has_the_examples_fields(vendor_docs: Path) -> None:
    """Every path of the wire's message-received example is in what the sandbox sends, with its type."""
    example = json.loads(
        (vendor_docs / "examples" / "sakari-webhook-message-received.example.json").read_text()
    )
    body = received(SandboxState().sakari.add_account(name="acme"))
    missing = beyond(shape(example), shape(body))
    assert [path for path in missing if not path.endswith(".by.email")] == []
