"""What is left to do, told from the records of the topics and the committed offsets alone."""

import msgspec
import pytest

from pipeline import topology
from pipeline.codec import Record
from pipeline.dev.settled import Look
from pipeline.events import PollState
from pipeline.identity import Identity
from pipeline.instants import Time
from pipeline.settings import Settings

PENDING = "app.statistics.pending.changelog"


@pytest.fixture
def look() -> Look:
    """A look at the whole topology, of which nothing was read yet."""
    return Look("app", topology.units(Settings(), Identity(b"")))


def record(topic: str, key: str, value: bytes | None, offset: int = 0) -> Record:
    """A record of partition 0."""
    return Record(topic, 0, offset, 0, key.encode(), value, ())


def left(look: Look, wanted: dict[str, int] | None = None, **committed: dict[tuple[str, int], int]) -> str:
    """What is left where only *committed* was committed."""
    return look.left({stage: committed.get(stage, {}) for stage in look.groups}, wanted or {})


def test_nothing_is_left_where_nothing_was_written(look: Look) -> None:
    """An empty cluster is settled."""
    assert left(look) == ""


def test_a_stage_is_behind_until_it_has_committed_the_last_record(look: Look) -> None:
    """Commit markers at the end of a partition are nobody's work; its last record is."""
    look.take(record("sources.received", "k", b"{}", offset=4))
    assert left(look) == "decode is behind by 5 records"
    assert left(look, decode={("sources.received", 0): 4}) == "decode is behind by 1 records"
    assert left(look, decode={("sources.received", 0): 5}) == ""


def test_ticks_are_not_waited_for(look: Look) -> None:
    """There is always a next one."""
    assert "clock.ticks" not in look.topics


def test_what_waits_to_be_posted_is_left_until_its_tombstone(look: Look) -> None:
    """A value stands in the sink's changelog exactly as long as it is unposted."""
    look.take(record(PENDING, "acme|here|window", b"value"))
    assert left(look) == "statistics's pending: 1"
    look.take(record(PENDING, "acme|here|window", None, offset=1))
    assert left(look) == ""


def test_scans_are_awaited_until_there_are_enough(look: Look) -> None:
    """Each poller's own count of complete scans says how often it has looked."""
    state = PollState(interval_s=4.0, next_due_at=Time("2030-01-01T00:00:00.000Z"), completed=2)
    look.take(record("poll.schedule", "acme|account|sakari.contacts", msgspec.json.encode(state)))
    wanted = {"acme|account|sakari.contacts": 3}
    assert left(look, wanted) == "scans are awaited: acme|account|sakari.contacts"
    assert left(look, {"acme|account|sakari.contacts": 2}) == ""


def test_a_poller_that_rests_for_hours_is_not_waited_for(look: Look) -> None:
    """Its next scan is no part of what is under way."""
    state = PollState(interval_s=3_600.0, next_due_at=Time("2030-01-01T00:00:00.000Z"), completed=2)
    look.take(record("poll.schedule", "acme|account|sakari.messages", msgspec.json.encode(state)))
    assert look.scans == {}
