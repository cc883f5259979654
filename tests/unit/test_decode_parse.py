"""How decode reads single values."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import RecordError
from pipeline.instants import parse as parse_instant
from pipeline.stages.decode import parse


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"0.0079", "0.0079"),
        (b'"1.50"', "1.5"),
        (b"100", "100"),
        (b"1e2", "100"),
        (b"1E-5", "0.00001"),
        (b"-0.0", "0"),
        (b"0.1000000000000000055511151231257827", "0.1000000000000000055511151231257827"),
    ],
)
def test_a_price_is_exact_normalised_decimal_text(raw: bytes, text: str) -> None:
    """Digits survive as they came; exponents and trailing zeros don't."""
    assert parse.as_decimal(msgspec.Raw(raw), "price") == text


@pytest.mark.parametrize("raw", [b"", b"null", b'""'])
def test_no_price_is_none(raw: bytes) -> None:
    """What is not told is unknown."""
    assert parse.as_decimal(msgspec.Raw(raw), "price") is None


@pytest.mark.parametrize("raw", [b"true", b"[]", b'"1,5"', b'"NaN"', b'"Infinity"', b"1e999", b'"1e-999"'])
def test_a_wrong_price_is_refused_by_name(raw: bytes) -> None:
    """Neither words nor numbers that would fill the memory pass; the value is not told."""
    with pytest.raises(RecordError, match=r"^payload\.price: is no decimal number$"):
        parse.as_decimal(msgspec.Raw(raw), "payload.price")


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=0, max_value=10**9))
def test_equal_prices_have_equal_text(price: object) -> None:
    """However many zeros follow, the text is the same."""
    text = str(price).encode()
    assert parse.as_decimal(msgspec.Raw(text), "p") == parse.as_decimal(msgspec.Raw(text + b"000"), "p")


@pytest.mark.parametrize(
    ("value", "time"),
    [
        ("2030-01-01T15:37:30.963Z", "2030-01-01T15:37:30.963Z"),
        ("2030-01-01T16:37:30+01:00", "2030-01-01T15:37:30.000Z"),
        ("2030-01-01T15:37:30.9639", "2030-01-01T15:37:30.963Z"),
        (1893512250963, "2030-01-01T15:37:30.963Z"),
        (1893512250, "2030-01-01T15:37:30.000Z"),
        (None, None),
        ("", None),
    ],
)
def test_times_are_normalised(value: str | int | None, time: str | None) -> None:
    """Text order becomes time order, whatever zone or unit a time came in."""
    assert parse.as_time(value, "at") == time


@pytest.mark.parametrize(
    "value",
    [
        "yesterday",
        "2030-13-01T00:00:00Z",
        "2030-02-30T00:00:00.000Z",
        "2030-01-01T24:00:00.000Z",
        "1969-12-31T23:59:59.999Z",
        "2200-01-01T00:00:00.000Z",
        1e300,
        "0001-01-01T00:00:00Z",
    ],
)
def test_what_is_no_time_is_refused_by_name(value: str | float) -> None:
    """Nonsense, and times that nobody means, are told by the field's name."""
    with pytest.raises(RecordError, match=r"^created\.at: is"):
        parse.as_time(value, "created.at")


@given(st.datetimes(datetime(1970, 1, 1), datetime(2199, 12, 31), timezones=st.just(UTC)))  # noqa: DTZ001 - naive bounds are asked for
def test_a_time_in_our_own_form_stays_as_it_is(moment: datetime) -> None:
    """On every day that there is, the 29th to the 31st among them."""
    time = parse_instant(moment.isoformat())
    assert parse.as_time(time, "at") == time


@pytest.mark.parametrize(("value", "count"), [(2, 2), (2.0, 2), ("2", 2), (None, None), ("", None)])
def test_counts_come_as_numbers_or_text(value: float | str | None, count: int | None) -> None:
    """The document says number, so 2.0 is 2."""
    assert parse.as_count(value, "segments") == count


@pytest.mark.parametrize("value", [-1, 1.5, "x", float("inf")])
def test_what_is_no_count_is_refused(value: float | str) -> None:
    """Halves and negatives count nothing."""
    with pytest.raises(RecordError, match=r"^segments: "):
        parse.as_count(value, "segments")


@pytest.mark.parametrize(("value", "flag"), [(True, True), ("FALSE", False), (None, None), ("", None)])
def test_flags_come_as_booleans_or_text(value: bool | str | None, flag: bool | None) -> None:
    """Some writers quote their booleans."""
    assert parse.as_flag(value, "outgoing") is flag


def test_another_word_is_no_flag() -> None:
    """A word that is neither true nor false is told by the field's name."""
    with pytest.raises(RecordError, match=r"^outgoing: is neither"):
        parse.as_flag("perhaps", "outgoing")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"<html>", b'{"a":' + b"[" * 100_000, b'{"a":"\xff\xfe"}', b'{"a":"\\ud800"}']
)
def test_what_is_no_json_is_unreadable(body: bytes) -> None:
    """No bytes whatever raise anything but a `RecordError`."""
    with pytest.raises(RecordError) as caught:
        parse.decoded(msgspec.json.Decoder(dict[str, Any]), body)
    assert caught.value.reason == "unreadable"
