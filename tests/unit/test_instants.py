"""Instants: one form, whose text order is time order."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.instants import Time, from_ms, parse, to_datetime, to_ms

#: From year 1 to 9999.
MILLISECONDS = st.integers(-62_135_596_800_000, 253_402_300_799_999)


@given(MILLISECONDS)
def test_milliseconds_survive_the_round_trip(milliseconds: int) -> None:
    """Exact over all years that can be written."""
    assert to_ms(from_ms(milliseconds)) == milliseconds
    assert parse(from_ms(milliseconds)) == from_ms(milliseconds)


@given(MILLISECONDS, MILLISECONDS)
def test_text_order_is_time_order(one: int, other: int) -> None:
    """Instants are compared as they are."""
    assert (from_ms(one) < from_ms(other)) == (one < other)


@given(MILLISECONDS)
def test_every_instant_has_the_same_form(milliseconds: int) -> None:
    """24 characters, three decimals, ``Z``."""
    text = from_ms(milliseconds)
    assert (len(text), text[4], text[10], text[19], text[23]) == (24, "-", "T", ".", "Z")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2030-01-01T15:37:30.963Z", "2030-01-01T15:37:30.963Z"),
        ("2030-01-01T15:37:30Z", "2030-01-01T15:37:30.000Z"),
        (" 2030-01-01 15:37:30 ", "2030-01-01T15:37:30.000Z"),
        ("2030-01-01t15:37:30z", "2030-01-01T15:37:30.000Z"),
        ("2030-01-01T15:37:30.9639999+02:00", "2030-01-01T13:37:30.963Z"),
        ("2030-01-01T01:00:00+05:30", "2029-12-31T19:30:00.000Z"),
        ("20300101T153730Z", "2030-01-01T15:37:30.000Z"),
        ("0999-12-31T23:59:59Z", "0999-12-31T23:59:59.000Z"),
    ],
)
def test_other_forms_are_normalised(text: str, wanted: str) -> None:
    """RFC 3339 and ISO 8601 with any zone; without one it is UTC; decimals are cut."""
    assert parse(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "2030-01-01",
        "15:37:30",
        "1712011512345",
        "2030-13-01T00:00:00Z",
        "2030-02-30T00:00:00Z",
        "2030-01-01T24:61:00Z",
        "0001-01-01T00:00:00+05:00",
        "9999-12-31T23:59:59-05:00",
        "٢٠٣٠-01-01T00:00:00Z",
        "2030-01-01T00:00:00Z and more",
    ],
)
def test_what_is_no_date_and_time_is_refused(text: str) -> None:
    """A date alone, digits that count milliseconds, and what is out of range among them."""
    with pytest.raises(ValueError):  # noqa: PT011 - whichever of the standard library's texts
        parse(text)


@given(st.text(max_size=40))
def test_any_text_is_an_instant_or_a_value_error(text: str) -> None:
    """Nothing else is raised."""
    try:
        found = parse(text)
    except ValueError:
        return
    assert len(found) == 24


def test_an_instant_as_a_datetime_is_aware() -> None:
    """In UTC, with its milliseconds."""
    wanted = datetime(2030, 1, 1, 15, 37, 30, tzinfo=UTC) + timedelta(milliseconds=963)
    assert to_datetime(Time("2030-01-01T15:37:30.963Z")) == wanted


@pytest.mark.parametrize("milliseconds", [10**18, -(10**18)])
def test_a_year_that_cannot_be_written_is_an_overflow(milliseconds: int) -> None:
    """No wrong instant comes of it."""
    with pytest.raises(OverflowError):
        from_ms(milliseconds)
