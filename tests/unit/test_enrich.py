"""The enrich stage, called directly: contacts and facts."""

from typing import Any

import pytest

from pipeline.errors import RecordError
from pipeline.events import (
    Activity,
    ContactMoved,
    ConversationStarted,
    EnrichedContact,
    LocationTag,
    SakariContact,
    SakariTag,
    UsersContact,
)
from pipeline.instants import Time
from pipeline.runtime.state import Layers, Memory
from pipeline.stage import NOTHING, Event, Outcome
from pipeline.stages import enrich

ANN = "acme:m:0a"
EARLY, LATE = Time("2030-01-01T00:00:00.000Z"), Time("2030-01-02T00:00:00.000Z")
STARTED = ConversationStarted(tenant="acme", account_id="a1", occurred_at=EARLY, conversation_id="v1")


class Bench:
    """Steps the stage over stores in memory."""

    def __init__(self) -> None:
        self.stores = Layers(0, enrich.STAGE.stores, Memory())
        self.stores.push()

    def take(self, topic: str, key: str, value: Any) -> Outcome:
        """Step one record and apply what it writes."""
        event = Event(topic=topic, key=key, value=value, id="fact-1", occurred_at=EARLY)
        outcome = enrich.STAGE.step(self.stores, event)
        self.stores.write(outcome.writes)
        return outcome

    def tag(self, tag_id: str, name: str, **details: str) -> Outcome:
        """Let a location tag come or change."""
        fields = {"location_id": "l1"} | details
        tag = LocationTag(tenant="acme", tag_id=tag_id, name=name, **fields)  # type: ignore[arg-type]
        return self.take("users.tags.by-partition", f"acme:{tag_id}", tag)

    def sakari(self, contact_id: str = "c1", tags: tuple[str, ...] = (), **fields: Any) -> Outcome:
        """Let Ann's contact on Sakari come or change."""
        made = tuple(SakariTag(tag) for tag in tags)
        contact = SakariContact(tenant="acme", account_id="a1", contact_id=contact_id, tags=made, **fields)
        return self.take("sakari.contacts", f"{ANN}|{contact_id}", contact)

    def users(self, contact_id: str = "u1", tags: tuple[str, ...] = (), **fields: Any) -> Outcome:
        """Let Ann's contact on the Users API come or change."""
        fields = {"location_id": "l1"} | fields
        contact = UsersContact(tenant="acme", contact_id=contact_id, tags=tags, **fields)
        return self.take("users.contacts", f"{ANN}|{contact_id}", contact)


def contact(outcome: Outcome) -> EnrichedContact:
    """The one contact that *outcome* publishes."""
    (emit,) = outcome.emit
    assert emit.topic == "contacts.enriched"
    assert isinstance(emit.value, EnrichedContact)
    return emit.value


@pytest.fixture
def bench() -> Bench:
    """A stage without any state."""
    return Bench()


def test_contacts_of_both_systems_are_one_person(bench: Bench) -> None:
    """Both native contacts of one contact key stand in one record, sorted by system."""
    bench.users()
    joined = contact(bench.sakari())
    assert [(one.system, one.contact_id) for one in joined.natives] == [("sakari", "c1"), ("users", "u1")]
    assert (joined.tenant, joined.contact_key) == ("acme", ANN)


def test_the_newest_contact_leads_the_names(bench: Bench) -> None:
    """Names are the newest contact's, whichever came last."""
    bench.sakari(first_name="Ann", updated_at=LATE)
    joined = contact(bench.users(first_name="Anna", last_name="Old", updated_at=EARLY))
    assert (joined.first_name, joined.last_name, joined.updated_at) == ("Ann", None, LATE)


def test_what_the_leading_contact_does_not_know_others_tell(bench: Bench) -> None:
    """Null means unknown, so the next newest contact that knows is asked."""
    bench.sakari(email="ann@example.com", country="DE", updated_at=EARLY)
    joined = contact(bench.users(first_name="Ann", phone="+4915112345678", updated_at=LATE))
    assert joined.first_name == "Ann"
    assert (joined.email, joined.mobile, joined.country) == ("ann@example.com", "+4915112345678", "DE")


def test_of_equally_new_contacts_the_first_by_identity_leads(bench: Bench) -> None:
    """A tie is broken by system, account and id, never by arrival."""
    bench.users(first_name="Users", updated_at=EARLY)
    bench.sakari("c2", first_name="Second", updated_at=EARLY)
    assert contact(bench.sakari("c1", first_name="First", updated_at=EARLY)).first_name == "First"


def test_opted_out_and_dnd_are_kept_apart(bench: Bench) -> None:
    """Each system's own word stands in its own field; one silent contact of a system is enough."""
    bench.sakari("c1", opted_out=True)
    joined = contact(bench.sakari("c2"))
    assert (joined.opted_out, joined.dnd) == (True, False)
    joined = contact(bench.users(dnd=True))
    assert (joined.opted_out, joined.dnd) == (True, True)


def test_a_tag_is_matched_by_its_folded_name(bench: Bench) -> None:
    """Names are compared trimmed and case-folded; the location tag's spelling and details are shown."""
    bench.tag("t1", "Größe ", colour="#f00", description="big")
    (tag,) = contact(bench.sakari(tags=(" GRÖSSE",))).tags
    assert (tag.name, tag.folded, tag.tag_id) == ("Größe ", "grösse", "t1")
    assert (tag.location_id, tag.colour, tag.description) == ("l1", "#f00", "big")


def test_a_tag_is_matched_by_id_before_name(bench: Bench) -> None:
    """A text that is one tag's id and another's name means the id."""
    bench.tag("t1", "By id")
    bench.tag("t0", "t1")
    (tag,) = contact(bench.users(tags=("t1",))).tags
    assert (tag.tag_id, tag.name) == ("t1", "By id")


def test_an_id_is_matched_exactly(bench: Bench) -> None:
    """Ids are not case-folded."""
    bench.tag("t1", "VIP")
    (tag,) = contact(bench.users(tags=("T1",))).tags
    assert (tag.tag_id, tag.name, tag.folded) == (None, "T1", "t1")


def test_a_tag_on_both_systems_stands_once(bench: Bench) -> None:
    """A tag says on which systems it stands, however each of them spells it."""
    bench.tag("t1", "VIP")
    bench.sakari(tags=("vip", "VIP "))
    (tag,) = contact(bench.users(tags=("t1",))).tags
    assert (tag.tag_id, tag.systems) == ("t1", ("sakari", "users"))


def test_an_unmatched_tag_is_shown_as_the_leading_contact_spells_it(bench: Bench) -> None:
    """Without a location tag the newest contact's spelling is the name."""
    bench.sakari(tags=("golf",), updated_at=EARLY)
    (tag,) = contact(bench.users(tags=(" Golf",), updated_at=LATE)).tags
    assert (tag.name, tag.folded, tag.tag_id, tag.systems) == ("Golf", "golf", None, ("sakari", "users"))


def test_blank_tags_are_left_out(bench: Bench) -> None:
    """A tag of white space is none, even beside a location tag without a name."""
    bench.tag("t1", " ")
    assert contact(bench.users(tags=("", "  "))).tags == ()


def test_the_tag_of_the_persons_own_location_is_preferred(bench: Bench) -> None:
    """Of several location tags with one name, one of the person's locations is meant."""
    bench.tag("t1", "VIP", location_id="l1")
    bench.tag("t2", "vip", location_id="l2")
    assert contact(bench.sakari(tags=("VIP",))).tags[0].tag_id == "t1"
    assert contact(bench.users(location_id="l2")).tags[0].tag_id == "t2"


def test_tags_of_another_tenant_are_not_matched(bench: Bench) -> None:
    """Tags are matched within a tenant only."""
    other = LocationTag(tenant="beta", location_id="l1", tag_id="t1", name="VIP")
    bench.take("users.tags.by-partition", "beta:t1", other)
    assert contact(bench.users(tags=("VIP", "t1"))).tags[0].tag_id is None


def test_tags_are_sorted_by_folded_name(bench: Bench) -> None:
    """The order of tags follows from their names, not from the contact."""
    assert [tag.name for tag in contact(bench.users(tags=("b", "C", "a"))).tags] == ["a", "b", "C"]


def test_an_unchanged_contact_is_not_published(bench: Bench) -> None:
    """A redelivered contact changes nothing, nor does a field that the join does not show."""
    bench.sakari(tags=("vip",))
    assert bench.sakari(tags=("vip",)) == NOTHING
    assert bench.sakari(tags=("vip",), attributes={"shoe": "42"}) == NOTHING


def test_a_hidden_change_is_kept_but_not_published(bench: Bench) -> None:
    """What changes a native contact without changing the person is stored and not published."""
    bench.sakari(first_name="Ann", updated_at=LATE)
    bench.users(first_name="Bea", updated_at=EARLY)
    assert bench.users(first_name="Eva", updated_at=EARLY).emit == ()
    gone = bench.take("sakari.contacts", f"{ANN}|c1", None)
    assert contact(gone).first_name == "Eva"


def test_the_last_contact_to_go_leaves_a_tombstone_and_no_state(bench: Bench) -> None:
    """A person without native contacts is deleted, and nothing about them is kept."""
    bench.sakari(tags=("vip",))
    bench.users(tags=("golf",))
    bench.take("sakari.contacts", f"{ANN}|c1", None)
    (emit,) = bench.take("users.contacts", f"{ANN}|u1", None).emit
    assert (emit.topic, emit.key, emit.value) == ("contacts.enriched", ANN, None)
    assert {value for _, value in bench.stores.changes()} == {None}


def test_a_tombstone_of_an_unknown_contact_changes_nothing(bench: Bench) -> None:
    """What never came cannot go."""
    assert bench.take("sakari.contacts", f"{ANN}|c9", None) == NOTHING


def test_equal_ids_on_both_systems_are_two_contacts(bench: Bench) -> None:
    """A native contact is known by system and id together."""
    bench.sakari("x", first_name="Ann")
    bench.users("x")
    assert len(contact(bench.take("sakari.contacts", f"{ANN}|x", None)).natives) == 1


def test_a_contact_id_with_a_bar_is_found_again(bench: Bench) -> None:
    """Ids are percent-encoded in table keys, and the contact key itself may hold a bar."""
    key = "acme:s:a|b"
    value = SakariContact(tenant="acme", account_id="a1", contact_id="a|b")
    assert contact(bench.take("sakari.contacts", f"{key}|a%7Cb", value)).contact_key == key
    assert bench.take("sakari.contacts", f"{key}|a%7Cb", None).emit[0].value is None


@pytest.mark.parametrize("key", ["c1", "|c1", f"{ANN}|c2"])
def test_a_contact_under_a_wrong_key_is_refused(bench: Bench, key: str) -> None:
    """A contacts record whose key is not contact key and id goes to the dead letters."""
    value = SakariContact(tenant="acme", account_id="a1", contact_id="c1")
    with pytest.raises(RecordError, match="contact key") as caught:
        bench.take("sakari.contacts", key, value)
    assert caught.value.reason == "wrong-key"


def test_a_fact_becomes_an_activity_with_the_contact(bench: Bench) -> None:
    """The activity holds the fact, its id and time, and the person as last published."""
    joined = contact(bench.sakari(tags=("vip",)))
    outcome = bench.take("sakari.events", ANN, STARTED)
    (emit,) = outcome.emit
    assert (emit.topic, emit.key, emit.occurred_at, outcome.writes) == ("activity.enriched", ANN, EARLY, ())
    assert emit.value == Activity(
        tenant="acme", contact_key=ANN, fact_id="fact-1", event=STARTED, contact=joined
    )


def test_a_fact_without_a_contact_is_still_an_activity(bench: Bench) -> None:
    """Facts do not wait for contacts."""
    (emit,) = bench.take("sakari.events", "acme:s:-:v1", STARTED).emit
    assert (emit.value.contact, emit.value.contact_key) == (None, "acme:s:-:v1")


def test_a_moved_contact_is_an_activity_under_both_keys(bench: Bench) -> None:
    """A change of number is told under the old and the new contact key, each with its own person."""
    to = "acme:m:0b"
    moved = ContactMoved(
        tenant="acme", account_id="a1", occurred_at=LATE, contact_id="c1", from_key=ANN, to_key=to
    )
    bench.sakari()
    bench.take("sakari.contacts", f"{ANN}|c1", None)
    came = SakariContact(tenant="acme", account_id="a1", contact_id="c1")
    bench.take("sakari.contacts", f"{to}|c1", came)
    old, new = (bench.take("sakari.events", key, moved).emit[0].value for key in (ANN, to))
    assert old.contact is None
    assert new.contact.contact_key == to
