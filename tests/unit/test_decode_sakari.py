"""Decode's facts of Sakari: messages, conversations, and what is not known."""

import orjson
import pytest

from pipeline.events import MessageReceived, SakariOther
from pipeline.identity import fact_id
from tests.unit.decode_records import (
    ACCOUNT,
    ADA_KEY,
    BOB,
    IDENTITY,
    NOON,
    Task,
    at,
    hook,
    moment,
    names,
    refusal,
    sakari_contact,
    sakari_message,
)


def test_a_delivered_message_implies_three_facts() -> None:
    """Sent at created.at; its status and price at updated.at; each under its semantic id."""
    outcome = Task().take(hook("message-status", sakari_message()))
    told = [(emit.id, emit.key, emit.occurred_at) for emit in outcome.emit]
    kinds = (("sent", at(10)), ("status:delivered", at(10, 1)), ("priced:1:0.0079", at(10, 1)))
    assert told == [
        (fact_id("sakari", ACCOUNT, "message", "m1", kind), ADA_KEY, time) for kind, time in kinds
    ]


def test_an_inbound_message_implies_that_it_was_received() -> None:
    """Nothing is said of the status or price of what a contact wrote."""
    task = Task()
    task.take(hook("message-received", sakari_message(outgoing=False, status="received")))
    assert names(task.facts()) == ["MessageReceived"]
    assert task.facts()[0].occurred_at == at(10)


def test_poll_and_webhook_imply_the_same_facts() -> None:
    """A polled message adds nothing to its webhook."""
    task = Task()
    task.take(hook("message-sent", sakari_message()))
    item = sakari_message(phoneNumber="+12025550100", price="0.00790")
    assert task.poll("messages", item).emit == ()


def test_a_later_status_adds_only_what_is_new() -> None:
    """A receipt of a message that is known tells its new status."""
    task = Task()
    task.take(hook("message-sent", sakari_message(status="queued", price=None)))
    task.take(hook("message-status", sakari_message(status="DELIVERED", updated=moment(at(10, 2)))))
    assert names(task.facts()) == [
        "MessageSent",
        "MessageStatusChanged",
        "MessageStatusChanged",
        "MessagePriced",
    ]
    assert task.facts()[2].status == "delivered"


def test_a_message_carries_what_its_record_told() -> None:
    """Job, campaign, template, group and our own number reach the fact; the number as its hash."""
    number = {"id": "n1", "number": "+12025550100", "country": "US"}
    given = sakari_message(
        job={"id": "j1", "campaign": {"id": "k1"}},
        template="t1",
        group={"id": "g1", "name": "Default"},
        conversation={"id": "v1", "phoneNumber": number},
        media=[{"url": "x"}, {}],
    )
    task = Task()
    task.take(hook("message-sent", given))
    told = task.facts()[0].message
    assert (told.job_id, told.campaign_id, told.template_id, told.group_id) == ("j1", "k1", "t1", "g1")
    assert (told.conversation_id, told.media, told.source) == ("v1", 2, "api")
    assert told.number == IDENTITY.number("acme", "+12025550100")


@pytest.mark.parametrize(
    "fields", [{"job": {"id": "j", "campaignId": "k1"}}, {"campaign": {"id": "k1"}}, {"campaign": "k1"}]
)
def test_a_campaign_is_found_wherever_it_stands(fields: dict[str, object]) -> None:
    """The wire has no fixed place for the campaign."""
    task = Task()
    task.take(hook("message-sent", sakari_message(**fields)))
    assert task.facts()[0].message.campaign_id == "k1"


@pytest.mark.parametrize("phone", ["+12025550100", {"number": "202-555-0100", "country": "US"}])
def test_our_number_is_the_same_in_every_shape(phone: object) -> None:
    """REST gives text or an object, in national or international form."""
    task = Task()
    task.poll("messages", sakari_message(phoneNumber=phone))
    assert task.facts()[0].message.number == IDENTITY.number("acme", "+12025550100")


def test_the_document_s_shape_is_taken() -> None:
    """``{eventId,type,accountId,data}`` with a stale type is the same message."""
    body = {"eventId": "e1", "type": "messageStatus", "accountId": ACCOUNT, "data": sakari_message()}
    task = Task()
    task.take(orjson.dumps(body))
    task.take(hook("message-status", sakari_message()))
    assert len(task.facts()) == 3


def test_the_document_s_bare_payload_tells_its_status_once() -> None:
    """Without id and created.at the event's id identifies, and nothing is said to have been sent."""
    data = {"contact": {"id": "c1"}, "message": "hello", "status": "delivered"}
    body = orjson.dumps({"eventId": "e1", "type": "messageStatus", "accountId": ACCOUNT, "data": data})
    task = Task()
    task.take(body)
    task.take(body)
    assert names(task.facts()) == ["MessageStatusChanged"]
    assert (task.facts()[0].message.id, task.facts()[0].occurred_at) == ("e1", NOON)


def test_a_stale_incoming_message_is_received() -> None:
    """``messageIncoming`` says the direction where the payload doesn't."""
    data = {"contact": {"id": "c1"}, "message": "hi"}
    task = Task()
    task.take(orjson.dumps({"eventId": "e", "type": "messageIncoming", "accountId": ACCOUNT, "data": data}))
    assert isinstance(task.facts()[0], MessageReceived)


def test_a_message_without_contact_keeps_its_native_key() -> None:
    """What belongs to nobody stands under its own key."""
    outcome = Task().take(hook("message-sent", sakari_message(contact=None)), "acme:s:-:m1")
    assert {emit.key for emit in outcome.emit} == {"acme:s:-:m1"}


def test_the_stored_key_wins_over_the_payload_s_number() -> None:
    """A message moves no contact, whatever number it carries."""
    task = Task()
    task.take(hook("contact-created", sakari_contact()))
    other = sakari_message(contact={"id": "c1", "mobile": {"number": BOB, "country": "US"}})
    assert task.take(hook("message-sent", other)).emit[0].key == ADA_KEY


def test_an_unknown_number_gives_way_to_the_first_known() -> None:
    """Facts under the native key are told to have moved once a message brings the number."""
    task = Task()
    task.take(hook("message-sent", sakari_message(contact={"id": "c1"}, status="")))
    task.take(hook("message-sent", sakari_message(id="m2", status="", price=None)))
    assert names(task.facts()) == [
        "MessageSent",
        "MessagePriced",
        "ContactMoved",
        "ContactMoved",
        "MessageSent",
    ]
    assert (task.facts()[2].from_key, task.facts()[2].to_key) == ("acme:s:c1", ADA_KEY)


def test_an_error_is_told_with_the_status() -> None:
    """Code and description of a failed message reach its status."""
    failure = {"code": "MSG-001", "description": "unreachable"}
    task = Task()
    task.take(hook("message-status", sakari_message(status="error", error=failure)))
    assert (task.facts()[1].error_code, task.facts()[1].error) == ("MSG-001", "unreachable")


def test_a_conversation_starts_and_closes_once() -> None:
    """Webhooks and polls of one conversation imply one start and one end."""
    given = {"id": "v1", "contact": {"id": "c1"}, "created": moment(at(8))}
    closed = given | {"closed": at(9), "updated": moment(at(9, 1))}
    task = Task()
    task.take(hook("conversation-started", given))
    task.take(hook("conversation-closed", closed))
    task.poll("conversations", closed)
    assert [(type(f).__name__, f.occurred_at) for f in task.facts()] == [
        ("ConversationStarted", at(8)),
        ("ConversationClosed", at(9)),
    ]


@pytest.mark.parametrize("closed", [True, "true"])
def test_a_conversation_that_is_merely_closed_is_so_since_its_update(closed: object) -> None:
    """The document's boolean has no time of its own."""
    given = {"id": "v1", "contact": {"id": "c1"}, "closed": closed, "updated": moment(at(9))}
    task = Task()
    task.poll("conversations", given)
    assert [(type(f).__name__, f.occurred_at) for f in task.facts()] == [("ConversationClosed", at(9))]


@pytest.mark.parametrize(("kind", "told"), [("quota-reached", "quota-reached"), ("account", "balance")])
def test_an_unknown_type_passes_through_once(kind: str, told: str) -> None:
    """What no one here knows is kept as it came; stale names are replaced."""
    task = Task()
    body = hook(kind, {"balance": 10})
    task.take(body, "acme:s:-:x")
    task.take(body, "acme:s:-:x")
    assert [(type(f), f.event_type, f.body) for f in task.facts()] == [(SakariOther, told, body.decode())]


def test_a_message_that_is_no_longer_listed_takes_back_nothing() -> None:
    """Facts stay true when their record goes."""
    assert Task().poll("messages", sakari_message(), change="removed").emit == ()


@pytest.mark.parametrize(
    ("body", "reason", "field"),
    [
        (b"not json", "unreadable", "body"),
        (hook("message-sent", [1]), "invalid", "payload"),
        (hook("message-sent", None), "invalid", "payload"),
        (hook("message-sent", sakari_message(id=None)), "invalid", "payload.id"),
        (hook("message-sent", sakari_message(id={})), "invalid", "payload.id"),
        (hook("message-sent", sakari_message(created=None)), "invalid", "payload.created.at"),
        (hook("message-sent", sakari_message(created={"at": "soon"})), "invalid", "payload.created.at"),
        (hook("message-sent", sakari_message(outgoing="?")), "invalid", "payload.outgoing"),
        (hook("message-sent", sakari_message(segments=[])), "invalid", "payload.segments"),
        (hook("message-sent", sakari_message(price={})), "invalid", "payload.price"),
        (hook("message-sent", sakari_message(contact={"id": 7})), "invalid", "payload.contact.id"),
        (hook("contact-updated", {}), "invalid", "payload.id"),
        (hook("", sakari_message()), "invalid", "eventType"),
        (hook("message-sent", sakari_message(), accountId="other"), "foreign-account", "accountId"),
        (hook("message-sent", sakari_message(), accountId=[]), "invalid", "accountId"),
    ],
)
def test_bad_webhooks_are_refused_by_field(body: bytes, reason: str, field: str) -> None:
    """Each error names its field, and nothing of the contact."""
    told, text = refusal(Task(), body)
    assert told == reason
    assert field in text
    assert "2025550" not in text
    assert "hello" not in text


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"tenant": "-"}, "unknown-tenant"),
        ({"tenant": "open"}, "wrong-key"),
        ({"key": "acme:s:c2"}, "wrong-key"),
        ({"product": "nobody"}, "unknown-source"),
        ({"resource": "pigeons"}, "unknown-resource"),
        ({"resource": "messages", "account": "other"}, "foreign-account"),
    ],
)
def test_records_that_stand_wrong_are_refused(headers: dict[str, str], reason: str) -> None:
    """Tenant, key, product, resource and account must fit."""
    assert refusal(Task(), hook("message-sent", sakari_message()), **headers)[0] == reason
