"""
The laws of the enrich stage, through the driver, with fan-outs cut as small as they go.

A history is a list of steps: tags, contacts of both systems and facts come, change and go, over few
enough names that ids, names and spellings collide all the time. What must stand in the end is told
by a model that knows only the last value of each table key.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.events import (
    ConversationStarted,
    EnrichedContact,
    LocationTag,
    SakariContact,
    SakariTag,
    UsersContact,
)
from pipeline.instants import Time, from_ms
from pipeline.stages import enrich
from pipeline.testing import EPOCH_MS, Driver

#: Texts that are a tag's id, its name, another spelling of either, or none.
TEXTS = ("VIP", " vip", "Gold", "a", "A ", " ")
TAG_IDS = ("a", "b", "Gold")
PEOPLE = ("acme:m:1", "acme:s:x|y", "beta:m:1")
LOCATIONS = ("l1", "l2")
TABLES = ("users.tags.by-partition", "sakari.contacts", "users.contacts")


class Step(NamedTuple):
    """One record."""

    topic: str
    key: str
    value: Any


def _tag(tenant: str, tag_id: str, name: str | None, location: str, colour: str | None) -> Step:
    tag = name and LocationTag(tenant=tenant, location_id=location, tag_id=tag_id, name=name, colour=colour)
    return Step("users.tags.by-partition", f"{tenant}:{tag_id}", tag or None)


def _sakari(key: str, contact_id: str, tags: Sequence[str] | None, updated: Time | None) -> Step:
    contact = tags is not None and SakariContact(
        tenant=key[:4],
        account_id="a1",
        contact_id=contact_id,
        first_name=contact_id,
        tags=tuple(map(SakariTag, tags)),
        updated_at=updated,
    )
    return Step("sakari.contacts", f"{key}|{contact_id}", contact or None)


def _users(key: str, location: str, tags: Sequence[str] | None, updated: Time | None) -> Step:
    contact = tags is not None and UsersContact(
        tenant=key[:4],
        location_id=location,
        contact_id=f"u-{location}",
        first_name=location,
        tags=tuple(tags),
        updated_at=updated,
    )
    return Step("users.contacts", f"{key}|u-{location}", contact or None)


def _fact(key: str, number: int) -> Step:
    at = from_ms(EPOCH_MS + number)
    fact = ConversationStarted(tenant=key[:4], account_id="a1", occurred_at=at, conversation_id=f"v{number}")
    return Step("sakari.events", key, fact)


_HELD = st.none() | st.lists(st.sampled_from(TEXTS), max_size=3)
_TIMES = st.none() | st.sampled_from([from_ms(EPOCH_MS), from_ms(EPOCH_MS + 1)])
_KEYS = st.sampled_from(PEOPLE)
_LOCATIONS = st.sampled_from(LOCATIONS)
_NAMES = st.none() | st.sampled_from(TEXTS)
_TAGS = st.builds(
    _tag,
    st.sampled_from(["acme", "beta"]),
    st.sampled_from(TAG_IDS),
    _NAMES,
    _LOCATIONS,
    st.sampled_from([None, "#1"]),
)
_CONTACTS = st.builds(_sakari, _KEYS, st.sampled_from(["c1", "c2"]), _HELD, _TIMES) | st.builds(
    _users, _KEYS, _LOCATIONS, _HELD, _TIMES
)
#: At least ten steps: shorter ones rarely make anything meet.
TABLE_STEPS = st.lists(_TAGS | _CONTACTS, min_size=10, max_size=25)
HISTORIES = st.lists(
    _TAGS | _CONTACTS | st.builds(_fact, _KEYS, st.integers(0, 99)), min_size=10, max_size=30
)
SPLITS = st.lists(st.integers(1, 4), min_size=1, max_size=4)


@pytest.fixture(autouse=True, scope="module")
def chunks_of_one() -> Iterator[None]:
    """One contact a call, so that every fan-out is interrupted as often as it can be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(enrich, "CHUNK", 1)
        yield


def send(driver: Driver, history: Sequence[Step], start: int = 0) -> None:
    """Write *history*, one record a millisecond, facts under ids of their own."""
    for number, (topic, key, value) in enumerate(history, start):
        name = f"{key}/{value.conversation_id}" if topic == "sakari.events" else ""
        driver.send(topic, key, value, at=EPOCH_MS + number, id=name)


def ran(history: Sequence[Step], batches: Sequence[int] = (100,)) -> Driver:
    """A driver that has taken *history* in batches of those sizes, without a dead letter."""
    driver = Driver([enrich.STAGE], batches=batches)
    send(driver, history)
    driver.run()
    assert driver.records("dead-letters") == []
    return driver


def contacts(driver: Driver) -> dict[str, EnrichedContact]:
    """The table of enriched contacts."""
    return driver.table("contacts.enriched")


def activities(driver: Driver) -> list[tuple[Any, ...]]:
    """The activities in their order: id, partition, key, value."""
    events = ((driver.codec.decode(record), record) for record in driver.records("activity.enriched"))
    return [(event.id, record.partition, event.key, record.value) for event, record in events]


def last(history: Sequence[Step]) -> dict[tuple[str, str], Any]:
    """(topic, key) -> the last value, of tables only and without what was deleted."""
    final = {(step.topic, step.key): step.value for step in history if step.topic in TABLES}
    return {place: value for place, value in final.items() if value is not None}


def people(history: Sequence[Step]) -> dict[str, list[SakariContact | UsersContact]]:
    """Contact key -> the native contacts that are left of it."""
    found: dict[str, list[SakariContact | UsersContact]] = {}
    for (topic, key), value in last(history).items():
        if topic != "users.tags.by-partition":
            found.setdefault(key.rpartition("|")[0], []).append(value)
    return found


def texts(native: SakariContact | UsersContact) -> list[str]:
    """The tags of *native*, trimmed, without the blank ones."""
    spelled = [t.tag for t in native.tags] if isinstance(native, SakariContact) else native.tags
    return [text.strip() for text in spelled if text.strip()]


def meant(text: str, tags: list[LocationTag], locations: set[str]) -> tuple[str, str]:
    """(folded name, tag id or nothing) of the location tag among *tags* that *text* means."""
    named = [tag for tag in tags if tag.name.strip().casefold() == text.casefold()]
    own = [tag for tag in named if tag.location_id in locations]
    by_id = [tag for tag in tags if tag.tag_id == text]
    for choice in (by_id, own, named):
        if choice:
            tag = min(choice, key=lambda one: one.tag_id)
            return tag.name.strip().casefold(), tag.tag_id
    return text.casefold(), ""


def expected(history: Sequence[Step]) -> dict[str, list[tuple[str, str, tuple[str, ...]]]]:
    """Contact key -> (folded name, tag id, systems) of each tag, as *history* must leave it."""
    tags = [value for value in last(history).values() if isinstance(value, LocationTag)]
    made = {}
    for key, natives in people(history).items():
        own = [tag for tag in tags if tag.tenant == key[:4]]
        locations = {native.location_id for native in natives if isinstance(native, UsersContact)}
        stands: dict[tuple[str, str], set[str]] = {}
        for native in natives:
            for text in texts(native):
                stands.setdefault(meant(text, own, locations), set()).add(native.SYSTEM)
        made[key] = [(*place, tuple(sorted(systems))) for place, systems in sorted(stands.items())]
    return made


def stored_tags(state: dict[bytes, bytes]) -> set[tuple[bytes, str, str]]:
    """(partition, label, tag id) of every location tag that *state* holds."""
    placed = ((key.split(b"\0"), value) for key, value in state.items() if b"\0tags\0" in key)
    return {
        (partition, label.decode(), tag["tag_id"])
        for (partition, _, label), value in placed
        for tag in msgspec.msgpack.decode(value)
    }


def expected_tags(history: Sequence[Step]) -> set[tuple[bytes, str, str]]:
    """The same as *history* must leave it: each tag under its id and its name, in every partition."""
    tags = [value for value in last(history).values() if isinstance(value, LocationTag)]
    return {
        (partition, enrich._label(tag.tenant, text), tag.tag_id)
        for partition in (b"0", b"1")
        for tag in tags
        for text in (tag.tag_id, tag.name)
    }


@given(HISTORIES, SPLITS)
@settings(max_examples=150)
def test_contacts_show_the_tags_that_stand(history: list[Step], batches: list[int]) -> None:
    """After any history each person shows exactly the tags of their last contacts and the last tags."""
    shown = {
        key: [(tag.folded, tag.tag_id or "", tag.systems) for tag in contact.tags]
        for key, contact in contacts(ran(history, batches)).items()
    }
    assert shown == expected(history)


@given(TABLE_STEPS, st.randoms(use_true_random=False))
@settings(max_examples=100)
def test_any_order_of_table_records_ends_equal(history: list[Step], random: Any) -> None:
    """The order in which the last values of different table keys come leaves no trace."""
    final = list({(step.topic, step.key): step for step in history}.values())
    shuffled = random.sample(final, len(final))
    assert contacts(ran(shuffled)) == contacts(ran(final)) == contacts(ran(history))


@given(HISTORIES)
def test_a_redelivered_table_record_emits_nothing(history: list[Step]) -> None:
    """The last record of each table key, delivered again, changes no topic and no state."""
    driver = ran(history)
    records, state = driver.records("contacts.enriched"), driver.state("enrich")
    again = {(step.topic, step.key): step for step in history if step.topic in TABLES}
    send(driver, list(again.values()), len(history))
    driver.run()
    assert driver.records("contacts.enriched") == records
    assert driver.state("enrich") == state


@given(HISTORIES)
def test_no_contact_is_published_unchanged(history: list[Step]) -> None:
    """Two records of one contact that follow each other are never equal."""
    before: dict[str, bytes | None] = {}
    for record in ran(history, [1]).records("contacts.enriched"):
        key = (record.key or b"").decode()
        assert before.get(key) != record.value
        before[key] = record.value


@given(HISTORIES, _KEYS)
def test_a_redelivered_fact_gives_the_same_activity(history: list[Step], key: str) -> None:
    """A fact that comes again gives an identical activity under the same id."""
    driver = ran([*history, _fact(key, 100)])
    send(driver, [_fact(key, 100)], len(history) + 1)
    driver.run()
    first, second = (made for made in activities(driver) if made[0] in _ids(driver, f"{key}/v100"))
    assert first == second


@given(HISTORIES, SPLITS)
@settings(max_examples=150)
def test_the_split_into_batches_does_not_matter(history: list[Step], batches: list[int]) -> None:
    """Any split into batches gives the same contacts, the same activities and the same state."""
    whole, split = ran(history), ran(history, batches)
    assert contacts(split) == contacts(whole)
    assert activities(split) == activities(whole)
    assert split.state("enrich") == whole.state("enrich")


@given(HISTORIES, HISTORIES)
def test_restored_state_equals_live_state(early: list[Step], late: list[Step]) -> None:
    """A stage restored from its changelogs holds what it held, and goes on as if never stopped."""
    driver = ran(early)
    state = driver.state("enrich")
    driver.restart()
    assert driver.state("enrich") == state
    send(driver, late, len(early))
    driver.run()
    unbroken = ran([*early, *late])
    assert contacts(driver) == contacts(unbroken)
    assert activities(driver) == activities(unbroken)


@given(HISTORIES)
def test_the_index_is_exact(history: list[Step]) -> None:
    """In the end tags and people stand under exactly their labels, and no fan-out is left."""
    state = ran(history).state("enrich")
    assert stored_tags(state) == expected_tags(history)
    held = {key.rpartition(b"\0")[2].decode() for key in state if b"\0holders\0" in key}
    assert held == {
        f"{enrich._label(key[:4], text)}|{key}"
        for key, natives in people(history).items()
        for native in natives
        for text in texts(native)
    }
    assert not [key for key in state if b"\0fan-outs\0" in key or b"\0cursors\0" in key]


@given(TABLE_STEPS, st.integers(0, 20))
def test_a_fan_out_survives_a_crash(history: list[Step], calls: int) -> None:
    """A stage that is restored in the middle of its fan-outs ends as one that never stopped."""
    driver = Driver([enrich.STAGE])
    send(driver, history)
    for task in driver._tasks:
        for _ in range(calls):
            batch = task.batch(driver.log, 1)
            if batch is not None:
                driver._commit(task, batch)
    driver.restart()
    driver.run()
    assert contacts(driver) == contacts(ran(history))


def _ids(driver: Driver, fact: str) -> set[str]:
    """The ids of the activities that tell of *fact*."""
    return {event.id for event in driver.events("activity.enriched") if event.value.fact_id == fact}
