"""The sink's stage notes what is to be posted, once, where it belongs, and not before its time."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sinks.statistics.state import CONTACTS, POSTED, Contact, Pending, Posted, Window, put, removed
from pipeline.stage import Event, Outcome, Put
from tests.unit.sink_context import NOW_MS, MemoryContext, engaged, enriched, gone, sink, tenant, window

ENGAGEMENT = "engagement.contacts"
VENDOR = {"acme": tenant("l1", dialect="vendor")}


def context(*, open_interval_s: float = 900.0) -> MemoryContext:
    """A context of a tenant with two locations."""
    return MemoryContext(sink({"acme": tenant("l1", "l2")}, open_interval_s=open_interval_s).stage)


async def settle(place: MemoryContext) -> None:
    """All that waits was posted now."""
    for pending in place.pending:
        mark = Put(POSTED, pending.key, Posted(version=pending.work.version, at_ms=NOW_MS))
        await place.commit(Outcome(writes=(mark, *removed(place.read, pending.key))), cause=pending.event)


def revisions(place: MemoryContext) -> list[int]:
    """The revisions that wait."""
    return [each.work.metrics.revision for each in place.pending if isinstance(each.work, Window)]


def test_a_window_goes_to_each_location() -> None:
    """Every location of the tenant gets its own entry, due at once."""
    place = context()
    place.feed(window())
    assert [each.location_id for each in place.pending] == ["l1", "l2"]
    assert [each.due_ms for each in place.pending] == [0, 0]


@pytest.mark.parametrize(
    "event",
    [window(tenant="other"), window(dimension="job:7"), window(dimension="number:ab"), gone(), engaged()],
)
def test_what_nobody_wants_is_not_noted(event: object) -> None:
    """Unknown tenants, unasked dimensions, and contacts in the catalogue's dialect leave no entry."""
    place = context()
    place.feed(event)  # type: ignore[arg-type]
    assert place.pending == []


def test_a_tenant_without_a_location_has_nothing_to_post() -> None:
    """Where there is no destination no entry is made."""
    place = MemoryContext(sink({"acme": tenant()}).stage)
    place.feed(window())
    assert place.pending == []


@pytest.mark.parametrize("dimension", ["all", "tag:id:1", "tag:name:vip"])
def test_all_and_tags_are_posted_by_default(dimension: str) -> None:
    """Both forms of a tag dimension count as ``tag``."""
    place = context()
    place.feed(window(dimension=dimension))
    assert len(place.pending) == 2


@given(st.permutations([1, 2, 3, 4]))
def test_in_any_order_the_newest_revision_waits(order: list[int]) -> None:
    """Whatever the order of revisions, the last one is what will be posted, once per location."""
    place = context()
    place.feed(*(window(revision) for revision in order))
    assert revisions(place) == [4, 4]
    assert len(place.queue) == 2


@given(st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=6))
def test_redelivery_changes_nothing(order: list[int]) -> None:
    """The same records again leave the same state."""
    once, twice = context(), context()
    once.feed(*(window(revision) for revision in order))
    twice.feed(*(window(revision) for revision in [*order, *order]))
    assert once.pending == twice.pending
    assert once.queue == twice.queue


async def test_what_was_posted_is_not_noted_again() -> None:
    """An equal or older revision than the posted one is no news."""
    place = context()
    place.feed(window(5))
    await settle(place)
    place.feed(window(5), window(4))
    assert (place.pending, place.queue) == ([], [])


async def test_an_open_window_waits_for_its_interval_and_a_closed_one_does_not() -> None:
    """After a post the next open value is due one interval later, the closing one at once."""
    place = MemoryContext(sink({"acme": tenant("l1")}, open_interval_s=60.0).stage)
    place.feed(window(1))
    await settle(place)
    place.feed(window(2))
    assert [each.due_ms for each in place.pending] == [NOW_MS + 60_000]
    place.feed(window(3, closed=True))
    assert [each.due_ms for each in place.pending] == [0]
    assert len(place.queue) == 1


async def test_a_value_that_cannot_be_posted_waits_on() -> None:
    """A newer value, even the closing one, takes the place and the back-off of the failing one."""
    place = MemoryContext(sink({"acme": tenant("l1")}).stage)
    place.feed(window(1))
    failing = _failing(place.pending[0], due_ms=NOW_MS + 5_000)
    await place.commit(lambda read: Outcome(writes=put(read, failing)), cause=window())
    place.feed(window(2, closed=True))
    assert [(each.due_ms, each.attempts) for each in place.pending] == [(NOW_MS + 5_000, 3)]
    assert revisions(place) == [2]


def _failing(pending: Pending, due_ms: int) -> Pending:
    return Pending(
        tenant=pending.tenant,
        location_id=pending.location_id,
        work=pending.work,
        cause=pending.cause,
        due_ms=due_ms,
        since_ms=NOW_MS,
        attempts=3,
    )


def test_the_vendors_dialect_shows_days_only() -> None:
    """Hours have no place among a location's custom values."""
    place = MemoryContext(sink(VENDOR).stage)
    place.feed(window(width="1h"), window(width="1d"))
    assert [each.work.subject for each in place.pending] == [window(width="1d").key]


@pytest.mark.parametrize("events", [[engaged(), enriched(("l1", "c1"))], [enriched(("l1", "c1")), engaged()]])
def test_a_contacts_fields_need_both_halves(events: list[object]) -> None:
    """In either order of its halves a contact is noted when both are known, once."""
    place = MemoryContext(sink(VENDOR).stage)
    place.feed(events[0])  # type: ignore[arg-type]
    assert place.pending == []
    place.feed(events[1])  # type: ignore[arg-type]
    assert [_contact_id(each) for each in place.pending] == ["c1"]


def test_contacts_of_other_locations_are_left_alone() -> None:
    """Only natives at the tenant's own locations are written to."""
    place = MemoryContext(sink(VENDOR).stage)
    place.feed(engaged(), enriched(("elsewhere", "c1"), ("l1", "c2")))
    assert [_contact_id(each) for each in place.pending] == ["c2"]


async def test_a_contact_that_did_nothing_new_is_not_posted_again() -> None:
    """Our own write comes back as a changed contact; equal fields end that loop."""
    place = MemoryContext(sink(VENDOR).stage)
    place.feed(engaged(), enriched(("l1", "c1")))
    await settle(place)
    place.feed(engaged(), enriched(("l1", "c1")))
    assert place.pending == []


async def test_a_contacts_fields_wait_for_their_interval() -> None:
    """Changed fields are due one interval after the last post."""
    place = MemoryContext(sink(VENDOR, contact_interval_s=10.0).stage)
    place.feed(engaged(), enriched(("l1", "c1")))
    await settle(place)
    place.feed(engaged(60.0))
    assert [each.due_ms for each in place.pending] == [NOW_MS + 10_000]


def test_a_contact_that_is_gone_is_forgotten() -> None:
    """A tombstone removes what waits; without both halves nothing is kept."""
    place = MemoryContext(sink(VENDOR).stage)
    place.feed(enriched(("l1", "c1")), engaged(), gone())
    assert (place.pending, place.queue) == ([], [])
    assert [key for key, _ in place.read.scan(CONTACTS, "", "~")] == ["acme:m:1"]


@pytest.mark.parametrize("topics", [("contacts.enriched", ENGAGEMENT), (ENGAGEMENT, "contacts.enriched")])
def test_of_somebody_who_was_erased_nothing_is_kept(topics: tuple[str, str]) -> None:
    """In either order of the two tombstones nothing waits, and neither half is remembered."""
    place = MemoryContext(sink(VENDOR).stage)
    place.feed(enriched(("l1", "c1")), engaged(), *(gone(topic=topic) for topic in topics))
    assert (place.pending, place.queue) == ([], [])
    assert list(place.read.scan(CONTACTS, "", "~")) == []


def test_an_old_redriven_record_brings_back_the_newest_value() -> None:
    """A dead letter that returns after newer activity posts the newer totals, not its own."""
    place = MemoryContext(sink(VENDOR).stage)
    place.feed(enriched(("l1", "c1")), engaged(80.0, day=2), engaged(10.0, day=1))
    assert [_score(each) for each in place.pending] == [80.0]


def _contact_id(pending: Pending) -> str:
    assert isinstance(pending.work, Contact)
    return pending.work.contact_id


def _score(pending: Pending) -> float:
    assert isinstance(pending.work, Contact)
    return pending.work.engagement.score


def test_nothing_is_posted_because_of_a_replayed_window() -> None:
    """A record that a replay has copied leaves nothing to post, unless its operator lets sinks act."""
    place = context()
    place.feed(marked(window()))
    assert place.pending == []
    place.feed(marked(window(revision=2), replay_effects="true"))
    assert revisions(place) == [2, 2]


def test_what_waits_already_is_posted_as_the_replay_has_it() -> None:
    """A live record has asked for the post; it carries the newest value."""
    place = context()
    place.feed(window(revision=1))
    place.feed(marked(window(revision=2)))
    assert revisions(place) == [2, 2]


def test_a_replayed_contact_is_taken_into_the_state_alone() -> None:
    """Where the contact stands is known afterwards; posted is what a live record says next."""
    place = MemoryContext(sink(VENDOR).stage)
    place.feed(marked(enriched(("l1", "u1"))), marked(engaged()))
    assert place.pending == []
    assert place.read.get(CONTACTS, engaged().key) is not None
    place.feed(engaged(60.0))
    assert [isinstance(each.work, Contact) for each in place.pending] == [True]


def marked(event: Event[Any], **more: str) -> Event[Any]:
    """*event* as a replay has copied it."""
    return msgspec.structs.replace(event, headers={"replay": "5f0c2a91", **more})
