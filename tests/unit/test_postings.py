"""What steps post is added up before the batch ends: once for many records, and all of it."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest

from pipeline.events import Tick
from pipeline.instants import Time
from pipeline.runtime import batch as core
from pipeline.runtime.batch import Processor
from pipeline.runtime.state import Memory
from pipeline.stage import Emit, Event, Outcome, Posted, Put, Stores
from tests.unit.runtime_toys import COUNTS, STAGE, closed, codec, headers_of, outputs, record, take

CALLS: list[int] = []


def post(_: Stores, event: Event[Any]) -> Outcome:
    """Pass the record on and post how long its text is."""
    if event.value.at == "bug":
        raise KeyError("bug")
    return Outcome(emit=(Emit("out", event.key, event.value),), postings=(len(event.value.at),))


def add_up(read: Stores, postings: Sequence[Posted]) -> Iterator[tuple[Event[Any], Outcome]]:
    """Add the lengths to the count of the first one's key; from 1,000 on it is more than a record holds."""
    CALLS.append(len(postings))
    cause = postings[-1][0]
    total = sum(posting for _, posting in postings) + (read.get(COUNTS, "k") or 0)
    value = Tick(Time("x" * 1_000_000 if total >= 1_000 else str(total)))
    yield cause, Outcome((Put(COUNTS, "k", total),), (Emit("table", "k", value),))


@pytest.fixture
def one() -> Processor:
    """A stage that counts by postings."""
    CALLS.clear()
    stage = msgspec.structs.replace(STAGE, step=post, add_up=add_up)
    return Processor(stage, 0, codec(), Memory())


def test_what_a_batch_posts_is_added_up_once(one: Processor) -> None:
    """One call, write and record for three records, caused by the last; a poison one posts nothing."""
    batch = closed(one, "a", "bug", "bb", "ccc")
    assert CALLS == [3]
    assert batch.changes.by_store == {"counts": [(b"k", b"\x06")]}
    (table,) = outputs(batch, "table")
    assert (table.value, table.timestamp) == (b'{"at":"6"}', record("", 3).timestamp)


def test_the_next_batch_adds_to_it(one: Processor) -> None:
    """Postings are the batch's own, and see what the one before added up."""
    closed(one, "a")
    assert closed(one, "bb").changes.by_store == {"counts": [(b"k", b"\x03")]}


def test_a_discarded_batch_posts_nothing(one: Processor) -> None:
    """What was posted and not committed is forgotten with the rest."""
    take(one, record("a"))
    one.discard()
    assert closed(one, "bb").changes.by_store == {"counts": [(b"k", b"\x02")]}


def test_a_large_batch_is_added_up_in_parts(one: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
    """No call has more than the bound, so that none holds up the loop."""
    monkeypatch.setattr(core, "MAX_POSTINGS", 2)
    batch = closed(one, "a", "a", "a", "a", "a")
    assert CALLS == [2, 2, 1]
    assert batch.changes.by_store == {"counts": [(b"k", b"\x05")]}


def test_a_record_of_another_topic_sees_what_was_posted_before(one: Processor) -> None:
    """A tick must close what the shares before it opened, whatever the batches."""
    take(one, record("a"))
    take(one, record("a", 1))
    assert CALLS == []
    take(one, record("a", 0, topic="table"))
    assert CALLS == [2]


def test_a_fan_out_sees_what_was_posted_before(one: Processor) -> None:
    """A cursor is gone on with after all of the batch's postings, as it is after all of its steps."""
    take(one, record("a"))
    one.resume()
    assert CALLS == [1]


def test_a_sum_too_large_for_a_record_is_a_dead_letter(one: Processor) -> None:
    """Nothing of that outcome is kept, what the steps did is, and the cause is told."""
    batch = closed(one, "a" * 1_000)
    assert (batch.changes.by_store, len(outputs(batch, "out"))) == ({}, 1)
    (dead,) = outputs(batch, "dead-letters")
    assert headers_of(dead)["dl_reason"] == "too-large"
