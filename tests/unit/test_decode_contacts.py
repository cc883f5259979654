"""Decode's state of Sakari's contacts: whose record wins, number changes, removals, opt changes."""

from typing import Any

import pytest

from pipeline.events import SakariContact, SakariTag, UsersContact
from pipeline.stages.decode.stores import CONTACTS
from tests.unit.decode_records import (
    ACCOUNT,
    ADA,
    ADA_KEY,
    BOB,
    BOB_KEY,
    Task,
    at,
    hook,
    moment,
    names,
    sakari_contact,
    sakari_message,
    users_hook,
)

ADA_ROW = f"{ADA_KEY}|c1"
BOB_MOBILE = {"number": BOB, "country": "US"}


def contact(task: Task, key: str = ADA_ROW) -> SakariContact:
    """The contact's row in its table."""
    row = task.table("sakari.contacts")[key]
    assert isinstance(row, SakariContact)
    return row


def test_a_contact_is_written_as_typed_state() -> None:
    """Numbers become E.164, tags and attributes keep their names."""
    task = Task()
    given = sakari_contact(mobile={"number": "202-555-0101", "country": "US"}, attributes={"n": 1, "s": "x"})
    task.take(hook("contact-created", given))
    assert contact(task) == SakariContact(
        tenant="acme",
        account_id=ACCOUNT,
        contact_id="c1",
        first_name="Ada",
        mobile=ADA,
        country="US",
        attributes={"n": "1", "s": "x"},
        tags=(SakariTag("vip"),),
        created_at=at(1),
        updated_at=at(5),
    )


def test_an_equal_contact_is_a_duplicate() -> None:
    """The same content from the other source emits nothing."""
    task = Task()
    task.take(hook("contact-created", sakari_contact()))
    assert task.poll("contacts", sakari_contact()).emit == ()


def test_state_reads_the_same_in_every_process() -> None:
    """Fields stand in the order of the types, not in one that the process hashes them to."""
    task = Task()
    task.take(hook("contact-created", {"id": "c1"}))
    task.users(users_hook("ContactCreate"))
    sakari = task.layers.get(CONTACTS, "acme:s:c1")
    users = task.layers.get(CONTACTS, "acme:u:u1")
    assert sakari is not None
    assert users is not None
    for state, order in (
        (sakari, SakariContact.__struct_fields__),
        (users, (*UsersContact.__struct_fields__, "dnd_all", "dnd_sms")),
    ):
        older = list(state.registers.older)
        assert older == sorted(older, key=order.index)
        assert len(older) > 5


def test_an_older_contact_loses() -> None:
    """What was true earlier changes nothing, however late it comes."""
    task = Task()
    task.take(hook("contact-updated", sakari_contact()))
    older = sakari_contact(firstName="Adele", updated=moment(at(4)))
    assert task.take(hook("contact-updated", older), received_at=at(11)).emit == ()


def test_a_field_that_a_record_lacks_is_kept() -> None:
    """A webhook without tags takes none away, whichever of the records comes first."""
    partial = {"id": "c1", "firstName": "Adele", "updated": moment(at(6))}
    rows = []
    for bodies in ((sakari_contact(), partial), (partial, sakari_contact())):
        task = Task()
        for number, body in enumerate(bodies):
            task.take(hook("contact-updated", body), received_at=at(10, number))
        rows.append(contact(task))
    assert rows[0] == rows[1]
    assert (rows[0].first_name, rows[0].tags) == ("Adele", (SakariTag("vip"),))


def test_without_a_time_the_later_arrival_wins() -> None:
    """Where the payload has no time, webhooks are ordered by their arrival."""
    task = Task()
    for name, hour in (("Late", 3), ("Early", 1)):
        task.take(
            hook("contact-updated", {"id": "c1", "firstName": name, "mobile": ADA}), received_at=at(10, hour)
        )
    assert contact(task).first_name == "Late"


def test_without_a_time_a_poll_counts_from_the_start_of_its_scan() -> None:
    """A webhook that arrived while the scan was on its way is newer."""
    task = Task()
    task.take(hook("contact-updated", {"id": "c1", "firstName": "New", "mobile": ADA}), received_at=at(9, 1))
    item = {"id": "c1", "firstName": "Old", "mobile": ADA}
    task.poll("contacts", item, scan=at(9), received_at=at(9, 2))
    assert contact(task).first_name == "New"


def test_a_changed_number_moves_the_contact() -> None:
    """The old row is deleted, the new one written, and both keys are told."""
    task = Task()
    task.take(hook("contact-created", sakari_contact()))
    moved = sakari_contact(mobile=BOB_MOBILE, updated=moment(at(6)))
    outcome = task.take(hook("contact-updated", moved))
    assert [(e.topic, e.key, e.value is None) for e in outcome.emit] == [
        ("sakari.contacts", ADA_ROW, True),
        ("sakari.events", ADA_KEY, False),
        ("sakari.events", BOB_KEY, False),
        ("sakari.contacts", f"{BOB_KEY}|c1", False),
    ]
    assert len(set(task.fact_ids())) == 2


def test_messages_follow_a_moved_contact() -> None:
    """After a move facts stand under the new key, whatever number their payload carries."""
    task = Task()
    task.take(hook("contact-created", sakari_contact()))
    task.take(hook("contact-updated", sakari_contact(mobile=BOB_MOBILE, updated=moment(at(6)))))
    assert {e.key for e in task.take(hook("message-sent", sakari_message())).emit} == {BOB_KEY}


def test_a_contact_without_a_valid_number_has_its_native_key() -> None:
    """A number that does not exist joins nobody."""
    task = Task()
    task.take(hook("contact-created", sakari_contact(mobile={"number": "12", "country": "US"})))
    assert contact(task, "acme:s:c1|c1").mobile is None


def test_a_record_that_does_not_tell_the_number_keeps_the_key() -> None:
    """A contact that a message made known by its number is not moved by silence."""
    task = Task()
    task.take(hook("message-sent", sakari_message()))
    task.take(hook("contact-updated", {"id": "c1", "firstName": "Ada"}))
    assert list(task.table("sakari.contacts")) == [ADA_ROW]


def test_the_native_id_is_escaped_in_the_row_s_key() -> None:
    """A native id cannot forge the separator."""
    task = Task()
    task.take(hook("contact-created", sakari_contact(id="c|1")), "acme:s:c|1")
    assert list(task.table("sakari.contacts")) == [f"{ADA_KEY}|c%7C1"]


def test_a_removed_contact_leaves_a_tombstone() -> None:
    """The row goes, once."""
    task = Task()
    task.take(hook("contact-created", sakari_contact()))
    for hour in (1, 2):
        task.take(hook("contact-removed", sakari_contact()), received_at=at(10, hour))
    assert task.table("sakari.contacts") == {}
    assert [len(outcome.emit) for outcome in task.outcomes] == [1, 1, 0]


def test_a_late_update_does_not_bring_a_removed_contact_back() -> None:
    """What was true before the removal is of no use after it, even if the removal came first."""
    task = Task()
    task.take(hook("contact-removed", sakari_contact()), received_at=at(10))
    assert task.take(hook("contact-updated", sakari_contact()), received_at=at(11)).emit == ()


def test_a_contact_that_a_later_scan_lists_is_back() -> None:
    """A removal was wrong if the contact stands in a scan that began after it."""
    task = Task()
    task.take(hook("contact-created", sakari_contact()))
    task.poll("contacts", sakari_contact(), change="removed", scan=at(9), received_at=at(9, 1))
    task.poll("contacts", sakari_contact(), scan=at(10), received_at=at(10, 1))
    assert contact(task).first_name == "Ada"


@pytest.mark.parametrize(("updated", "rows"), [(at(9, 1), 1), (at(8, 23), 0)])
def test_a_polled_removal_loses_to_newer_state(updated: str, rows: int) -> None:
    """What changed after the scan began was there after it."""
    task = Task()
    task.take(hook("contact-updated", sakari_contact(updated=moment(updated))), received_at=at(9, 2))
    task.poll("contacts", sakari_contact(), change="removed", scan=at(9), received_at=at(9, 3))
    assert len(task.table("sakari.contacts")) == rows


def opt(task: Task, word: str, time: str | None, received_at: str = at(10), **fields: Any) -> None:
    """An opt webhook, with or without a time."""
    payload = sakari_contact(updated=moment(time) if time else None, **fields)
    task.take(hook(f"contact-opt-{word}", payload), received_at=received_at)


def test_an_opt_out_is_a_fact_and_state() -> None:
    """It stands on the events and in the contact's row, as of its own time."""
    task = Task()
    task.take(hook("contact-created", sakari_contact()))
    opt(task, "out", at(6))
    assert names(task.facts()) == ["ContactOptedOut"]
    assert task.facts()[0].occurred_at == at(6)
    assert (contact(task).opted_out, contact(task).opted_changed_at) == (True, at(6))


def test_the_latest_opt_change_wins() -> None:
    """Both are told, and the state is that of the later one, whichever arrived first."""
    task = Task()
    opt(task, "in", at(7))
    opt(task, "out", at(6), at(11))
    assert names(task.facts()) == ["ContactOptedIn", "ContactOptedOut"]
    assert contact(task).opted_out is False


def test_an_opt_change_without_a_time_counts_if_it_changes_something() -> None:
    """Of out, out, in, in two are facts, as of their arrival."""
    task = Task()
    for hour, word in enumerate(("out", "out", "in", "in")):
        opt(task, word, None, at(10, hour))
    assert [(type(f).__name__, f.occurred_at) for f in task.facts()] == [
        ("ContactOptedOut", at(10)),
        ("ContactOptedIn", at(10, 2)),
    ]


def test_an_opt_in_without_a_time_of_a_new_contact_counts_nothing() -> None:
    """Who was never out does not come back in."""
    assert Task().take(hook("contact-opt-in", {"id": "c1"})).emit == ()


def test_an_opt_payload_outdates_no_contact() -> None:
    """A contact record wins over what an opt payload tells beside the point."""
    task = Task()
    task.take(hook("contact-created", sakari_contact()))
    opt(task, "out", None, at(11), firstName="Old", email="ada@example.com")
    assert (contact(task).first_name, contact(task).email) == ("Ada", "ada@example.com")


def test_a_polled_contact_keeps_the_opt_state() -> None:
    """REST does not tell it, so it is kept."""
    task = Task()
    opt(task, "out", at(6))
    task.poll("contacts", sakari_contact(firstName="Adele", updated=moment(at(7))))
    assert (contact(task).first_name, contact(task).opted_out) == ("Adele", True)


def test_an_opt_change_does_not_bring_a_removed_contact_back() -> None:
    """The fact is told, the row stays away."""
    task = Task()
    task.take(hook("contact-removed", sakari_contact()))
    opt(task, "out", at(6))
    assert (names(task.facts()), task.table("sakari.contacts")) == (["ContactOptedOut"], {})


def test_the_contact_may_stand_inside_an_opt_payload() -> None:
    """The payload's shape is not documented: the contact, or an object that holds it."""
    task = Task()
    task.take(hook("contact-opt-out", {"contact": {"id": "c1", "mobile": ADA}, "updated": moment(at(6))}))
    assert (contact(task).opted_out, task.facts()[0].occurred_at) == (True, at(6))


@pytest.mark.parametrize("listed", [{"list": {"id": "l1"}}, {"list": "l1"}, {"listId": "l1"}])
def test_leaving_a_list_is_a_fact_only(listed: dict[str, Any]) -> None:
    """One list is not everything: the contact's opt state stays."""
    task = Task()
    task.take(hook("contact-created", sakari_contact()))
    task.take(hook("list-opt-out", {"contact": {"id": "c1"}, **listed}))
    task.take(hook("list-opt-in", {"contact": {"id": "c1"}, **listed}))
    assert [(type(f).__name__, f.list_id) for f in task.facts()] == [
        ("ListOptedOut", "l1"),
        ("ListOptedIn", "l1"),
    ]
    assert contact(task).opted_out is False
