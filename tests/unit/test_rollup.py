"""What the rollup stage makes of single shares and ticks."""

from typing import Any
from zoneinfo import ZoneInfo

import pytest

from pipeline.events import Measures, Partial, Ratios, Tick, WindowMetrics
from pipeline.instants import from_ms
from pipeline.stages import rollup
from pipeline.testing import EPOCH_MS, Driver

HOUR = 3_600_000
GRACE_S = 600
KEY = f"acme|all|1h|{from_ms(EPOCH_MS)}"
DAY_KEY = "acme|all|1d|2030-03-30T23:00:00.000Z"  # the day on which clocks go forward in Berlin


@pytest.fixture
def driver() -> Driver:
    """The stage on one partition."""
    stage = rollup.stage(grace_s=GRACE_S, zones={"acme": ZoneInfo("Europe/Berlin")})
    return Driver([stage], partitions=1)


def give(
    driver: Driver, measures: Measures, *, partition: int = 0, revision: int = 1, key: str = KEY
) -> None:
    """Let *partition* tell its share."""
    share = Partial(window_key=key, partition=partition, revision=revision, measures=measures)
    driver.send("engagement.partials", f"{key}|{partition}", share)
    driver.run()


def tick(driver: Driver, at: int) -> None:
    """Let it be *at* ms since 1970."""
    driver.send("clock.ticks", "0", Tick(from_ms(at)))
    driver.run()


def told(driver: Driver) -> list[tuple[int, bool, int]]:
    """Revision, closed and sent of each record of ``engagement.metrics``."""
    values: list[WindowMetrics] = driver.values("engagement.metrics")
    return [(value.revision, value.closed, value.measures.sent) for value in values]


def test_a_window_is_published_whole(driver: Driver) -> None:
    """Sum, ratios and quantiles of all partitions, with the parts of the key."""
    give(driver, Measures(sent=3, delivered=2, cost="0.3", contacts_messaged=2, reply_seconds={"5": 1}))
    give(
        driver,
        Measures(sent=1, cost="0.70", contacts_messaged=2, repliers=1, reply_seconds={"101": 9}),
        partition=1,
    )
    assert driver.table("engagement.metrics")[KEY] == WindowMetrics(
        tenant="acme",
        dimension="all",
        width="1h",
        start=from_ms(EPOCH_MS),
        end=from_ms(EPOCH_MS + HOUR),
        revision=2,
        closed=False,
        measures=Measures(
            sent=4,
            delivered=2,
            cost="1",
            contacts_messaged=4,
            repliers=1,
            reply_seconds={"5": 1, "101": 9},
        ),
        ratios=Ratios(delivery=0.5, failure=0.0, reply=0.25, opt_out=0.0),
        reply_seconds_p50=102,
        reply_seconds_p90=102,
        reply_seconds_p99=102,
    )


def test_a_share_replaces_the_one_before(driver: Driver) -> None:
    """Shares are absolute: what is told again or is older changes nothing."""
    give(driver, Measures(sent=3))
    give(driver, Measures(sent=5), revision=2)
    give(driver, Measures(sent=3))
    give(driver, Measures(sent=5), revision=2)
    assert told(driver) == [(1, False, 3), (2, False, 5)]


def test_a_batch_publishes_a_window_once(driver: Driver) -> None:
    """Of the shares of one batch each partition's newest counts, in whatever order they come."""
    for partition, revision in ((0, 2), (1, 1), (0, 3), (0, 1)):
        share = Partial(
            window_key=KEY, partition=partition, revision=revision, measures=Measures(sent=revision)
        )
        driver.send("engagement.partials", f"{KEY}|{partition}", share)
    driver.run()
    assert told(driver) == [(1, False, 4)]


def test_a_tick_closes_what_was_given_in_its_own_batch(driver: Driver) -> None:
    """However batches are cut, a share before the tick is in the window that it closes."""
    share = Partial(window_key=KEY, partition=0, revision=1, measures=Measures(sent=3))
    driver.send("engagement.partials", f"{KEY}|0", share)
    driver.now_ms += 1
    tick(driver, EPOCH_MS + HOUR + GRACE_S * 1000)
    assert told(driver) == [(2, True, 3)]


def test_a_window_closes_when_its_grace_has_passed(driver: Driver) -> None:
    """On the first tick at its end and grace, not a millisecond before, and once."""
    give(driver, Measures(sent=3))
    end = EPOCH_MS + HOUR + GRACE_S * 1000
    for at in (end - 1, end, end + 1, end):
        tick(driver, at)
    assert told(driver) == [(1, False, 3), (2, True, 3)]


def test_a_day_closes_by_the_tenants_clock(driver: Driver) -> None:
    """The day on which clocks go forward is over after 23 hours."""
    give(driver, Measures(sent=3), key=DAY_KEY)
    metrics = driver.table("engagement.metrics")[DAY_KEY]
    assert metrics.end == "2030-03-31T22:00:00.000Z"


def test_a_share_opens_a_closed_window_until_the_next_tick(driver: Driver) -> None:
    """Each is a revision of its own."""
    end = EPOCH_MS + HOUR + GRACE_S * 1000
    give(driver, Measures(sent=3))
    tick(driver, end)
    give(driver, Measures(sent=4), revision=2)
    tick(driver, end + 60_000)
    assert told(driver) == [(1, False, 3), (2, True, 3), (3, False, 4), (4, True, 4)]


def test_a_sum_that_stays_the_same_is_not_told(driver: Driver) -> None:
    """What one partition loses and another gains in one transaction leaves no record of its own."""
    give(driver, Measures(sent=3))
    give(driver, Measures(), partition=1)
    assert told(driver) == [(1, False, 3)]


def test_a_window_back_at_zero_is_still_published(driver: Driver) -> None:
    """Readers must learn that nothing is left."""
    give(driver, Measures(sent=1))
    give(driver, Measures(), revision=2)
    assert told(driver) == [(1, False, 1), (2, False, 0)]


def test_many_windows_close_in_chunks(driver: Driver) -> None:
    """However many are due at one tick, each is closed once."""
    keys = [f"acme|job:{number}|1h|{from_ms(EPOCH_MS)}" for number in range(3 * rollup.CHUNK)]
    for key in keys:
        share = Partial(window_key=key, partition=0, revision=1, measures=Measures(sent=1))
        driver.send("engagement.partials", f"{key}|0", share)
    driver.run()
    tick(driver, EPOCH_MS + 2 * HOUR)
    table = driver.table("engagement.metrics")
    assert sorted(table) == sorted(keys)
    assert {(metrics.revision, metrics.closed) for metrics in table.values()} == {(2, True)}


@pytest.mark.parametrize(
    ("key", "window_key", "reason"),
    [
        ("acme|all|1h|2030-01-01T00:00:00.000Z|1", KEY, b"wrong-key"),
        ("nonsense|0", "nonsense", b"window-key"),
        ("acme|all|1d|9999-12-31T23:00:00.000Z|0", "acme|all|1d|9999-12-31T23:00:00.000Z", b"window-key"),
    ],
)
def test_a_bad_share_is_dead_lettered_as_what_it_is(
    driver: Driver, key: str, window_key: str, reason: bytes
) -> None:
    """A key that is none is told as such, and nothing is kept."""
    share = Partial(window_key=window_key, partition=0, revision=1, measures=Measures(sent=1))
    driver.send("engagement.partials", key, share)
    driver.run()
    headers: list[dict[str, Any]] = [dict(record.headers) for record in driver.records("dead-letters")]
    assert [header["dl_reason"] for header in headers] == [reason]
    assert driver.state("rollup") == {}
