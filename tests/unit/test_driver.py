"""The broker-free driver, on toy stages."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.codec import text_headers
from pipeline.events import Tick
from pipeline.instants import Time
from pipeline.testing import Driver
from tests.unit.runtime_toys import FAN_OUT, STAGE, topics

texts = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["x", "x", "delete", "bug", "fan out", "reject"])),
    max_size=20,
)


def driver(*sent: tuple[str, str], batches: tuple[int, ...] = (100,)) -> Driver:
    """A driver of the toy stage that was sent (key, text)."""
    one = Driver([STAGE], topics=topics(), batches=batches)
    for key, text in sent:
        one.send("in", key, Tick(Time(text)))
    return one


def test_a_table_has_the_last_value_of_each_key() -> None:
    """What was deleted is not in it."""
    one = driver(("a", "x"), ("a", "x"), ("b", "x"), ("b", "delete"))
    one.run()
    assert one.table("table") == {"a": Tick(Time("2"))}


@settings(deadline=None, max_examples=12)
@given(texts, texts)
def test_restored_is_live(before: list[tuple[str, str]], after: list[tuple[str, str]]) -> None:
    """Stores thrown away and restored from their changelogs go on as if nothing had happened."""
    live, restored = driver(*before), driver(*before)
    live.run()
    restored.run()
    restored.restart()
    assert restored.state("toy") == live.state("toy")
    for one in (live, restored):
        for key, text in after:
            one.send("in", key, Tick(Time(text)))
        one.run()
    assert restored.records("out") == live.records("out")


@settings(deadline=None, max_examples=12)
@given(texts, st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_any_split_into_batches_ends_equal(sent: list[tuple[str, str]], batches: list[int]) -> None:
    """However the input is cut, the tables, the state and the events of each key are the same."""
    one, other = driver(*sent), driver(*sent, batches=tuple(batches))
    one.run()
    other.run()
    assert other.table("table") == one.table("table")
    assert other.state("toy") == one.state("toy")
    assert Counter(r[4] for r in other.records("out")) == Counter(r[4] for r in one.records("out"))


def test_a_replay_gives_the_same() -> None:
    """Fresh stages over the kept sources end with the same tables and events."""
    one = driver(("a", "x"), ("b", "x"), ("a", "fan out"), ("b", "bug"))
    one.run()
    again = one.replay()
    assert again.table("table") == one.table("table")
    assert again.records("out") == one.records("out")
    assert len(again.records("dead-letters")) == len(one.records("dead-letters")) == 1


def test_a_fan_out_survives_a_restart() -> None:
    """The cursor is in the changelog: restored in the middle, the rest follows once."""
    one = driver(("a", "fan out"))
    task = next(each for each in one._tasks if each.partition == one.records("in")[0].partition)
    batch = task.batch(one.log, 100)
    assert batch is not None
    assert len(batch.outputs) == 500
    one._commit(task, batch)
    one.restart()
    one.run()
    assert [event.value.at for event in one.events("out")] == [str(number) for number in range(FAN_OUT)]


@pytest.mark.parametrize("text", ["large", "bad state"])
def test_what_cannot_be_written_is_dead_lettered(text: str) -> None:
    """The driver refuses what the runtime refuses, and goes on."""
    one = driver(("a", "x"), ("a", text), ("a", "x"))
    one.run()
    (dead,) = one.records("dead-letters")
    assert text_headers(dead.headers)["dl_offset"] == "1"
    assert one.table("table") == {"a": Tick(Time("2"))}
