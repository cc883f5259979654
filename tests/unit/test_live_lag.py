"""How far live groups are behind in seconds, and how a job beside them slows down."""

import pytest

from pipeline.runtime.live_lag import TOLERATED_S, Lags, Throttle

PLACE = ("in", 0)


def test_a_group_at_the_end_is_not_behind() -> None:
    """Neither one that has read all, nor one before the marks that end transactions."""
    lags = Lags()
    assert lags.largest(10.0, {PLACE: 100}, [{PLACE: 100}]) == 0.0
    assert lags.largest(11.0, {PLACE: 102}, [{PLACE: 100}]) == 0.0


def test_lag_is_the_time_since_the_end_was_where_the_group_is() -> None:
    """Of several groups the one furthest behind counts."""
    lags = Lags()
    lags.largest(10.0, {PLACE: 100}, [])
    lags.largest(20.0, {PLACE: 200}, [])
    lags.largest(30.0, {PLACE: 300}, [])
    assert lags.largest(32.0, {PLACE: 350}, [{PLACE: 310}]) == 2.0
    assert lags.largest(34.0, {PLACE: 400}, [{PLACE: 310}, {PLACE: 150}]) == 24.0


def test_what_is_older_than_the_samples_counts_from_the_first() -> None:
    """Nobody can tell more, and it is never less than the truth by more than was not watched."""
    lags = Lags()
    lags.largest(10.0, {PLACE: 1_000}, [{PLACE: 0}])
    assert lags.largest(15.0, {PLACE: 1_000}, [{PLACE: 0}]) == 5.0


def test_a_job_slows_down_while_lag_grows_and_recovers() -> None:
    """Its share of the rate halves with every look, and grows back to all of it."""
    throttle = Throttle(1_000.0)
    throttle.adapt(1.0)
    throttle.adapt(1.0 + TOLERATED_S + 0.1)
    throttle.adapt(1.0 + TOLERATED_S + 0.1)
    assert throttle.per_s == 250.0
    for _ in range(10):
        throttle.adapt(0.0)
    assert throttle.per_s == 1_000.0


def test_a_group_that_stands_still_stops_no_job() -> None:
    """However far it is behind, a hundredth of the rate is left."""
    throttle = Throttle(1_000.0)
    for lag_s in range(100):
        throttle.adapt(float(lag_s))
    assert throttle.per_s == pytest.approx(10.0)


def test_what_was_normal_at_the_beginning_is_no_reason_to_slow_down() -> None:
    """A group that was behind already, and gets no further behind, leaves the rate as it is."""
    throttle = Throttle(1_000.0)
    for _ in range(5):
        throttle.adapt(60.0)
    assert throttle.share == 1.0
