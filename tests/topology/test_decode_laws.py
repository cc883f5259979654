"""The laws of the decode stage, through the driver, over consistent worlds."""

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.events import Tick
from pipeline.testing import Driver
from tests.topology.decode_world import Sent, send, time, worlds
from tests.unit.decode_records import STAGE

TABLES = ("sakari.contacts", "users.contacts", "users.tags")
FACTS = ("sakari.events", "users.events")
SPLITS = st.lists(st.integers(1, 7), min_size=1, max_size=4)


def decoded(records: list[Sent], batches: list[int] | None = None) -> Driver:
    """A driver that has worked on all *records*."""
    driver = Driver([STAGE], batches=batches or [100])
    send(driver, records)
    driver.run()
    assert driver.records("dead-letters") == []
    return driver


def tables(driver: Driver) -> dict[str, Any]:
    """What stands in the end."""
    return {topic: driver.table(topic) for topic in TABLES}


def facts(driver: Driver) -> Counter[str]:
    """The facts by their ids; moves depend on the order, as the data sheet says."""
    events = [event for topic in FACTS for event in driver.events(topic)]
    return Counter(event.id for event in events if "moved" not in event.type)


def sequences(driver: Driver) -> list[tuple[int, str, str]]:
    """Everything on the event topics, in order."""
    return [
        (r.partition, e.id, e.key)
        for t in FACTS
        for r, e in zip(driver.records(t), driver.events(t), strict=True)
    ]


@given(worlds().flatmap(lambda world: st.tuples(st.just(world), st.permutations(world))))
@settings(max_examples=150, deadline=None)
def test_any_order_ends_equal(orders: tuple[list[Sent], list[Sent]]) -> None:
    """The records of one world end in the same tables and facts, whatever order they come in."""
    one, other = (decoded(order) for order in orders)
    assert tables(one) == tables(other)
    assert facts(one) == facts(other)


@given(worlds().flatmap(lambda w: st.tuples(st.just(w), st.lists(st.sampled_from(w), max_size=20))))
@settings(max_examples=100, deadline=None)
def test_redelivery_changes_nothing(world_and_repeats: tuple[list[Sent], list[Sent]]) -> None:
    """Records that come again add no fact, no state and no record of a table."""
    world, repeats = world_and_repeats
    driver = decoded(world)
    before = driver.state("decode"), [len(driver.records(topic)) for topic in TABLES + FACTS]
    send(driver, repeats)
    driver.run()
    assert (driver.state("decode"), [len(driver.records(topic)) for topic in TABLES + FACTS]) == before


@given(worlds())
@settings(max_examples=50, deadline=None)
def test_each_fact_is_told_once(world: list[Sent]) -> None:
    """Webhook and poll of the same thing are one fact."""
    assert set(facts(decoded(world + world)).values()) <= {1}


@given(worlds(), SPLITS)
@settings(max_examples=75, deadline=None)
def test_any_split_into_batches_gives_the_same(world: list[Sent], batches: list[int]) -> None:
    """Where a batch ends shows neither in the tables nor in the order of events."""
    whole, split = decoded(world), decoded(world, batches)
    assert tables(whole) == tables(split)
    assert sequences(whole) == sequences(split)


@given(worlds(), st.integers(0, 30), SPLITS)
@settings(max_examples=75, deadline=None)
def test_restored_state_is_live_state(world: list[Sent], cut: int, batches: list[int]) -> None:
    """After a loss of all stores the changelogs give them back, and work goes on as if nothing was."""
    driver = decoded(world[:cut], batches)
    live = driver.state("decode")
    driver.restart()
    assert driver.state("decode") == live
    send(driver, world[cut:])
    driver.run()
    assert (tables(driver), facts(driver)) == (tables(decoded(world)), facts(decoded(world)))


@given(worlds())
@settings(max_examples=25, deadline=None)
def test_a_replay_gives_the_same(world: list[Sent]) -> None:
    """The kept source records end in the same tables and the same events."""
    driver = decoded(world)
    again = driver.replay()
    assert (tables(again), sequences(again)) == (tables(driver), sequences(driver))


@given(worlds())
@settings(max_examples=25, deadline=None)
def test_forgetting_touches_no_table(world: list[Sent]) -> None:
    """Far later only what was seen is forgotten; contacts stay."""
    driver = decoded(world)
    before = tables(driver), sequences(driver)
    for partition in range(2):
        driver.send("clock.ticks", str(partition), Tick(time(60 * 24 * 100)))
    driver.run()
    assert (tables(driver), sequences(driver)) == before
    assert not [key for key in driver.state("decode") if key[1:].startswith(b"\0seen\0")]
