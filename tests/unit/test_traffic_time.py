"""When the sample traffic happens, and the grace with which windows close while it runs."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sandbox.traffic_time import (
    DAY_MS,
    HORIZON_MS,
    HOUR_MS,
    Era,
    boundary_ms,
    dev_grace_s,
    era_start_ms,
)

STARTS = st.integers(1_600_000_000_000, 2_500_000_000_000)


@given(STARTS)
def test_the_boundary_is_a_midnight_beyond_the_reply_window(start_ms: int) -> None:
    """It ends an hour and, in UTC, a day, three to four days before the start."""
    boundary = boundary_ms(start_ms)
    assert boundary % DAY_MS == 0
    assert 3 * DAY_MS <= start_ms - boundary < 4 * DAY_MS


@given(STARTS, st.integers(5, 60))
def test_windows_at_the_boundary_close_soon_after_the_start(start_ms: int, closes_after_s: int) -> None:
    """The boundary plus the grace is as long after the start as asked, to the second."""
    closes_ms = boundary_ms(start_ms) + dev_grace_s(start_ms, closes_after_s) * 1_000
    assert 0 <= closes_ms - start_ms - closes_after_s * 1_000 < 1_000


@given(STARTS, st.sampled_from(Era), st.integers(0, 99))
def test_nothing_happened_more_than_ten_days_ago_or_in_the_future(start_ms: int, era: Era, seed: int) -> None:
    """Each era begins within the ten days before the start."""
    era_ms = era_start_ms(era, start_ms, boundary_ms(start_ms), random.Random(seed))
    assert start_ms - HORIZON_MS <= era_ms <= start_ms


@pytest.mark.parametrize(("era", "late"), [(Era.OLD, True), (Era.RECENT, False), (Era.NOW, False)])
def test_eras_are_late_or_in_time_by_a_wide_margin(era: Era, late: bool) -> None:
    """What is old is late for its day wherever that ends; what is recent is so for no window."""
    start_ms = 1_893_500_000_000
    for seed in range(50):
        era_ms = era_start_ms(era, start_ms, boundary_ms(start_ms), random.Random(seed))
        latest_end, earliest_end = era_ms + DAY_MS, era_ms - era_ms % HOUR_MS + HOUR_MS
        grace_ms = dev_grace_s(start_ms) * 1_000
        assert start_ms - latest_end > grace_ms if late else start_ms + DAY_MS - earliest_end < grace_ms


def test_the_closing_hour_ends_at_the_boundary() -> None:
    """Its contacts stay within that hour for as long as they live in the past."""
    start_ms = 1_893_500_000_000
    boundary = boundary_ms(start_ms)
    begun = [era_start_ms(Era.CLOSING, start_ms, boundary, random.Random(seed)) for seed in range(50)]
    assert all(boundary - HOUR_MS <= at < boundary - 50 * 60_000 for at in begun)
