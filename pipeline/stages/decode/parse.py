"""
Read what the APIs send: leniently in form, strictly in type.

Unknown fields are ignored, missing ones are None, ids may be numbers. What has the wrong type is a
`RecordError` that names the field and never its value.
"""

import re
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

import msgspec

from pipeline.errors import RecordError
from pipeline.instants import Time, from_ms, parse

__all__ = [
    "Flag",
    "Id",
    "as_count",
    "as_decimal",
    "as_flag",
    "as_id",
    "as_time",
    "as_values",
    "body_text",
    "decoded",
    "invalid",
    "is_plain_time",
    "required",
]

T = TypeVar("T")

Id: TypeAlias = str | int | None
Flag: TypeAlias = bool | str | None

#: Times as `pipeline.instants` writes them, within the range below, on the days that every month has.
is_plain_time = re.compile(
    r"(19[7-9]\d|2[01]\d\d)-(0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])"
    r"T([01]\d|2[0-3]):[0-5]\d:[0-5]\d\.\d{3}Z",
    re.ASCII,
).fullmatch
_NUMBER = re.compile(r"-?\d{1,40}(\.\d{1,40})?([eE][+-]?\d{1,2})?", re.ASCII)
#: Times outside are taken for mistakes; inside, the number of a day has five digits.
_EARLIEST, _LATEST = "1970", "2200"
#: Numbers below are seconds since 1970, those above milliseconds.
_SECONDS_END = 100_000_000_000


def invalid(where: str, problem: str) -> RecordError:
    """The error for field *where*, whose value is not told."""
    return RecordError("invalid", f"{where}: {problem}")


def decoded(decoder: msgspec.json.Decoder[T], body: bytes | msgspec.Raw, where: str = "") -> T:
    """
    *body* as *decoder*'s type; *where* is the field that it stands in.

    Raises:
        RecordError: ``unreadable`` if it is no JSON or nested too deeply, ``invalid`` if a field has
            the wrong type.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise RecordError("invalid", _placed(str(error), where)) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise RecordError("unreadable", f"{where or 'the body'} is no JSON") from None
    except RecursionError:
        raise RecordError("unreadable", f"{where or 'the body'} is nested too deeply") from None


def _placed(text: str, where: str) -> str:
    """Msgspec's error text, whose path begins with ``$``, as seen from outside of *where*."""
    if "`$" not in text:
        return f"{where or 'the body'}: {text}"
    return text.replace("`$", f"`{where}") if where else text


def as_time(value: str | float | None, where: str) -> Time | None:
    """
    *value* as an instant: RFC 3339 text, or seconds or milliseconds since 1970; None where it is empty.

    Raises:
        RecordError: it is no time between 1970 and 2200.
    """
    if value is None or value == "":
        return None
    if isinstance(value, str) and is_plain_time(value):
        return Time(value)
    try:
        if isinstance(value, str):
            time = _normal(value)
        else:
            time = from_ms(round(value if value >= _SECONDS_END else value * 1000))
    except (ValueError, OverflowError, OSError):
        raise invalid(where, "is no date and time") from None
    if not _EARLIEST <= time < _LATEST:
        raise invalid(where, "is out of range (1970 to 2199)")
    return time


_normal = lru_cache(maxsize=8_192)(parse)


def as_id(value: Id) -> str | None:
    """*value* as text; None where it is empty."""
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else str(value)


def required(value: T | None, where: str) -> T:
    """
    *value*, which must be there.

    Raises:
        RecordError: it is missing.
    """
    if value is None:
        raise invalid(where, "is missing")
    return value


def as_flag(value: Flag, where: str) -> bool | None:
    """
    *value* as a boolean; the texts ``true`` and ``false`` are taken too.

    Raises:
        RecordError: it is another text.
    """
    if value is None or isinstance(value, bool):
        return value
    match value.strip().lower():
        case "true":
            return True
        case "false":
            return False
        case "":
            return None
        case _:
            raise invalid(where, "is neither true nor false")


def as_count(value: float | str | None, where: str) -> int | None:
    """
    *value* as a whole number from 0; ``1.0`` and ``"1"`` are taken too.

    Raises:
        RecordError: it is no such number.
    """
    if value is None or value == "":
        return None
    if isinstance(value, int) and value >= 0:
        return value
    try:
        number = int(value)
        if number != float(value) or number < 0:
            raise invalid(where, "is no whole number from 0")
    except (ValueError, OverflowError):
        raise invalid(where, "is no whole number from 0") from None
    return number


def as_decimal(raw: msgspec.Raw, where: str) -> str | None:
    """
    A JSON number, or text of one, as normalised decimal text: no exponent, no trailing zeros.

    Raises:
        RecordError: it is no decimal number, or one of more than 40 digits.
    """
    text = bytes(raw)
    if not text or text in {b"null", b'""'}:
        return None
    return _decimal(text, where)


@lru_cache(maxsize=8_192)
def _decimal(raw: bytes, where: str) -> str:
    text = raw.decode(errors="replace").strip('"').strip()
    try:
        if not _NUMBER.fullmatch(text):
            raise invalid(where, "is no decimal number")
        number = Decimal(text)
    except InvalidOperation:
        raise invalid(where, "is no decimal number") from None
    plain = f"{number:f}"
    plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
    return "0" if plain in {"-0", ""} else plain


def as_values(given: dict[str, Any]) -> dict[str, str]:
    """The values of *given* as text, JSON where they are none; null ones are left out."""
    return {
        name: value if isinstance(value, str) else msgspec.json.encode(value, order="deterministic").decode()
        for name, value in given.items()
        if value is not None
    }


def body_text(body: bytes) -> str:
    """
    *body* as text, to be passed through.

    Raises:
        RecordError: ``unreadable`` if it is no UTF-8.
    """
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise RecordError("unreadable", "the body is no UTF-8") from None
