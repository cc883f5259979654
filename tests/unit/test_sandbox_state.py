"""The sandbox's state: what a mutation changes, and which webhooks it returns."""

from datetime import UTC, datetime, timedelta

import pytest

from pipeline.sandbox.sakari_state import SakariAccount
from pipeline.sandbox.state import Missing, SandboxState
from pipeline.sandbox.users_state import UsersLocation

AT = datetime(2030, 1, 1, 12, tzinfo=UTC)
LATER = AT + timedelta(minutes=5)
MOBILE = {"number": "202-555-0101", "country": "US"}


@pytest.fixture
def account() -> SakariAccount:
    """A Sakari account."""
    return SandboxState(seed=1).sakari.add_account(name="acme")


@pytest.fixture
def location() -> UsersLocation:
    """A Users API location."""
    return SandboxState(seed=1).users.add_location("Main street")


def test_the_same_seed_gives_the_same_ids() -> None:
    """Two states of one seed that see the same calls hold the same ids; another seed does not."""
    first, same, other = (
        SandboxState(seed=seed).sakari.add_account(name="acme").put_contact({}, at=AT).id
        for seed in (1, 1, 2)
    )
    assert first == same != other


def test_a_contact_is_created_then_updated(account: SakariAccount) -> None:
    """created.at stays, updated.at follows, and each change says which it was."""
    created = account.put_contact({"firstName": "Ada", "mobile": MOBILE}, at=AT)
    updated = account.put_contact({"lastName": "Example"}, at=LATER, contact_id=created.id)
    assert [change.hooks[0].kind for change in (created, updated)] == ["contact-created", "contact-updated"]
    assert updated.value["created"]["at"] == "2030-01-01T12:00:00.000Z"
    assert updated.value["updated"]["at"] == "2030-01-01T12:05:00.000Z"
    assert updated.value["firstName"] == "Ada"


def test_what_was_returned_never_changes(account: SakariAccount) -> None:
    """A webhook's body stays as it was when later mutations follow."""
    created = account.put_contact({"firstName": "Ada"}, at=AT)
    before = created.hooks[0].encoded()
    account.put_contact({"firstName": "Eve"}, at=LATER, contact_id=created.id)
    account.set_opt(created.id, out=True, at=LATER)
    assert created.hooks[0].encoded() == before


def test_a_first_message_starts_a_conversation(account: SakariAccount) -> None:
    """The first message starts a conversation, the second joins it, one after closing starts another."""
    contact = account.put_contact({"mobile": MOBILE}, at=AT).id
    first = account.add_message(contact_id=contact, outgoing=True, text="1", at=AT)
    second = account.add_message(contact_id=contact, outgoing=False, text="2", at=LATER)
    account.close_conversation(first.value["conversation"]["id"], at=LATER)
    third = account.add_message(contact_id=contact, outgoing=False, text="3", at=LATER)
    assert [hook.kind for hook in first.hooks] == ["conversation-started", "message-sent"]
    assert [hook.kind for hook in second.hooks] == ["message-received"]
    assert third.value["conversation"] != second.value["conversation"] == first.value["conversation"]


@pytest.mark.parametrize(
    ("text", "kind", "out"), [(" stop ", "contact-opt-out", True), ("START", "contact-opt-in", False)]
)
def test_an_opt_word_alone_opts(account: SakariAccount, text: str, kind: str, out: bool) -> None:
    """STOP and its like block, START and its like bring back; both say so after the message."""
    contact = account.put_contact({"mobile": MOBILE}, at=AT).id
    account.set_opt(contact, out=not out, at=AT)
    change = account.add_message(contact_id=contact, outgoing=False, text=text, at=LATER)
    assert [hook.kind for hook in change.hooks][-2:] == ["message-received", kind]
    assert account.is_opted_out(contact) is out


def test_an_opt_word_within_a_sentence_does_nothing(account: SakariAccount) -> None:
    """Only a word alone in the message counts."""
    contact = account.put_contact({"mobile": MOBILE}, at=AT).id
    account.add_message(contact_id=contact, outgoing=False, text="please stop", at=LATER)
    assert not account.is_opted_out(contact)


def test_opt_payloads_can_lack_a_time(account: SakariAccount) -> None:
    """With opt_times off, created and updated are not told, though they are kept."""
    account.opt_times = False
    contact = account.put_contact({"mobile": MOBILE}, at=AT).id
    change = account.set_opt(contact, out=True, at=LATER)
    assert not {"created", "updated"} & set(change.hooks[0].body["payload"])
    assert change.value["updated"]["at"] == "2030-01-01T12:05:00.000Z"


def test_a_webhook_can_have_the_documents_shape(account: SakariAccount) -> None:
    """An account may send Event{eventId, type, accountId, data} as the vendor's document describes it."""
    account.webhook_shape = "document"
    body = account.put_contact({"mobile": MOBILE}, at=AT).hooks[0].body
    assert set(body) == {"eventId", "type", "accountId", "data"}
    assert body["type"] == "contact-created"


def test_a_webhook_can_be_stamped_anew(location: UsersLocation) -> None:
    """The Users API's timestamp is when it is sent; what happened keeps its own time."""
    hook = location.put_contact({"firstName": "Ada"}, at=AT).hooks[0]
    stamped = hook.stamped(LATER)
    assert stamped.body["timestamp"] == "2030-01-01T12:05:00.000Z"
    assert stamped.body["dateAdded"] == hook.body["timestamp"] == "2030-01-01T12:00:00.000Z"


def test_a_removed_contact_is_missing(account: SakariAccount) -> None:
    """A removal sends the contact as it was; afterwards it is found by neither id nor mobile."""
    contact = account.put_contact({"mobile": MOBILE}, at=AT).id
    change = account.remove_contact(contact, at=LATER)
    assert change.hooks[0].body["payload"]["id"] == contact
    assert account.contact_with_mobile("(202) 555 0101") is None
    with pytest.raises(Missing):
        account.contact(contact)


def test_a_moved_number_is_found_at_its_new_owner(account: SakariAccount) -> None:
    """After a phone change, the old number finds nobody and the new one the contact."""
    contact = account.put_contact({"mobile": MOBILE}, at=AT).id
    account.put_contact({"mobile": {"number": "202-555-0102", "country": "US"}}, at=LATER, contact_id=contact)
    found = account.contact_with_mobile("202-555-0102")
    assert account.contact_with_mobile("202-555-0101") is None
    assert found is not None
    assert found["id"] == contact


def test_rest_tells_no_job_but_the_webhook_does(account: SakariAccount) -> None:
    """A message's job and campaign stand in the webhook's payload, not in the REST item (FACTS §1)."""
    contact = account.put_contact({"mobile": MOBILE}, at=AT).id
    job = {"id": "j1", "campaign": {"id": "c1"}}
    change = account.add_message(contact_id=contact, outgoing=True, text="Hi", at=AT, job=job)
    assert change.hooks[-1].body["payload"]["job"] == job
    assert "job" not in account.message_item(change.value)


def test_an_update_of_tags_and_dnd_says_each(location: UsersLocation) -> None:
    """An update that changes tags and do-not-disturb sends three webhooks, one that does not sends one."""
    contact = location.put_contact({"firstName": "Ada"}, at=AT).id
    change = location.put_contact({"tags": ["vip"], "dnd": True}, at=LATER, contact_id=contact)
    again = location.put_contact({"tags": ["vip"]}, at=LATER, contact_id=contact)
    assert [hook.kind for hook in change.hooks] == ["ContactUpdate", "ContactTagUpdate", "ContactDndUpdate"]
    assert [hook.kind for hook in again.hooks] == ["ContactUpdate"]


def test_each_webhook_of_the_users_api_has_its_own_id(location: UsersLocation) -> None:
    """No two webhooks of one change share their webhookId."""
    contact = location.put_contact({"firstName": "Ada"}, at=AT).id
    change = location.put_contact({"tags": ["vip"], "dnd": True}, at=LATER, contact_id=contact)
    assert len({hook.body["webhookId"] for hook in change.hooks}) == 3


def test_a_new_tag_joins_the_locations_catalogue(location: UsersLocation) -> None:
    """A contact's tag that the catalogue lacks is added to it once."""
    for _ in range(2):
        location.put_contact({"tags": ["vip"]}, at=AT)
    assert [tag["name"] for tag in location.catalogue.values()] == ["vip"]


@pytest.mark.parametrize("absent", [True, False])
def test_a_removed_location_tag_is_deleted_or_absent(location: UsersLocation, absent: bool) -> None:
    """A social-planner tag goes either way: still listed as deleted, or nowhere."""
    tag = location.put_location_tag("vip", at=AT, colour="#fff").id
    location.remove_location_tag(tag, at=LATER, absent=absent)
    assert (tag in location.tags) is not absent
    assert absent or location.tags[tag]["deleted"] is True


def test_only_details_carry_colour_and_description(location: UsersLocation) -> None:
    """Colour and description stand in the tag's details, survive a rename, and are not in the list."""
    tag = location.put_location_tag("vip", at=AT, colour="#fff", description="d").id
    location.put_location_tag("VIP", at=LATER, tag_id=tag)
    detail = location.tag_details(tag)
    assert detail is not None
    assert (detail["tag"], detail["color"], detail["description"]) == ("VIP", "#fff", "d")
    assert "color" not in location.tags[tag]


def test_a_repeated_submission_replaces(location: UsersLocation) -> None:
    """A statisticsId holds the newest body, and knows how often it came."""
    for count in (1, 2):
        location.submit_statistics({"statisticsId": "s", "metrics": {"sent": count}}, at=AT)
    assert location.submissions["s"].body["metrics"] == {"sent": 2}
    assert location.submissions["s"].times == 2


def test_custom_fields_are_set_by_id_or_key(location: UsersLocation) -> None:
    """A field named by its key and one named by its id are the same field."""
    contact = location.put_contact({}, at=AT).id
    field = location.put_custom_field({"name": "Engagement Score"}).id
    location.set_custom_fields(contact, [{"key": "engagement_score", "field_value": "1"}], at=AT)
    change = location.set_custom_fields(contact, [{"id": field, "value": "2"}], at=LATER)
    assert change.value["customFields"] == [{"id": field, "value": "2"}]
