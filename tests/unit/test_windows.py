"""Windows of time and their keys."""

from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.instants import Time, from_ms, to_ms
from pipeline.windows import DAY, HOUR, Window, day_of, dimension, hour_of, key, parse

HOUR_MS = 3_600_000
ZONES = [
    ZoneInfo(name)
    for name in (
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "America/Sao_Paulo",
        "America/St_Johns",
        "America/Havana",
        "Asia/Kolkata",
        "Asia/Kathmandu",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "Africa/Cairo",
    )
]
INSTANTS = st.integers(to_ms(Time("1990-01-01T00:00:00.000Z")), to_ms(Time("2060-01-01T00:00:00.000Z")))


@pytest.mark.parametrize(
    ("zone", "at", "start", "hours"),
    [
        ("Europe/Berlin", "2030-01-15T12:00:00.000Z", "2030-01-14T23:00:00.000Z", 24),
        ("Europe/Berlin", "2030-03-31T12:00:00.000Z", "2030-03-30T23:00:00.000Z", 23),
        ("Europe/Berlin", "2030-10-27T22:59:59.999Z", "2030-10-26T22:00:00.000Z", 25),
        ("America/Havana", "2024-03-10T12:00:00.000Z", "2024-03-10T05:00:00.000Z", 23),
        ("America/Havana", "2024-11-03T04:30:00.000Z", "2024-11-03T04:00:00.000Z", 25),
        ("Asia/Kolkata", "2030-01-15T18:29:59.999Z", "2030-01-14T18:30:00.000Z", 24),
    ],
)
def test_a_day_is_the_tenants(zone: str, at: str, start: str, hours: int) -> None:
    """A day runs from local midnight to local midnight, 23 or 25 hours where clocks are changed."""
    span = day_of(to_ms(Time(at)), ZoneInfo(zone))
    assert (from_ms(span.start), (span.end - span.start) / HOUR_MS) == (start, hours)


def test_where_clocks_go_back_over_midnight_days_do_not_overlap() -> None:
    """What local time calls yesterday once more belongs to the day that has begun."""
    zone = ZoneInfo("America/St_Johns")  # 2010-11-07 00:01 went back to 2010-11-06 23:01
    again = day_of(to_ms(Time("2010-11-07T03:00:00.000Z")), zone)
    assert from_ms(again.start) == "2010-11-07T02:30:00.000Z"
    assert day_of(again.start - 1, zone).end == again.start


@given(INSTANTS, st.sampled_from(ZONES))
def test_days_hold_their_instants_and_follow_each_other(at: int, zone: ZoneInfo) -> None:
    """Every instant lies in exactly one day: days have no gaps and no overlaps."""
    day = day_of(at, zone)
    assert day.start <= at < day.end
    days = [day_of(day.start - 1, zone), day, day_of(day.end, zone)]
    assert all(one.end == other.start for one, other in pairwise(days))
    assert day_of(day.start, zone) == day_of(day.end - 1, zone) == day


@given(INSTANTS)
def test_hours_are_hours_of_utc(at: int) -> None:
    """An hour begins on the hour and holds its instant."""
    span = hour_of(at)
    assert span.start % HOUR_MS == 0
    assert span.start <= at < span.end == span.start + HOUR_MS


@given(
    st.sampled_from(
        ["all", *[dimension(kind, value) for kind in ("tag:id", "tag:name") for value in "|:%é "]]
    ),
    INSTANTS,
    st.sampled_from(ZONES),
    st.booleans(),
)
def test_a_key_tells_its_window(name: str, at: int, zone: ZoneInfo, daily: bool) -> None:
    """What is written into a key is read out of it, whatever characters a dimension's value has."""
    span = day_of(at, zone) if daily else hour_of(at)
    window = parse(key("acme", name, span))
    assert window == Window("acme", name, DAY if daily else HOUR, from_ms(span.start))
    assert window.span(zone) == span


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("all", ("all", "")),
        (dimension("tag:name", "a|b: c"), ("tag:name", "a|b: c")),
        ("job:7", ("job", "7")),
    ],
)
def test_a_dimension_tells_kind_and_value(name: str, value: tuple[str, str]) -> None:
    """The value comes back without its encoding."""
    assert parse(f"acme|{name}|1h|2030-01-01T00:00:00.000Z").value == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "acme|all|1h",
        "acme|all|1w|2030-01-01T00:00:00.000Z",
        "acme||1h|2030-01-01T00:00:00.000Z",
        "acme|all|1h|2030-01-01T00:00:00Z",
        "acme|all|1h|yesterday",
        "acme|a|b|1h|2030-01-01T00:00:00.000Z",
    ],
)
def test_what_is_no_window_key_is_refused(text: str) -> None:
    """The error says what a key looks like."""
    with pytest.raises(ValueError, match=r"expected tenant\|dimension\|1h or 1d\|start"):
        parse(text)
