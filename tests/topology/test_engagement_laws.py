"""The laws of the engagement stage, through the driver, against a model that never corrects itself."""

import math
from collections.abc import Iterable, Iterator, Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.events import ContactEngagement, Measures, Tick
from pipeline.instants import from_ms, to_ms
from pipeline.stage import Stage
from pipeline.stages import engagement
from pipeline.stages.engagement import sweep
from pipeline.testing import Driver
from tests.topology.engagement_model import (
    GRACE_S,
    HISTORIES,
    HOUR,
    MAX_TAGS,
    REPLY_S,
    START,
    ZONES,
    Delivery,
    Model,
    expected,
    uniform,
)

DAY = 24 * HOUR
OUTPUTS = ("engagement.contacts", "engagement.partials", "dead-letters")
TOTALS = sorted(set(Measures.__struct_fields__) & set(ContactEngagement.__struct_fields__))

#: Before this no fact of a history can be late.
EARLIEST_LATE = START + HOUR + GRACE_S * 1000

SPLITS = st.lists(st.integers(1, 7), min_size=1, max_size=4)


@pytest.fixture(autouse=True, scope="module")
def small_chunks() -> Iterator[None]:
    """Three entries a call, so that every sweep is interrupted often."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "CHUNK", 3)
        yield


def stage() -> Stage:
    """The stage under test."""
    return engagement.stage(
        zones=ZONES, grace_s=GRACE_S, reply_window_s=REPLY_S, max_tags=MAX_TAGS, seen_days=45
    )


def deliver(driver: Driver, history: Iterable[Delivery]) -> None:
    """Write *history* and work it off; arrival in the order of the list, whatever the clocks say."""
    for activity, received_at, backfill in history:
        driver.send(
            "activity.enriched",
            activity.contact_key,
            activity,
            at=received_at,
            id=activity.fact_id,
            backfill=backfill,
        )
    driver.run()


def ran(history: Iterable[Delivery], *, batches: Sequence[int] = (100,), partitions: int = 2) -> Driver:
    """A driver that has taken *history* in batches of those sizes."""
    driver = Driver([stage()], batches=batches, partitions=partitions)
    deliver(driver, history)
    return driver


def shares(driver: Driver) -> dict[str, Measures]:
    """What each partition told last of each window, where it is not nothing."""
    table = driver.table("engagement.partials")
    return {key: partial.measures for key, partial in table.items() if partial.measures != Measures()}


def by_window(driver: Driver) -> dict[str, Measures]:
    """The shares of a driver with one partition by window key."""
    return {key.rpartition("|")[0]: measures for key, measures in shares(driver).items()}


def tables(driver: Driver) -> tuple[Any, ...]:
    """All that other teams can see in the end."""
    return shares(driver), driver.table("engagement.contacts")


def counted(values: ContactEngagement | Measures) -> dict[str, Any]:
    """The counts of a contact's totals, or as many of a window's, that are not zero."""
    pairs = {name: getattr(values, name) for name in TOTALS}
    return {name: value for name, value in pairs.items() if value not in {0, "0"}}


def tick(driver: Driver, at: int) -> None:
    """Let it be *at* in every partition, and everything that follows be done."""
    for partition in range(2):
        driver.send("clock.ticks", str(partition), Tick(from_ms(at)), at=at)
    driver.run()


# -- the laws ------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(HISTORIES)
def test_windows_hold_what_the_model_tells(history: list[Delivery]) -> None:
    """Every measure of every window is what the whole history, looked at at once, comes to."""
    assert by_window(ran(history, partitions=1)) == expected(history, "1h", "1d")


@settings(max_examples=100, deadline=None)
@given(HISTORIES)
def test_totals_hold_what_the_model_tells(history: list[Delivery]) -> None:
    """A contact's totals count every fact once, however late."""
    table = ran(history).table("engagement.contacts")
    totals = {key: counted(contact) for key, contact in table.items()}
    assert {key: total for key, total in totals.items() if total} == {
        key: counted(total) for key, total in expected(history, "total").items()
    }


@settings(max_examples=100, deadline=None)
@given(HISTORIES)
def test_scores_hold_what_the_formula_tells(history: list[Delivery]) -> None:
    """S and the score are those of the formula at the contact's last activity; 0 while opted out."""
    for key, contact in ran(history).table("engagement.contacts").items():
        if contact.score_at is None:
            continue
        model = Model([delivery for delivery in history if delivery.activity.contact_key == key], "total")
        value = model.score_sum(to_ms(contact.score_at))
        assert contact.score_at == contact.last_activity_at
        assert contact.opted_out is model.opted_out()
        assert contact.score_sum == pytest.approx(value, abs=2e-6)
        shown = 0.0 if contact.opted_out else 100 * (1 - math.exp(-value))
        assert contact.score == pytest.approx(shown, abs=2e-6)


@settings(max_examples=100, deadline=None)
@given(HISTORIES, st.randoms(use_true_random=False))
def test_any_order_ends_equal(history: list[Delivery], random: Random) -> None:
    """In whatever order the facts come, totals, scores and windows end equal."""
    history = uniform(history)
    shuffled = random.sample(history, len(history))
    assert tables(ran(shuffled)) == tables(ran(history))


@settings(max_examples=100, deadline=None)
@given(HISTORIES, st.data())
def test_redelivery_changes_nothing(history: list[Delivery], data: st.DataObject) -> None:
    """What comes again neither writes a record nor becomes a dead letter."""
    driver = ran(history)
    before = {topic: len(driver.records(topic)) for topic in OUTPUTS}
    deliver(driver, data.draw(st.lists(st.sampled_from(history), max_size=10)) if history else ())
    assert {topic: len(driver.records(topic)) for topic in OUTPUTS} == before


@settings(max_examples=60, deadline=None)
@given(HISTORIES, SPLITS)
def test_any_split_into_batches_ends_equal(history: list[Delivery], splits: list[int]) -> None:
    """However the input is cut into transactions, the tables and the state are the same."""
    whole, cut = ran(history), ran(history, batches=splits)
    assert tables(cut) == tables(whole)
    assert cut.state("engagement") == whole.state("engagement")


@settings(max_examples=60, deadline=None)
@given(HISTORIES, HISTORIES)
def test_a_restored_stage_goes_on_as_if_nothing_had_happened(
    history: list[Delivery], more: list[Delivery]
) -> None:
    """State restored from the changelogs equals the live state, and leads to the same tables."""
    driver, undisturbed = ran(history), ran([*history, *more])
    live = driver.state("engagement")
    driver.restart()
    assert driver.state("engagement") == live
    deliver(driver, more)
    assert tables(driver) == tables(undisturbed)


@settings(max_examples=60, deadline=None)
@given(HISTORIES)
def test_a_late_fact_is_dead_lettered_once(history: list[Delivery]) -> None:
    """Each dead letter is of a fact that came after the grace of one of its windows, once a fact."""
    letters = [dict(record.headers) for record in ran(history).records("dead-letters")]
    assert {letter["dl_reason"] for letter in letters} <= {b"late"}
    facts = [letter["ce_id"] for letter in letters]
    assert len(facts) == len(set(facts))
    overdue = {d.activity.fact_id for d in history if not d.backfill and d.received_at > EARLIEST_LATE}
    assert {fact.decode() for fact in facts} <= overdue


@settings(max_examples=40, deadline=None)
@given(HISTORIES, HISTORIES)
def test_a_sweep_of_what_is_young_changes_nothing(history: list[Delivery], more: list[Delivery]) -> None:
    """A tick before anything has aged drops nothing that later facts need."""
    driver = ran(history)
    tick(driver, START + 10 * DAY)
    deliver(driver, more)
    assert tables(driver) == tables(ran([*history, *more]))


@settings(max_examples=40, deadline=None)
@given(HISTORIES)
def test_a_sweep_leaves_only_contacts_in_the_end(history: list[Delivery]) -> None:
    """What has aged out is dropped, chunk by chunk, from every store but the contacts'."""
    driver = ran(history)
    tick(driver, START + 1000 * DAY)
    kept = {key.split(b"\0")[1] for key in driver.state("engagement")}
    assert kept <= {b"contacts", b"clock"}
