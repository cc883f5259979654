"""Pages and scans as pure functions: what changed, what is missing, what is not believed."""

import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.events import PollState
from pipeline.instants import Time
from pipeline.runtime.state import Layers, Memory
from pipeline.sources.scan import (
    ITEMS,
    SCHEDULE,
    Absent,
    Item,
    Known,
    Page,
    Resource,
    absent,
    item_of,
    page_outcome,
    removal_outcome,
    suspicious,
)
from pipeline.stage import Delete, Outcome, Put

NOW = 1_893_456_000_000
STARTED = Time("2030-01-01T00:00:00.000Z")
STATE = PollState(interval_s=60, next_due_at=STARTED, scan=3, scan_started_at=STARTED)


async def _no_page(_: str) -> Page:
    return Page(())


RESOURCE = Resource(tenant="acme", account="loc", product="users", name="tags", interval_s=60, page=_no_page)


class State:
    """The poller's state, to which outcomes are applied."""

    def __init__(self) -> None:
        self.backend = Memory()
        self.read = Layers(0, (SCHEDULE, ITEMS), self.backend)

    def apply(self, outcome: Outcome) -> Outcome:
        """Make *outcome*'s writes stand."""
        self.read.push()
        self.read.write(outcome.writes)
        self.backend.apply(self.read.changes())
        self.read.committed()
        return outcome

    def page(self, *items: Item, state: PollState = STATE) -> Outcome:
        """Take a page of *items*."""
        return self.apply(page_outcome(self.read, RESOURCE, state, Page(items), NOW))

    def known(self, identifier: str) -> Known | None:
        """What is remembered of an item."""
        return self.read.get(ITEMS, f"{RESOURCE.key}|{identifier}")


def item(identifier: str, **content: object) -> Item:
    """An item that is published."""
    return item_of(identifier, f"acme:u:-:{identifier}", {"_id": identifier, **content})


def test_a_changed_item_is_published_and_an_unchanged_one_is_not() -> None:
    """Equal content in another order of fields is no change."""
    state = State()
    first = state.page(item("1", a=1, b=2), item("2"))
    second = state.page(item("1", b=2, a=1), item("2", tag="VIP"))
    assert [emit.subject for emit in first.emit] == ["acme:u:-:1", "acme:u:-:2"]
    assert [emit.value for emit in second.emit] == [b'{"_id":"2","tag":"VIP"}']


def test_a_page_is_one_outcome_of_outputs_items_and_cursor() -> None:
    """The cursor stands exactly where what is before it does."""
    moved = msgspec.structs.replace(STATE, cursor="next")
    outcome = State().page(item("1"), state=moved)
    assert [write.key for write in outcome.writes] == [RESOURCE.key, f"{RESOURCE.key}|1"]
    assert isinstance(outcome.writes[0], Put)
    assert outcome.writes[0].value == moved


def test_an_id_that_stands_twice_on_a_page_is_published_once() -> None:
    """Pages of a moving set repeat items; the last is the newest."""
    outcome = State().page(item("1", n=1), item("1", n=2))
    assert [emit.value for emit in outcome.emit] == [b'{"_id":"1","n":2}']


def test_what_is_only_counted_is_neither_published_nor_kept() -> None:
    """An item out of reach leaves no state behind, also where it was within reach before."""
    state = State()
    state.page(item("1"))
    outcome = state.page(msgspec.structs.replace(item("1"), published=False))
    assert outcome.emit == ()
    assert state.known("1") is None


def test_a_change_is_told_by_what_is_compared() -> None:
    """A snapshot that differs by our own stamps only is unchanged."""
    state = State()
    snapshots = [Item("s", "k", body, compared=b"same") for body in (b"stamped 1", b"stamped 2")]
    emitted = [len(state.page(snapshot).emit) for snapshot in snapshots]
    assert emitted == [1, 0]


def test_an_item_that_reappears_is_counted_anew() -> None:
    """Absences must be in a row."""
    state = State()
    state.page(item("1"))
    (missed,) = [one for one in absent(state.read, RESOURCE, set()) if one]
    state.apply(removal_outcome(RESOURCE, STATE, [missed], [], NOW))
    counted = state.known("1")
    state.page(item("1"))
    reset = state.known("1")
    assert counted is not None
    assert reset is not None
    assert (counted.absences, reset.absences) == (1, 0)


def test_a_removal_is_the_last_known_item_marked_removed() -> None:
    """Decode is told what is gone, and since when at the latest."""
    known = Known(b"hash", 1, "acme:u:-:1", b'{"_id":"1"}')
    outcome = removal_outcome(RESOURCE, STATE, [], [Absent("1", known)], NOW)
    (emit,) = outcome.emit
    headers = dict(emit.headers)
    assert (emit.key, emit.value) == ("acme:u:-:1", b'{"_id":"1"}')
    assert (headers["change"], headers["scan_started_at"]) == ("removed", STARTED)
    assert outcome.writes == (Delete(ITEMS, f"{RESOURCE.key}|1"),)


def test_a_record_carries_every_header() -> None:
    """What decode needs stands in the headers, and the id follows from item and scan."""
    (emit,) = State().page(item("1")).emit
    headers = dict(emit.headers)
    assert headers.pop("traceparent").startswith("00-")
    assert headers == {
        "ce_source": "/poll/users/acme/loc",
        "source": "poll",
        "product": "users",
        "resource": "tags",
        "tenant": "acme",
        "account": "loc",
        "verified": "true",
        "received_at": STARTED,
        "scan_started_at": STARTED,
    }
    assert emit.id == hashlib.sha256(b"users|loc|tags|1|3|").hexdigest()


@given(st.sets(st.text(max_size=5), max_size=40), st.sets(st.text(max_size=5), max_size=40))
def test_what_is_absent_is_what_is_known_and_was_not_seen(known: set[str], seen: set[str]) -> None:
    """However many there are, and whatever their ids are; another resource's are not looked at."""
    state = State()
    other = msgspec.structs.replace(RESOURCE, name="tagsX")
    state.apply(page_outcome(state.read, other, STATE, Page((item("other"),)), NOW))
    state.page(*(item(identifier) for identifier in known))
    assert {one.id for one in absent(state.read, RESOURCE, seen) if one} == known - seen


def test_absences_are_found_in_chunks() -> None:
    """Between chunks others may work."""
    state = State()
    state.page(*(item(f"{number:04}") for number in range(1_200)))
    found = list(absent(state.read, RESOURCE, set()))
    assert len([one for one in found if one]) == 1_200
    assert found.count(None) == 3


@pytest.mark.parametrize(
    ("removed", "seen", "believed"),
    [(10, 0, True), (11, 44, True), (11, 43, False), (11, 0, False), (200, 800, True), (201, 799, False)],
)
def test_a_scan_that_would_remove_too_much_is_suspicious(removed: int, seen: int, believed: bool) -> None:
    """More than a fifth, and more than ten."""
    assert suspicious(removed, seen) is not believed
