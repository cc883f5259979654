"""Each stage that knows people forgets who was erased, and keeps them out."""

from typing import Any

import pytest

from pipeline.codec import text_headers
from pipeline.events import Redaction
from pipeline.identity import Identity
from pipeline.preflight import DEV_IDENTITY_SECRET
from pipeline.settings import Settings
from pipeline.testing import Driver
from pipeline.topology import stages
from tests.unit.decode_records import (
    ACCOUNT,
    ADA,
    BOB,
    LOCATION,
    at,
    hook,
    sakari_contact,
    sakari_message,
    users_hook,
)

IDENTITY = Identity(DEV_IDENTITY_SECRET.encode())
ADA_KEY, BOB_KEY = (IDENTITY.contact_key("acme", number) for number in (ADA, BOB))
TABLES = ("sakari.contacts", "users.contacts", "contacts.enriched", "engagement.contacts")
UNUSED = {"env": "UNUSED"}
SETTINGS = Settings.model_validate(
    {
        "tenants": {
            "acme": {
                "sakari": [{"account_id": ACCOUNT, "client_id": UNUSED, "client_secret": UNUSED}],
                "users": [{"location_id": LOCATION, "token": UNUSED}],
            }
        }
    }
)
BOBS = {"id": "c2", "firstName": "Bob", "mobile": {"number": BOB, "country": "US"}}


class World:
    """All stages, with Ada on both systems and Bob on one."""

    def __init__(self, **options: Any) -> None:
        self.driver = Driver(stages(SETTINGS, IDENTITY), **options)

    def told(self, body: bytes, key: str, product: str = "sakari", account: str = ACCOUNT) -> None:
        """A webhook came."""
        head = {"source": "webhook", "resource": "webhook", "tenant": "acme", "verified": "true"}
        self.driver.send(
            "sources.received", key, body, headers={**head, "product": product, "account": account}
        )

    def everyone(self) -> None:
        """What Ada and Bob did."""
        self.told(hook("contact-updated", sakari_contact()), "acme:s:c1")
        self.told(hook("contact-updated", sakari_contact(**BOBS)), "acme:s:c2")
        self.told(users_hook("ContactUpdate", phone=ADA, firstName="Ada"), "acme:u:u1", "users", LOCATION)
        self.told(hook("message-status", sakari_message()), "acme:s:c1")
        self.told(hook("message-status", sakari_message(id="m2", contact={"id": "c2"})), "acme:s:c2")
        self.driver.run()

    def erase(self, *keys: str, value: Redaction | None = None) -> None:
        """Somebody is erased."""
        told = value or Redaction(tenant="acme", erased_at=at(11), report="r1")
        for key in keys:
            self.driver.send("redactions", key, told, at=1)
        self.driver.run()

    def keys(self) -> dict[str, set[str]]:
        """Contact keys of each table."""
        return {name: {key.partition("|")[0] for key in self.driver.table(name)} for name in TABLES}

    def holding(self, text: str) -> list[str]:
        """Stages whose state holds *text* in a key or value."""
        raw = text.encode()
        names = ("decode", "enrich", "engagement", "rollup")
        return [name for name in names for k, v in self.driver.state(name).items() if raw in k or raw in v]


@pytest.fixture
def world() -> World:
    """Where Ada and Bob are known."""
    made = World()
    made.everyone()
    assert all(ADA_KEY in keys for keys in made.keys().values())
    return made


@pytest.mark.parametrize("batch", [1, 2, 1_000])
def test_an_erased_person_leaves_every_table_and_all_state(batch: int) -> None:
    """The redaction of a contact key alone takes out all contacts of it, and nobody else."""
    world = World(batches=(batch,))
    world.everyone()
    before = world.driver.table("engagement.metrics")
    world.erase(ADA_KEY)
    assert [ADA_KEY in keys for keys in world.keys().values()] == [False] * 4
    assert BOB_KEY in world.keys()["contacts.enriched"] & world.keys()["engagement.contacts"]
    assert world.holding(ADA) == world.holding(ADA[2:]) == []
    assert world.holding(BOB) != []
    assert world.driver.table("engagement.metrics") == before


def test_of_an_erased_person_only_the_keys_are_left_in_state(world: World) -> None:
    """Engagement forgets messages, conversations and distinct counts; keys of the redaction stay."""
    world.erase(ADA_KEY)
    left = [k for k in world.driver.state("engagement") if ADA_KEY.encode() in k]
    assert {k.split(b"\0")[1] for k in left} == {b"redacted"}


def test_what_comes_of_an_erased_person_later_is_dropped(world: World) -> None:
    """By number and by native id: no fact, no contact, no state, no dead letter."""
    world.erase(ADA_KEY, "acme:s:c1")
    counts = {name: len(world.driver.records(name)) for name in ("sakari.events", "activity.enriched")}
    world.told(hook("message-status", sakari_message(id="m9")), "acme:s:c1")
    fresh = sakari_message(id="m8", contact={"id": "c9", "mobile": {"number": ADA, "country": "US"}})
    world.told(hook("message-status", fresh), "acme:s:c9")
    world.told(hook("contact-updated", sakari_contact(id="c9")), "acme:s:c9")
    world.told(users_hook("ContactUpdate", phone=ADA, webhookId="w2"), "acme:u:u1", "users", LOCATION)
    world.driver.run()
    assert {name: len(world.driver.records(name)) for name in counts} == counts
    assert not any(ADA_KEY in keys for keys in world.keys().values())
    assert world.holding(ADA) == []
    assert world.driver.records("dead-letters") == []


def test_a_contact_that_takes_an_erased_number_is_not_shown_with_it(world: World) -> None:
    """Bob's contact under his old key goes, and the new number is kept nowhere."""
    world.erase(ADA_KEY)
    moved = sakari_contact(id="c2", updated={"at": at(12)})
    world.told(hook("contact-updated", moved), "acme:s:c2")
    world.driver.run()
    assert BOB_KEY not in world.keys()["contacts.enriched"]
    assert world.holding(ADA) == []


def test_a_replay_leaves_the_erased_out_from_its_first_record_on(world: World) -> None:
    """Redactions come before whatever was received, so no fact of theirs is told again."""
    world.erase(ADA_KEY, "acme:s:c1", "acme:u:u1")
    again = world.driver.replay()
    topics = ("sakari.events", "users.events", "activity.enriched", *TABLES)
    keys = {event.key.partition("|")[0] for topic in topics for event in again.events(topic)}
    assert keys == {BOB_KEY}
    assert [text_headers(r.headers) for r in again.records("dead-letters")] == []


def test_who_is_let_in_again_begins_anew(world: World) -> None:
    """A tombstone of the redaction lifts it: the next record counts, nothing older comes back."""
    world.erase(ADA_KEY, "acme:s:c1")
    for key in (ADA_KEY, "acme:s:c1"):
        world.driver.send("redactions", key, None)
    world.told(hook("message-status", sakari_message(id="m9", created={"at": at(12)})), "acme:s:c1")
    world.driver.run()
    assert world.driver.table("engagement.contacts")[ADA_KEY].sent == 1


def test_a_redaction_read_twice_changes_nothing(world: World) -> None:
    """Redelivered redactions leave tables and state as they are."""
    world.erase(ADA_KEY)
    before = (world.keys(), [world.driver.state(name) for name in ("decode", "enrich", "engagement")])
    world.erase(ADA_KEY)
    assert (world.keys(), [world.driver.state(n) for n in ("decode", "enrich", "engagement")]) == before


def test_tombstones_of_an_erasure_tell_when_it_was_asked_for(world: World) -> None:
    """Their ``ce_time`` is the redaction's, whatever its place in the order of records."""
    world.erase(ADA_KEY)
    gone = {e.topic: e.occurred_at for t in TABLES for e in world.driver.events(t) if e.value is None}
    assert gone == dict.fromkeys(TABLES, at(11))


def test_an_erased_contact_stays_out_with_another_number(world: World) -> None:
    """Who was erased by native key is left out whatever number their contact has later."""
    world.erase(ADA_KEY, "acme:s:c1")
    other = {"number": "+12025550199", "country": "US"}
    world.told(hook("contact-updated", sakari_contact(mobile=other, updated={"at": at(12)})), "acme:s:c1")
    world.driver.run()
    assert world.keys()["sakari.contacts"] == {BOB_KEY}
    assert world.holding("2025550199") == []


@pytest.mark.parametrize(
    ("topic", "table"), [("sakari.events", "activity.enriched"), ("activity.enriched", "engagement.contacts")]
)
def test_what_is_on_its_way_when_somebody_is_erased_is_dropped(topic: str, table: str, world: World) -> None:
    """A fact or an activity that comes after the redaction brings nobody back."""
    world.erase(ADA_KEY)
    before = len(world.driver.records(table))
    for record in world.driver.records(topic):
        if (record.key or b"").decode() == ADA_KEY:
            world.driver.append(record)
    world.driver.run()
    assert len(world.driver.records(table)) == before
    assert ADA_KEY not in world.keys()["engagement.contacts"]


def test_a_table_record_that_comes_after_the_redaction_is_not_joined(world: World) -> None:
    """A native contact on its way to enrich brings nobody back."""
    late = next(r for r in world.driver.records("users.contacts") if ADA_KEY.encode() in (r.key or b""))
    world.erase(ADA_KEY)
    world.driver.append(late)
    world.driver.run()
    assert ADA_KEY not in world.keys()["contacts.enriched"]
    assert "enrich" not in world.holding(ADA)
