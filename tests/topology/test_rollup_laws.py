"""The laws of the rollup stage, through the driver."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from random import Random
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.events import Measures, Partial, Tick, WindowMetrics
from pipeline.instants import from_ms
from pipeline.stages import rollup
from pipeline.testing import EPOCH_MS, Driver

HOUR = 3_600_000
DAY = 24 * HOUR
GRACE_S = 2 * 3600
ZONES = {"acme": ZoneInfo("America/New_York")}
PARTITIONS = 2

KEYS = tuple(
    f"{tenant}|{dimension}|{width}|{from_ms(start)}"
    for tenant, width, start in (
        ("acme", "1h", EPOCH_MS),
        ("acme", "1h", EPOCH_MS + HOUR),
        ("acme", "1d", EPOCH_MS + 5 * HOUR),
        ("beta", "1d", EPOCH_MS),
    )
    for dimension in ("all", "tag:name:a%7Cb")
)


class Share(NamedTuple):
    """A partition's share of a window: what it holds follows from key, partition and revision."""

    key: str
    partition: int
    revision: int

    @property
    def measures(self) -> Measures:
        """Anything, but the same again each time; nothing at every third revision."""
        if self.revision % 3 == 0:
            return Measures()
        number = self.revision + self.partition
        return Measures(sent=number, cost=f"{number / 4}", reply_seconds={str(number): 1, "7": 2})


class Moment(NamedTuple):
    """A tick, so many hours after the beginning."""

    hours: int


Step = Share | Moment

SHARES = st.builds(Share, st.sampled_from(KEYS), st.integers(0, 3), st.integers(1, 6))
STEPS = st.lists(SHARES | st.builds(Moment, st.integers(0, 60)), max_size=40)
SPLITS = st.lists(st.integers(1, 7), min_size=1, max_size=4)


@pytest.fixture(autouse=True, scope="module")
def small_chunks() -> Iterator[None]:
    """Two windows a call, so that closing and sweeping are interrupted often."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rollup, "CHUNK", 2)
        yield


def deliver(driver: Driver, steps: Iterable[Step]) -> None:
    """Write *steps*, one a millisecond, so that they are taken in their order; work them off."""
    for step in steps:
        driver.now_ms += 1
        match step:
            case Share(key, partition, revision):
                share = Partial(
                    window_key=key, partition=partition, revision=revision, measures=step.measures
                )
                driver.send("engagement.partials", f"{key}|{partition}", share)
            case Moment(hours):
                tick(driver, EPOCH_MS + hours * HOUR)
    driver.run()


def tick(driver: Driver, at: int) -> None:
    """Let it be *at* everywhere."""
    for partition in range(PARTITIONS):
        driver.send("clock.ticks", str(partition), Tick(from_ms(at)))


def ran(steps: Iterable[Step], batches: Sequence[int] = (100,)) -> Driver:
    """A driver that has taken *steps*."""
    driver = Driver([rollup.stage(grace_s=GRACE_S, zones=ZONES)], batches=batches, partitions=PARTITIONS)
    deliver(driver, steps)
    assert driver.records("dead-letters") == []
    return driver


def table(driver: Driver) -> dict[str, WindowMetrics]:
    """What stands on ``engagement.metrics`` in the end."""
    return driver.table("engagement.metrics")


def undated(metrics: WindowMetrics) -> WindowMetrics:
    """*metrics* without what depends on how shares and ticks interleaved."""
    return msgspec.structs.replace(metrics, revision=0, closed=False)


def unrevised(driver: Driver) -> dict[str, WindowMetrics]:
    """The table without the revisions."""
    return {key: msgspec.structs.replace(m, revision=0) for key, m in table(driver).items()}


def expected(steps: Iterable[Step]) -> dict[str, dict[str, Any]]:
    """Counts of each window: the sum of the newest share of each partition."""
    newest: dict[tuple[str, int], Share] = {}
    for step in steps:
        if isinstance(step, Share):
            newest[step[:2]] = max(step, newest.get(step[:2], step))
    sums: dict[str, dict[str, Any]] = defaultdict(lambda: defaultdict(float))
    for (key, _), share in newest.items():
        sums[key]["sent"] += share.measures.sent
        sums[key]["cost"] += float(share.measures.cost)
        for bucket, count in share.measures.reply_seconds.items():
            sums[key][bucket] += count
    return sums


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_a_window_is_the_sum_of_its_newest_shares(steps: list[Step]) -> None:
    """Measures are the sum over the partitions of the newest share of each, all zeros included."""
    told = {
        key: {"sent": m.measures.sent, "cost": float(m.measures.cost)} | m.measures.reply_seconds
        for key, m in table(ran(steps)).items()
    }
    assert told == expected(steps)


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_revisions_of_a_window_grow_by_one_and_each_tells_something_new(steps: list[Step]) -> None:
    """Every record of a window has the next revision, its own id, and differs from the one before."""
    records: dict[str, list[Any]] = defaultdict(list)
    for event in ran(steps, [1]).events("engagement.metrics"):
        records[event.key].append(event)
    for key, events in records.items():
        revisions = [event.value.revision for event in events]
        assert revisions == list(range(1, len(events) + 1))
        assert [event.id for event in events] == [f"{key}|{revision}" for revision in revisions]
        told = [msgspec.structs.replace(event.value, revision=0) for event in events]
        assert all(one != other for one, other in pairwise(told))


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_a_window_is_closed_by_the_first_tick_after_its_grace(steps: list[Step]) -> None:
    """After a tick exactly the windows whose end and grace have passed stand closed, and once only."""
    driver = ran(steps)
    hours = max((step.hours for step in steps if isinstance(step, Moment)), default=0) + 1
    deliver(driver, [Moment(hours)])
    now = from_ms(EPOCH_MS + hours * HOUR - GRACE_S * 1000)
    assert {key: metrics.closed for key, metrics in table(driver).items()} == {
        key: metrics.end <= now for key, metrics in table(driver).items()
    }
    count = len(driver.records("engagement.metrics"))
    deliver(driver, [Moment(hours), Moment(hours + 200), Moment(hours + 201)])
    assert all(metrics.closed for metrics in table(driver).values())
    assert len(driver.records("engagement.metrics")) <= count + len(KEYS)


@settings(max_examples=100, deadline=None)
@given(STEPS, st.randoms(use_true_random=False))
def test_any_order_ends_in_equal_measures(steps: list[Step], random: Random) -> None:
    """However shares and ticks interleave, the windows hold the same."""
    one, other = table(ran(steps)), table(ran(random.sample(steps, len(steps))))
    assert {k: undated(m) for k, m in one.items()} == {k: undated(m) for k, m in other.items()}


@settings(max_examples=100, deadline=None)
@given(STEPS, st.data())
def test_redelivery_changes_nothing(steps: list[Step], data: st.DataObject) -> None:
    """What comes again publishes nothing."""
    driver = ran(steps)
    before = len(driver.records("engagement.metrics"))
    shares = [step for step in steps if isinstance(step, Share)]
    deliver(driver, data.draw(st.lists(st.sampled_from(shares), max_size=8)) if shares else ())
    assert len(driver.records("engagement.metrics")) == before


@settings(max_examples=60, deadline=None)
@given(STEPS, SPLITS)
def test_any_split_into_batches_ends_equal(steps: list[Step], splits: list[int]) -> None:
    """However the input is cut into transactions, windows and state hold the same after the next tick."""
    whole, cut = ran(steps), ran(steps, splits)
    for driver in (whole, cut):
        deliver(driver, [Moment(1000)])
    assert unrevised(cut) == unrevised(whole)
    assert shares_state(cut) == shares_state(whole)


@settings(max_examples=60, deadline=None)
@given(STEPS, STEPS)
def test_a_restored_stage_goes_on_as_if_nothing_had_happened(steps: list[Step], more: list[Step]) -> None:
    """State restored from the changelogs equals the live state, and leads to the same table."""
    driver, undisturbed = ran(steps), ran(steps)
    driver.restart()
    assert driver.state("rollup") == undisturbed.state("rollup")
    deliver(driver, more)
    deliver(undisturbed, more)
    assert table(driver) == table(undisturbed)


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_old_windows_are_dropped_from_the_state(steps: list[Step]) -> None:
    """400 days after end and arrival nothing but the clock is kept."""
    driver = ran(steps)
    deliver(driver, [Moment(100), Moment(500 * 24)])
    assert {key.split(b"\0")[1] for key in own_state(driver)} <= {b"clock"}


def own_state(driver: Driver) -> dict[bytes, bytes]:
    """The stage's own entries, without the runtime's cursors."""
    state = driver.state("rollup")
    return {key: value for key, value in state.items() if key.split(b"\0")[1] != b"cursors"}


def shares_state(driver: Driver) -> dict[bytes, bytes]:
    """What is kept of the shares."""
    return {key: value for key, value in own_state(driver).items() if key.split(b"\0")[1] == b"shares"}
