"""The enrich stage, called directly: what a changed location tag does to the contacts that hold it."""

from typing import Any

import pytest

from pipeline.errors import RecordError
from pipeline.events import ConversationStarted, LocationTag, UsersContact
from pipeline.instants import Time
from pipeline.runtime.state import Layers, Memory
from pipeline.stage import NOTHING, Cursor, Event, Outcome
from pipeline.stages import enrich

MANY = 3 * enrich.CHUNK + 7
STARTED = ConversationStarted(tenant="acme", account_id="a1", occurred_at=Time(""), conversation_id="v1")


class Bench:
    """Steps the stage over stores in memory and keeps its cursors as the runtime does."""

    def __init__(self) -> None:
        self.stores = Layers(0, enrich.STAGE.stores, Memory())
        self.stores.push()
        self.cursors: list[Cursor] = []
        self.table: dict[str, Any] = {}
        self.published: list[str] = []

    def take(self, topic: str, key: str, value: Any) -> Outcome:
        """Step one record."""
        return self._done(enrich.STAGE.step(self.stores, Event(topic=topic, key=key, value=value)))

    def tag(self, tag_id: str, name: str | None, colour: str | None = None, **details: Any) -> Outcome:
        """Let a location tag come, change or, without a *name*, go."""
        fields = {"tenant": "acme", "location_id": "l1", "colour": colour} | details
        value = None if name is None else LocationTag(tag_id=tag_id, name=name, **fields)
        return self.take("users.tags.by-partition", f"acme:{tag_id}", value)

    def person(self, number: int, *tags: str) -> Outcome:
        """Let a person's only contact come or change."""
        value = UsersContact(tenant="acme", location_id="l1", contact_id="u", tags=tags)
        return self.take("users.contacts", f"{person(number)}|u", value)

    def resume(self) -> Outcome:
        """Go on with the oldest cursor."""
        assert enrich.STAGE.resume is not None
        return self._done(enrich.STAGE.resume(self.stores, self.cursors.pop(0)))

    def drain(self) -> list[str]:
        """Go on until no cursor is left; the names of the people published meanwhile, in order."""
        self.published.clear()
        while self.cursors:
            self.resume()
        return self.published

    def ids(self) -> dict[str, list[str | None]]:
        """Person -> the ids of the location tags that they show."""
        return {key: [tag.tag_id for tag in value.tags] for key, value in self.table.items()}

    def entries(self, store: str) -> set[str]:
        """The keys that *store* holds."""
        changed = self.stores.changes().by_store.get(store, [])
        return {key.decode() for key, value in changed if value is not None}

    def _done(self, outcome: Outcome) -> Outcome:
        self.stores.write(outcome.writes)
        self.cursors += outcome.more
        for emit in outcome.emit:
            if emit.topic == "contacts.enriched":
                self.table[emit.key] = emit.value
                self.published.append(emit.key)
        return outcome


def person(number: int) -> str:
    """The contact key of a person."""
    return f"acme:m:{number:08d}"


@pytest.fixture
def bench() -> Bench:
    """A stage without any state."""
    return Bench()


def test_a_tag_that_nobody_holds_sends_no_cursor(bench: Bench) -> None:
    """Tags that come before the contacts cost no fan-out."""
    bench.person(1, "other")
    assert bench.tag("t1", "VIP").more == ()
    assert bench.entries("fan-outs") == set()


def test_a_created_tag_reaches_who_already_holds_it(bench: Bench) -> None:
    """A location tag that comes after the contacts is matched by name and by id."""
    for number, text in enumerate(["vip", "t1", "golf"]):
        bench.person(number, text)
    bench.tag("t1", "VIP")
    assert bench.drain() == [person(1), person(0)]
    assert bench.ids() == {person(0): ["t1"], person(1): ["t1"], person(2): [None]}


def test_a_recoloured_tag_reaches_its_holders_only(bench: Bench) -> None:
    """A changed detail is shown by all who hold the tag, and nobody else is published."""
    bench.tag("t1", "VIP")
    bench.person(0, "vip")
    bench.person(1, "golf")
    bench.tag("t1", "VIP", "#0f0")
    assert bench.drain() == [person(0)]
    assert bench.table[person(0)].tags[0].colour == "#0f0"


@pytest.mark.parametrize("field", ["colour", "description", "location_id"])
def test_every_shown_detail_reaches_the_holders(bench: Bench, field: str) -> None:
    """Whatever contacts show of a location tag is fanned out when only that changes."""
    bench.tag("t1", "VIP")
    bench.person(0, "vip")
    bench.tag("t1", "VIP", **{field: "new"})
    assert bench.drain() == [person(0)]
    assert getattr(bench.table[person(0)].tags[0], field) == "new"


def test_a_renamed_tag_reaches_old_and_new_holders(bench: Bench) -> None:
    """Who held the old name loses the tag, who has the new one gains it, who has the id keeps it."""
    bench.tag("t1", "VIP")
    for number, text in enumerate(["vip", "gold", "t1"]):
        bench.person(number, text)
    bench.tag("t1", "Gold")
    assert sorted(bench.drain()) == [person(0), person(1), person(2)]
    assert bench.ids() == {person(0): [None], person(1): ["t1"], person(2): ["t1"]}


def test_a_deleted_tag_leaves_its_name(bench: Bench) -> None:
    """Without the location tag the contact's own tag stays, with no id and no details."""
    bench.tag("t1", "VIP", "#0f0")
    bench.person(0, "vip")
    bench.tag("t1", None)
    bench.drain()
    (tag,) = bench.table[person(0)].tags
    assert (tag.name, tag.tag_id, tag.colour) == ("vip", None, None)
    assert bench.entries("tags") == set()


def test_a_deleted_tag_makes_way_for_another_of_its_name(bench: Bench) -> None:
    """The next location tag with the same name takes over."""
    bench.tag("t1", "VIP")
    bench.tag("t2", "vip")
    bench.person(0, "vip")
    bench.tag("t1", None)
    bench.drain()
    assert bench.ids() == {person(0): ["t2"]}


def test_a_repeated_tag_changes_nothing(bench: Bench) -> None:
    """A redelivered tag, and the tombstone of an unknown one, are no change."""
    bench.tag("t1", "VIP")
    bench.person(0, "vip")
    assert bench.tag("t1", "VIP") == NOTHING
    assert bench.tag("t9", None) == NOTHING


def test_a_detail_that_contacts_do_not_show_sends_no_cursor(bench: Bench) -> None:
    """Who created a tag is kept, and nobody is joined again for it."""
    bench.tag("t1", "VIP")
    bench.person(0, "vip")
    outcome = bench.tag("t1", "VIP", created_by="someone")
    assert (outcome.more, len(outcome.writes)) == ((), 2)


def test_a_large_fan_out_goes_in_chunks(bench: Bench) -> None:
    """No call gives more outputs than a chunk, and every holder is published exactly once."""
    for number in range(MANY):
        bench.person(number, "vip")
    bench.tag("t1", "VIP")
    sizes = []
    bench.published.clear()
    while bench.cursors:
        sizes.append(len(bench.resume().emit))
    assert sizes == [enrich.CHUNK] * 3 + [7]
    assert bench.published == [person(number) for number in range(MANY)]
    assert bench.entries("fan-outs") == set()


def test_a_second_change_during_the_first_fan_out_wins(bench: Bench) -> None:
    """A tag that changes again while its holders are joined ends as it stands, for all of them."""
    for number in range(MANY):
        bench.person(number, "vip")
    bench.tag("t1", "VIP", "#111")
    bench.resume()
    bench.tag("t1", "VIP", "#222")
    bench.drain()
    assert {value.tags[0].colour for value in bench.table.values()} == {"#222"}
    assert bench.entries("fan-outs") == set()


def test_a_deletion_during_the_fan_out_wins(bench: Bench) -> None:
    """A tag that goes while its holders are joined is shown by none of them."""
    for number in range(MANY):
        bench.person(number, "vip")
    bench.tag("t1", "VIP")
    bench.resume()
    bench.tag("t1", None)
    bench.drain()
    assert {tuple(ids) for ids in bench.ids().values()} == {(None,)}


def test_contacts_that_come_and_go_during_a_fan_out_end_right(bench: Bench) -> None:
    """Before and behind the cursor alike, who comes shows the tag and who drops it does not."""
    for number in range(2, MANY):
        bench.person(number, "vip")
    bench.tag("t1", "VIP")
    bench.resume()
    for number in (1, MANY):
        bench.person(number, "vip")
    for number in (2, MANY - 1):
        bench.person(number)
    bench.drain()
    shown = {key for key, ids in bench.ids().items() if ids == ["t1"]}
    assert shown == {person(number) for number in range(1, MANY + 1)} - {person(2), person(MANY - 1)}


def test_a_fact_never_waits_for_a_fan_out(bench: Bench) -> None:
    """A fact after a tag's change shows the tag as it stands, before the cursor has come by."""
    bench.person(0, "vip")
    bench.tag("t1", "VIP")
    activity, published = bench.take("sakari.events", person(0), STARTED).emit
    assert activity.value.contact == published.value
    assert published.value.tags[0].tag_id == "t1"
    assert bench.drain() == []


def test_a_fact_does_not_wait_for_the_last_of_several_fan_outs(bench: Bench) -> None:
    """After the holders of one label are through, those of the next still show the tag as it stands."""
    bench.person(0, "vip")
    bench.person(1, "t1")
    bench.tag("t1", "VIP")
    bench.resume()
    (waiting,) = (key for key, ids in bench.ids().items() if ids == [None])
    activity = bench.take("sakari.events", waiting, STARTED).emit[0]
    assert activity.value.contact.tags[0].tag_id == "t1"


def test_the_index_holds_exactly_the_tags_that_are_held(bench: Bench) -> None:
    """Labels that a person no longer has are taken out of the index, each label stands there once."""
    bench.person(0, "VIP", " vip", "Größe")
    assert bench.entries("holders") == {f"acme|vip|{person(0)}", f"acme|gr%C3%B6sse|{person(0)}"}
    bench.person(0, "a|b")
    assert bench.entries("holders") == {f"acme|a%7Cb|{person(0)}"}


def test_a_label_is_not_the_beginning_of_another(bench: Bench) -> None:
    """Only the very label is fanned out, not those that begin like it."""
    bench.person(0, "vip")
    bench.person(1, "vip|2")
    bench.person(2, "vip2")
    bench.tag("t1", "VIP")
    assert bench.drain() == [person(0)]


@pytest.mark.parametrize("key", ["acme", "acme:", "acme:t2", "beta:t1"])
def test_a_tag_under_a_wrong_key_is_refused(bench: Bench, key: str) -> None:
    """A tag whose key is not its tenant and id goes to the dead letters."""
    tag = LocationTag(tenant="acme", location_id="l1", tag_id="t1", name="VIP")
    with pytest.raises(RecordError, match="tenant:tag id") as caught:
        bench.take("users.tags.by-partition", key, tag)
    assert caught.value.reason == "wrong-key"
